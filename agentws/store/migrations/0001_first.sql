-- readable from: 1
--
-- Tables, row-level security and the units of work of the first schema.
--
-- Two bound roles own the functions below: agentws_app acts for one principal at a time, agentws_system sees only
-- tables without content. Tables belong to whoever migrates. Nobody else has a privilege on a table.
--
-- Lock order, everywhere: thread_head, run_queue, the rest.
--
-- The hot tables have no CHECK constraints: they are evaluated anew in every statement, which was measured to be a tenth
-- of a run's cost, and nobody but these functions can write.


CREATE TABLE node (
    node_id bigint PRIMARY KEY,
    name text NOT NULL,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at timestamptz NOT NULL
) WITH (fillfactor = 50);
COMMENT ON TABLE node IS 'One row a server process: its lease, by the clock of the database.';

-- Threads ------------------------------------------------------------------------------------------------------

CREATE TABLE thread_head (
    tenant_id text NOT NULL DEFAULT '',
    user_id text NOT NULL,
    thread_id text NOT NULL,
    thread_no bigint NOT NULL,
    epoch text NOT NULL,
    first_seq bigint NOT NULL DEFAULT 1,
    last_seq bigint NOT NULL DEFAULT 0,
    last_turn bigint NOT NULL DEFAULT 0,
    waiting integer NOT NULL DEFAULT 0,
    running_run_no bigint,
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, user_id, thread_id)
) WITH (fillfactor = 50);
COMMENT ON TABLE thread_head IS 'What every unit of work of a thread locks first: its numbers and its running run. Narrow, and without a second index, so that each change is heap-only.';
COMMENT ON COLUMN thread_head.updated_at IS 'When the thread last got a run or an end of one; here, because this row is written then anyway.';
COMMENT ON COLUMN thread_head.last_turn IS 'The place in the conversation given last; the gap of 2^32 leaves room for runs that go before those that wait.';
COMMENT ON COLUMN thread_head.thread_no IS 'The inner number of this incarnation of the name; what belongs to the thread has it in its key.';

CREATE TABLE thread (
    tenant_id text NOT NULL DEFAULT '',
    user_id text NOT NULL,
    thread_no bigint NOT NULL,
    thread_id text NOT NULL,
    title text,
    metadata json,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, user_id, thread_no)
) WITH (fillfactor = 80);

-- Runs ---------------------------------------------------------------------------------------------------------

CREATE TABLE run (
    tenant_id text NOT NULL DEFAULT '',
    user_id text NOT NULL,
    run_no bigint NOT NULL,
    run_id text NOT NULL,
    thread_no bigint NOT NULL,
    turn bigint NOT NULL,
    root_run_no bigint,
    parent_run_no bigint,
    depth smallint NOT NULL DEFAULT 0,
    kind text NOT NULL,
    agent text NOT NULL,
    status text NOT NULL,
    fence integer NOT NULL DEFAULT 0,
    attempt smallint NOT NULL DEFAULT 1,
    ordinal integer NOT NULL DEFAULT 1,
    context json,
    stop_reason text,
    error_code text,
    first_seq bigint NOT NULL,
    started_seq bigint,
    ended_seq bigint,
    accepted_at timestamptz NOT NULL DEFAULT now(),
    started_at timestamptz,
    ended_at timestamptz,
    PRIMARY KEY (tenant_id, user_id, run_no),
    FOREIGN KEY (tenant_id, user_id, thread_no) REFERENCES thread
) WITH (fillfactor = 80);
-- The selective column first: a generic plan made on an empty table must not be led astray by the shared prefix.
CREATE UNIQUE INDEX run_by_name ON run (run_id, tenant_id, user_id);
COMMENT ON TABLE run IS 'What was asked and how it ended. fence, attempt and ordinal hold what run_queue held when the run ended.';

CREATE TABLE run_queue (
    tenant_id text NOT NULL DEFAULT '',
    user_id text NOT NULL,
    run_no bigint NOT NULL,
    thread_id text NOT NULL,
    thread_no bigint NOT NULL,
    turn bigint NOT NULL,
    agent text NOT NULL,
    owner bigint,
    fence integer NOT NULL DEFAULT 0,
    attempt smallint NOT NULL DEFAULT 1,
    ordinal integer NOT NULL DEFAULT 1,
    begun_fence integer,
    stopping boolean NOT NULL DEFAULT false,
    queued_at timestamptz NOT NULL DEFAULT now(),
    available_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, user_id, run_no)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 1000);
COMMENT ON COLUMN run_queue.begun_fence IS 'The fence under which agent_started was written; null: not yet.';
COMMENT ON TABLE run_queue IS 'The runs that wait (owner is null) or run: who works on them, under which fence, and how many events are written. No content.';

CREATE TABLE start_key (
    tenant_id text NOT NULL DEFAULT '',
    user_id text NOT NULL,
    idempotency_key text NOT NULL,
    content_hash bytea NOT NULL,
    run_no bigint NOT NULL,
    run_id text NOT NULL,
    thread_id text NOT NULL,
    thread_no bigint NOT NULL,
    epoch text NOT NULL,
    seq bigint NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, user_id, idempotency_key)
);
COMMENT ON TABLE start_key IS 'Idempotency keys of starts. Apart from run, because a key outlives its thread.';

CREATE TABLE message (
    tenant_id text NOT NULL DEFAULT '',
    user_id text NOT NULL,
    thread_no bigint NOT NULL,
    turn bigint NOT NULL,
    role smallint NOT NULL,
    message_no bigint NOT NULL,
    parent_no bigint,
    run_no bigint NOT NULL,
    content text NOT NULL,
    parts json,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, user_id, thread_no, turn, role)
);
COMMENT ON COLUMN message.role IS '0: the user''s, 1: the assistant''s; so that the key is the order of the conversation.';
COMMENT ON COLUMN message.parent_no IS 'The message that this one answers or follows; null: the one before it in the thread.';
COMMENT ON COLUMN message.parts IS 'Typed parts of the content, for which content is the plain text; null: content is all there is.';

CREATE TABLE event (
    tenant_id text NOT NULL DEFAULT '',
    user_id text NOT NULL,
    thread_no bigint NOT NULL,
    seq bigint NOT NULL,
    from_seq bigint,
    run_no bigint NOT NULL,
    ordinal integer NOT NULL,
    attempt smallint NOT NULL,
    type text NOT NULL,
    body text,
    at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, user_id, thread_no, seq)
);
COMMENT ON COLUMN event.body IS 'The payload as JSON, less what the run and its messages hold already.';

-- Who may see what ---------------------------------------------------------------------------------------------

DO $$
DECLARE t text;
BEGIN
    FOREACH t IN ARRAY ARRAY['thread_head', 'thread', 'run', 'run_queue', 'start_key', 'message', 'event'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', t);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', t);
        -- A finished transaction leaves '' in a custom setting, not NULL; no user id is ''.
        EXECUTE format(
            'CREATE POLICY principal ON %I TO agentws_app'
            ' USING (tenant_id = current_setting(''agentws.tenant_id'', true)'
            ' AND user_id = NULLIF(current_setting(''agentws.user_id'', true), ''''))', t);
    END LOOP;
    FOREACH t IN ARRAY ARRAY['thread_head', 'run_queue'] LOOP
        EXECUTE format('CREATE POLICY system ON %I TO agentws_system USING (true)', t);
    END LOOP;
END $$;

GRANT SELECT, INSERT, UPDATE, DELETE ON thread_head, run_queue, start_key TO agentws_app;
GRANT SELECT, INSERT, UPDATE ON run TO agentws_app;
GRANT SELECT, INSERT ON thread, message, event TO agentws_app;
GRANT SELECT, UPDATE ON thread_head, run_queue TO agentws_system;
GRANT SELECT, INSERT, UPDATE, DELETE ON node TO agentws_system;
GRANT SELECT ON schema_migration TO agentws_system;

-- Units of work for one principal ------------------------------------------------------------------------------

CREATE FUNCTION create_thread(
    p_tenant text, p_user text, p_thread_id text, p_thread_no bigint, p_title text, p_metadata json,
    OUT thread_id text, OUT title text, OUT metadata json, OUT created_at timestamptz, OUT updated_at timestamptz,
    OUT epoch text, OUT last_seq bigint, OUT running_run_id text
) LANGUAGE plpgsql SECURITY DEFINER SET search_path = agentws, pg_temp AS $$
#variable_conflict use_column
DECLARE
    h thread_head;
BEGIN
    PERFORM set_config('agentws.tenant_id', p_tenant, true), set_config('agentws.user_id', p_user, true);
    INSERT INTO thread_head (tenant_id, user_id, thread_id, thread_no, epoch)
        VALUES (p_tenant, p_user, p_thread_id, p_thread_no, left(replace(gen_random_uuid()::text, '-', ''), 12))
        ON CONFLICT DO NOTHING;
    IF FOUND THEN
        INSERT INTO thread (tenant_id, user_id, thread_no, thread_id, title, metadata)
            VALUES (p_tenant, p_user, p_thread_no, p_thread_id, p_title, p_metadata);
    END IF;
    -- One table at a time: without statistics a join would be planned as a scan of all that the user has.
    SELECT * INTO h FROM thread_head
        WHERE tenant_id = p_tenant AND user_id = p_user AND thread_id = p_thread_id;
    SELECT h.thread_id, t.title, t.metadata, t.created_at, h.updated_at, h.epoch, h.last_seq
        INTO create_thread.thread_id, create_thread.title, create_thread.metadata, create_thread.created_at,
            create_thread.updated_at, create_thread.epoch, create_thread.last_seq
        FROM thread t WHERE t.tenant_id = p_tenant AND t.user_id = p_user AND t.thread_no = h.thread_no;
    SELECT r.run_id INTO create_thread.running_run_id
        FROM run r WHERE r.tenant_id = p_tenant AND r.user_id = p_user AND r.run_no = h.running_run_no;
END $$;

-- Accepts a start: thread, run, message, first event, and the claim where the thread is idle and p_owner has a slot.
-- outcome: accepted, duplicate, thread_not_found, run_id_conflict, idempotency_conflict.
-- p_thread_no makes the thread; null: it has to be there. p_again: an earlier call with this p_run_no was not answered.
CREATE FUNCTION accept(
    p_tenant text, p_user text, p_thread_id text, p_thread_no bigint, p_run_no bigint, p_run_id text, p_named boolean,
    p_kind text, p_agent text, p_text text, p_context json, p_owner bigint, p_key text, p_hash bytea, p_again boolean,
    OUT outcome text, OUT o_thread_id text, OUT o_epoch text, OUT o_run_no bigint, OUT o_run_id text,
    OUT o_status text, OUT o_seq bigint, OUT o_position integer, OUT o_thread_no bigint, OUT o_turn bigint,
    OUT o_at timestamptz, OUT o_claimed boolean
) LANGUAGE plpgsql SECURITY DEFINER SET search_path = agentws, pg_temp AS $$
DECLARE
    h thread_head;
    k start_key;
    runs boolean;
BEGIN
    PERFORM set_config('agentws.tenant_id', p_tenant, true), set_config('agentws.user_id', p_user, true);
    IF p_key IS NOT NULL THEN
        SELECT * INTO k FROM start_key WHERE tenant_id = p_tenant AND user_id = p_user AND idempotency_key = p_key;
        IF FOUND AND k.run_no <> p_run_no THEN
            IF k.content_hash <> p_hash THEN
                outcome := 'idempotency_conflict';
                RETURN;
            END IF;
            outcome := 'duplicate';
            o_thread_id := k.thread_id; o_epoch := k.epoch; o_run_no := k.run_no; o_run_id := k.run_id; o_seq := k.seq;
            SELECT coalesce(max(r.status), 'stopped') INTO o_status FROM run r
                WHERE r.tenant_id = p_tenant AND r.user_id = p_user AND r.run_no = k.run_no;
            o_position := queue_position(p_tenant, p_user, k.run_no);
            -- The thread may have got a new epoch since, or have been deleted and its name made anew.
            SELECT x.thread_no, x.epoch INTO o_thread_no, h.epoch FROM thread_head x
                WHERE x.tenant_id = p_tenant AND x.user_id = p_user AND x.thread_id = k.thread_id
                    AND x.thread_no = k.thread_no;
            o_epoch := coalesce(h.epoch, k.epoch);
            RETURN;
        END IF;
    END IF;
    IF p_again THEN
        -- Claimed then and not since: the caller, who was never told, is the one who works on it.
        SELECT 'accepted', p_thread_id, x.epoch, r.run_no, r.run_id, r.status, r.first_seq - 1, r.thread_no, r.turn,
                r.accepted_at, r.started_seq = r.first_seq AND q.owner = p_owner AND q.fence = 1 AND q.ordinal = 1
            INTO outcome, o_thread_id, o_epoch, o_run_no, o_run_id, o_status, o_seq, o_thread_no, o_turn, o_at, o_claimed
            FROM run r JOIN thread_head x
                ON x.tenant_id = p_tenant AND x.user_id = p_user AND x.thread_id = p_thread_id AND x.thread_no = r.thread_no
            LEFT JOIN run_queue q ON q.tenant_id = p_tenant AND q.user_id = p_user AND q.run_no = p_run_no
            WHERE r.tenant_id = p_tenant AND r.user_id = p_user AND r.run_no = p_run_no;
        IF FOUND THEN
            o_position := queue_position(p_tenant, p_user, p_run_no);
            RETURN;
        END IF;
    END IF;
    IF p_named THEN
        IF p_thread_no IS NULL THEN
            PERFORM 1 FROM thread_head
                WHERE tenant_id = p_tenant AND user_id = p_user AND thread_id = p_thread_id FOR UPDATE;
            IF NOT FOUND THEN
                outcome := 'thread_not_found';
                RETURN;
            END IF;
        END IF;
        SELECT r.run_no INTO o_run_no FROM run r
            WHERE r.run_id = p_run_id AND r.tenant_id = p_tenant AND r.user_id = p_user;
        IF FOUND THEN
            -- Taken while this call waited for the thread, by a copy of itself: the caller asks again, and is told so.
            IF o_run_no = p_run_no OR (p_key IS NOT NULL AND EXISTS (SELECT 1 FROM start_key s
                WHERE s.tenant_id = p_tenant AND s.user_id = p_user AND s.idempotency_key = p_key))
            THEN
                RAISE unique_violation USING MESSAGE = 'a copy of this start was accepted meanwhile';
            END IF;
            o_run_no := NULL;
            outcome := 'run_id_conflict';
            RETURN;
        END IF;
    END IF;
    IF p_thread_no IS NULL THEN
        UPDATE thread_head SET last_seq = last_seq + 1, last_turn = last_turn + 4294967296, updated_at = clock_timestamp(),
            waiting = waiting + CASE WHEN running_run_no IS NULL AND waiting = 0 AND p_owner IS NOT NULL THEN 0 ELSE 1 END,
            running_run_no = CASE WHEN running_run_no IS NULL AND waiting = 0 AND p_owner IS NOT NULL
                THEN p_run_no ELSE running_run_no END
            WHERE tenant_id = p_tenant AND user_id = p_user AND thread_id = p_thread_id RETURNING * INTO h;
        IF NOT FOUND THEN
            outcome := 'thread_not_found';
            RETURN;
        END IF;
    ELSE
        INSERT INTO thread_head (tenant_id, user_id, thread_id, thread_no, epoch, last_seq, last_turn, waiting, running_run_no)
            VALUES (p_tenant, p_user, p_thread_id, p_thread_no, left(replace(gen_random_uuid()::text, '-', ''), 12), 1, 4294967296,
                CASE WHEN p_owner IS NULL THEN 1 ELSE 0 END, CASE WHEN p_owner IS NULL THEN NULL ELSE p_run_no END)
            RETURNING * INTO h;
        INSERT INTO thread (tenant_id, user_id, thread_no, thread_id) VALUES (p_tenant, p_user, p_thread_no, p_thread_id);
    END IF;
    runs := h.running_run_no IS NOT DISTINCT FROM p_run_no;
    o_at := clock_timestamp();
    IF p_key IS NOT NULL THEN
        INSERT INTO start_key (tenant_id, user_id, idempotency_key, content_hash, run_no, run_id, thread_id, thread_no,
                epoch, seq)
            VALUES (p_tenant, p_user, p_key, p_hash, p_run_no, p_run_id, p_thread_id, h.thread_no, h.epoch, h.last_seq - 1);
    END IF;
    INSERT INTO run (tenant_id, user_id, run_no, run_id, thread_no, turn, kind, agent, status, fence, context, first_seq,
            started_seq, started_at, accepted_at)
        VALUES (p_tenant, p_user, p_run_no, p_run_id, h.thread_no, h.last_turn, p_kind, p_agent,
            CASE WHEN runs THEN 'running' ELSE 'queued' END, CASE WHEN runs THEN 1 ELSE 0 END, p_context, h.last_seq,
            CASE WHEN runs THEN h.last_seq END, CASE WHEN runs THEN o_at END, o_at);
    INSERT INTO run_queue (tenant_id, user_id, run_no, thread_id, thread_no, turn, agent, owner, fence, begun_fence)
        VALUES (p_tenant, p_user, p_run_no, p_thread_id, h.thread_no, h.last_turn, p_agent,
            CASE WHEN runs THEN p_owner END, CASE WHEN runs THEN 1 ELSE 0 END, CASE WHEN runs THEN 1 END);
    INSERT INTO message (tenant_id, user_id, thread_no, turn, role, message_no, run_no, content, created_at)
        VALUES (p_tenant, p_user, h.thread_no, h.last_turn, 0, p_run_no, p_run_no, p_text, o_at);
    INSERT INTO event (tenant_id, user_id, thread_no, seq, run_no, ordinal, attempt, type, body, at)
        VALUES (p_tenant, p_user, h.thread_no, h.last_seq, p_run_no, 1, 1,
            CASE WHEN runs THEN 'agent_started' ELSE 'agent_queued' END,
            CASE WHEN runs THEN NULL ELSE '{"position":' || h.waiting || '}' END, o_at);
    outcome := 'accepted';
    o_thread_id := p_thread_id; o_epoch := h.epoch; o_run_no := p_run_no; o_run_id := p_run_id;
    o_status := CASE WHEN runs THEN 'running' ELSE 'queued' END;
    o_seq := h.last_seq - 1;
    o_position := CASE WHEN runs THEN 0 ELSE h.waiting END;
    o_thread_no := h.thread_no; o_turn := h.last_turn; o_claimed := runs;
END $$;

-- How many runs of its thread wait before a run that waits, itself included; 0 where it does not wait.
CREATE FUNCTION queue_position(p_tenant text, p_user text, p_run_no bigint) RETURNS integer
LANGUAGE sql STABLE SET search_path = agentws, pg_temp AS $$
    SELECT count(*)::integer FROM run_queue q JOIN run_queue o
        ON o.tenant_id = q.tenant_id AND o.user_id = q.user_id AND o.thread_no = q.thread_no
        WHERE q.tenant_id = p_tenant AND q.user_id = p_user AND q.run_no = p_run_no
            AND q.owner IS NULL AND o.owner IS NULL AND o.turn <= q.turn
$$;

-- Appends a run's events from ordinal p_first on, and with p_status ends the run in the same transaction.
-- outcome: written, fenced (another holds the run, or it has ended otherwise), stopping (a stop was accepted: it has to
-- end in that, and nothing was written). o_skipped events were there already.
-- With p_owner the thread's next waiting run, if its agent is one of p_agents, is claimed for it: o_next.
CREATE FUNCTION append(
    p_tenant text, p_user text, p_thread_id text, p_run_no bigint, p_fence integer, p_attempt smallint, p_first integer,
    p_types text[], p_bodies text[], p_status text, p_response text, p_error_code text, p_owner bigint, p_agents text[],
    OUT outcome text, OUT o_last_seq bigint, OUT o_at timestamptz, OUT o_skipped integer, OUT o_stop_reason text,
    OUT o_next json
) LANGUAGE plpgsql SECURITY DEFINER SET search_path = agentws, pg_temp AS $$
DECLARE
    n integer := cardinality(p_types);
    h thread_head;
    r run;
    q run_queue;
    next_no bigint;
    v_before integer := p_first - 1;
BEGIN
    PERFORM set_config('agentws.tenant_id', p_tenant, true), set_config('agentws.user_id', p_user, true);
    o_skipped := 0;
    UPDATE thread_head SET last_seq = last_seq + n,
        running_run_no = CASE WHEN p_status IS NULL THEN running_run_no END,
        updated_at = CASE WHEN p_status IS NULL THEN updated_at ELSE clock_timestamp() END
        WHERE tenant_id = p_tenant AND user_id = p_user AND thread_id = p_thread_id AND running_run_no = p_run_no
        RETURNING * INTO h;
    -- After the lock, so that times go with the numbers.
    o_at := clock_timestamp();
    IF NOT FOUND THEN
        -- Ended already: by this very call, whose answer was lost, or by another.
        SELECT * INTO r FROM run WHERE tenant_id = p_tenant AND user_id = p_user AND run_no = p_run_no;
        outcome := CASE WHEN p_status IS NOT NULL AND r.status = p_status AND r.fence = p_fence
            AND r.ordinal = p_first + n - 1 THEN 'written' ELSE 'fenced' END;
        o_last_seq := r.ended_seq; o_skipped := n;
        IF outcome = 'written' AND p_owner IS NOT NULL THEN
            -- What that call claimed and nobody has worked on since: a run that had waited, with nothing written yet.
            SELECT running_run_no INTO next_no FROM thread_head
                WHERE tenant_id = p_tenant AND user_id = p_user AND thread_id = p_thread_id;
            SELECT * INTO q FROM run_queue WHERE tenant_id = p_tenant AND user_id = p_user AND run_no = next_no;
            SELECT * INTO r FROM run WHERE tenant_id = p_tenant AND user_id = p_user AND run_no = next_no;
            IF q.owner = p_owner AND q.fence = 1 AND q.begun_fence = 1 AND q.ordinal = 2 AND r.started_seq > r.first_seq THEN
                o_next := begin_claimed(p_tenant, p_user, next_no);
            END IF;
        END IF;
        RETURN;
    END IF;
    IF p_status IS NULL THEN
        UPDATE run_queue SET ordinal = p_first + n - 1, attempt = p_attempt
            WHERE tenant_id = p_tenant AND user_id = p_user AND run_no = p_run_no AND fence = p_fence
                AND ordinal = p_first - 1 RETURNING * INTO q;
        IF q.stopping THEN
            o_stop_reason := stop_reason_of(p_tenant, p_user, p_run_no);
        END IF;
    ELSE
        DELETE FROM run_queue
            WHERE tenant_id = p_tenant AND user_id = p_user AND run_no = p_run_no AND fence = p_fence
                AND ordinal = p_first - 1 AND (NOT stopping OR p_status = 'stopped');
    END IF;
    IF NOT FOUND THEN
        SELECT * INTO q FROM run_queue WHERE tenant_id = p_tenant AND user_id = p_user AND run_no = p_run_no FOR UPDATE;
        IF q.fence IS DISTINCT FROM p_fence OR q.ordinal < p_first - 1 THEN
            UPDATE thread_head SET last_seq = last_seq - n, running_run_no = p_run_no
                WHERE tenant_id = p_tenant AND user_id = p_user AND thread_id = p_thread_id;
            outcome := 'fenced'; o_last_seq := h.last_seq - n;
            RETURN;
        END IF;
        IF q.stopping AND p_status <> 'stopped' THEN
            UPDATE thread_head SET last_seq = last_seq - n, running_run_no = p_run_no
                WHERE tenant_id = p_tenant AND user_id = p_user AND thread_id = p_thread_id;
            outcome := 'stopping'; o_last_seq := h.last_seq - n;
            o_stop_reason := stop_reason_of(p_tenant, p_user, p_run_no);
            RETURN;
        END IF;
        -- An ending that were written would have taken the row out of the queue: its last event is not.
        o_skipped := least(CASE WHEN p_status IS NULL THEN n ELSE n - 1 END, q.ordinal - p_first + 1);
        v_before := q.ordinal - o_skipped;
        IF q.stopping THEN
            o_stop_reason := stop_reason_of(p_tenant, p_user, p_run_no);
        END IF;
        UPDATE thread_head SET last_seq = last_seq - o_skipped
            WHERE tenant_id = p_tenant AND user_id = p_user AND thread_id = p_thread_id RETURNING * INTO h;
        IF p_status IS NULL THEN
            UPDATE run_queue SET ordinal = p_first + n - 1, attempt = p_attempt
                WHERE tenant_id = p_tenant AND user_id = p_user AND run_no = p_run_no AND o_skipped < n;
        ELSE
            DELETE FROM run_queue WHERE tenant_id = p_tenant AND user_id = p_user AND run_no = p_run_no;
        END IF;
    END IF;
    INSERT INTO event (tenant_id, user_id, thread_no, seq, run_no, ordinal, attempt, type, body, at)
        SELECT p_tenant, p_user, h.thread_no, h.last_seq - n + o, p_run_no, v_before + o, p_attempt, t, b, o_at
        FROM unnest(p_types, p_bodies) WITH ORDINALITY AS x (t, b, o) WHERE o > o_skipped;
    outcome := 'written'; o_last_seq := h.last_seq;
    IF p_status IS NULL THEN
        RETURN;
    END IF;
    UPDATE run SET status = p_status, fence = p_fence, attempt = p_attempt, ordinal = v_before + n,
        error_code = p_error_code, ended_seq = h.last_seq, ended_at = o_at
        WHERE tenant_id = p_tenant AND user_id = p_user AND run_no = p_run_no RETURNING * INTO r;
    IF p_response <> '' THEN
        INSERT INTO message (tenant_id, user_id, thread_no, turn, role, message_no, run_no, content, created_at)
            VALUES (p_tenant, p_user, h.thread_no, r.turn, 1, p_run_no + 1, p_run_no, p_response, o_at);
    END IF;
    IF h.waiting > 0 AND p_owner IS NOT NULL THEN
        UPDATE run_queue SET owner = p_owner, fence = fence + 1 WHERE tenant_id = p_tenant AND user_id = p_user AND run_no = (
            SELECT run_no FROM (SELECT w.run_no, w.agent, w.available_at FROM run_queue w
                WHERE w.tenant_id = p_tenant AND w.user_id = p_user AND w.thread_no = h.thread_no AND w.owner IS NULL
                ORDER BY w.turn LIMIT 1) f WHERE f.agent = ANY (p_agents) AND f.available_at <= now())
            RETURNING run_no INTO next_no;
        IF FOUND THEN
            UPDATE thread_head SET running_run_no = next_no, waiting = waiting - 1
                WHERE tenant_id = p_tenant AND user_id = p_user AND thread_id = p_thread_id;
            o_next := begin_claimed(p_tenant, p_user, next_no);
        END IF;
    END IF;
END $$;

CREATE FUNCTION stop_reason_of(p_tenant text, p_user text, p_run_no bigint) RETURNS text
LANGUAGE sql STABLE SET search_path = agentws, pg_temp AS $$
    SELECT stop_reason FROM run WHERE tenant_id = p_tenant AND user_id = p_user AND run_no = p_run_no
$$;

-- Writes agent_started of a claimed run whose head this transaction holds, and tells all that its worker needs.
CREATE FUNCTION begin_claimed(p_tenant text, p_user text, p_run_no bigint) RETURNS json
LANGUAGE plpgsql SET search_path = agentws, pg_temp AS $$
DECLARE
    h thread_head;
    q run_queue;
    r run;
BEGIN
    SELECT * INTO q FROM run_queue WHERE tenant_id = p_tenant AND user_id = p_user AND run_no = p_run_no FOR UPDATE;
    IF q.begun_fence IS NULL THEN
        UPDATE run_queue SET begun_fence = q.fence, ordinal = q.ordinal + 1
            WHERE tenant_id = p_tenant AND user_id = p_user AND run_no = p_run_no RETURNING * INTO q;
        UPDATE thread_head SET last_seq = last_seq + 1
            WHERE tenant_id = p_tenant AND user_id = p_user AND thread_id = q.thread_id RETURNING * INTO h;
        UPDATE run SET status = 'running', fence = q.fence, started_seq = h.last_seq, started_at = clock_timestamp()
            WHERE tenant_id = p_tenant AND user_id = p_user AND run_no = p_run_no RETURNING * INTO r;
        INSERT INTO event (tenant_id, user_id, thread_no, seq, run_no, ordinal, attempt, type, at)
            VALUES (p_tenant, p_user, q.thread_no, h.last_seq, p_run_no, q.ordinal, q.attempt, 'agent_started', r.started_at);
    ELSE
        SELECT * INTO h FROM thread_head WHERE tenant_id = p_tenant AND user_id = p_user AND thread_id = q.thread_id;
    END IF;
    SELECT * INTO r FROM run WHERE tenant_id = p_tenant AND user_id = p_user AND run_no = p_run_no;
    RETURN json_build_object(
        'run_no', r.run_no, 'run_id', r.run_id, 'thread_id', q.thread_id, 'thread_no', q.thread_no, 'epoch', h.epoch,
        'turn', r.turn, 'agent', r.agent, 'fence', q.fence, 'attempt', q.attempt, 'ordinal', q.ordinal,
        'was_begun', q.begun_fence <> q.fence,
        'untouched', q.begun_fence = q.fence - 1 AND q.attempt = 1 AND q.ordinal = CASE WHEN r.started_seq = r.first_seq THEN 1 ELSE 2 END, 'seq', r.started_seq, 'accepted_at', r.accepted_at, 'started_at', r.started_at,
        'stop_reason', CASE WHEN q.stopping THEN r.stop_reason END, 'context', r.context,
        'text', (SELECT m.content FROM message m WHERE m.tenant_id = p_tenant AND m.user_id = p_user
            AND m.thread_no = q.thread_no AND m.turn = r.turn AND m.role = 0),
        'elapsed_ms', greatest(0, (extract(epoch FROM clock_timestamp() - r.started_at) * 1000)::bigint));
END $$;

-- Begins a run that a system call has claimed under p_fence; null where another holds it by now.
CREATE FUNCTION begin_run(p_tenant text, p_user text, p_thread_id text, p_run_no bigint, p_fence integer) RETURNS json
LANGUAGE plpgsql SECURITY DEFINER SET search_path = agentws, pg_temp AS $$
BEGIN
    PERFORM set_config('agentws.tenant_id', p_tenant, true), set_config('agentws.user_id', p_user, true);
    PERFORM 1 FROM thread_head
        WHERE tenant_id = p_tenant AND user_id = p_user AND thread_id = p_thread_id AND running_run_no = p_run_no FOR UPDATE;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    PERFORM 1 FROM run_queue
        WHERE tenant_id = p_tenant AND user_id = p_user AND run_no = p_run_no AND fence = p_fence;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    RETURN begin_claimed(p_tenant, p_user, p_run_no);
END $$;

-- What a lost attempt left: the pieces of its answer and the tools that it had not closed, in order.
CREATE FUNCTION read_remains(p_tenant text, p_user text, p_run_no bigint, p_attempt smallint)
RETURNS TABLE (type text, body text)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = agentws, pg_temp AS $$
DECLARE
    r run;
BEGIN
    PERFORM set_config('agentws.tenant_id', p_tenant, true), set_config('agentws.user_id', p_user, true);
    SELECT * INTO r FROM run WHERE tenant_id = p_tenant AND user_id = p_user AND run_no = p_run_no;
    RETURN QUERY SELECT e.type, e.body FROM event e
        WHERE e.tenant_id = p_tenant AND e.user_id = p_user AND e.thread_no = r.thread_no AND e.seq > r.first_seq
            AND e.run_no = p_run_no AND e.attempt = p_attempt
            AND e.type IN ('agent_message', 'tool_executing', 'tool_completed')
        ORDER BY e.seq;
END $$;

-- Stops one run by its id or number, or all runs of a thread: marks the running one, ends the waiting ones here.
-- outcome: stopping, run_not_found, thread_not_found.
CREATE FUNCTION stop(
    p_tenant text, p_user text, p_run_id text, p_run_no bigint, p_thread_id text, p_reason text,
    OUT outcome text, OUT o_thread_id text, OUT o_epoch text, OUT o_last_seq bigint, OUT o_run_ids text[],
    OUT o_already_ended text[], OUT o_running bigint[]
) LANGUAGE plpgsql SECURITY DEFINER SET search_path = agentws, pg_temp AS $$
DECLARE
    h thread_head;
    r run;
    q run_queue;
BEGIN
    PERFORM set_config('agentws.tenant_id', p_tenant, true), set_config('agentws.user_id', p_user, true);
    o_run_ids := '{}'; o_already_ended := '{}'; o_running := '{}';
    IF p_run_id IS NOT NULL OR p_run_no IS NOT NULL THEN
        IF p_run_id IS NOT NULL THEN
            SELECT * INTO r FROM run WHERE run_id = p_run_id AND tenant_id = p_tenant AND user_id = p_user;
        ELSE
            SELECT * INTO r FROM run WHERE tenant_id = p_tenant AND user_id = p_user AND run_no = p_run_no;
        END IF;
        IF NOT FOUND THEN
            outcome := 'run_not_found';
            RETURN;
        END IF;
        SELECT t.thread_id INTO o_thread_id FROM thread t
            WHERE t.tenant_id = p_tenant AND t.user_id = p_user AND t.thread_no = r.thread_no;
    ELSE
        o_thread_id := p_thread_id;
    END IF;
    SELECT * INTO h FROM thread_head
        WHERE tenant_id = p_tenant AND user_id = p_user AND thread_id = o_thread_id FOR UPDATE;
    IF NOT FOUND THEN
        outcome := CASE WHEN r.run_no IS NULL THEN 'thread_not_found' ELSE 'run_not_found' END;
        RETURN;
    END IF;
    FOR q IN SELECT * FROM run_queue w WHERE w.tenant_id = p_tenant AND w.user_id = p_user
        AND w.thread_no = h.thread_no AND (r.run_no IS NULL OR w.run_no = r.run_no) ORDER BY w.turn FOR UPDATE
    LOOP
        IF q.owner IS NULL THEN
            o_run_ids := o_run_ids || end_waiting(p_tenant, p_user, q, p_reason);
        ELSE
            UPDATE run_queue SET stopping = true
                WHERE tenant_id = p_tenant AND user_id = p_user AND run_no = q.run_no AND NOT stopping;
            UPDATE run SET stop_reason = p_reason
                WHERE tenant_id = p_tenant AND user_id = p_user AND run_no = q.run_no AND stop_reason IS NULL;
            o_running := o_running || q.run_no;
            o_run_ids := o_run_ids || (SELECT x.run_id FROM run x
                WHERE x.tenant_id = p_tenant AND x.user_id = p_user AND x.run_no = q.run_no);
        END IF;
    END LOOP;
    IF r.run_no IS NOT NULL AND cardinality(o_run_ids) = 0 THEN
        o_already_ended := ARRAY[r.run_id];
    END IF;
    SELECT epoch, last_seq INTO o_epoch, o_last_seq FROM thread_head
        WHERE tenant_id = p_tenant AND user_id = p_user AND thread_id = o_thread_id;
    outcome := 'stopping';
END $$;

-- Ends a run that waits, under the head's lock: its agent_stopped is written here, because nobody works on it.
CREATE FUNCTION end_waiting(p_tenant text, p_user text, q run_queue, p_reason text) RETURNS text
LANGUAGE plpgsql SET search_path = agentws, pg_temp AS $$
DECLARE
    h thread_head;
    r run;
BEGIN
    DELETE FROM run_queue WHERE tenant_id = p_tenant AND user_id = p_user AND run_no = q.run_no;
    UPDATE thread_head SET last_seq = last_seq + 1, waiting = waiting - 1, updated_at = clock_timestamp()
        WHERE tenant_id = p_tenant AND user_id = p_user AND thread_id = q.thread_id RETURNING * INTO h;
    UPDATE run SET status = 'stopped', ordinal = q.ordinal + 1, ended_seq = h.last_seq, ended_at = clock_timestamp()
        WHERE tenant_id = p_tenant AND user_id = p_user AND run_no = q.run_no RETURNING * INTO r;
    INSERT INTO event (tenant_id, user_id, thread_no, seq, run_no, ordinal, attempt, type, body, at)
        VALUES (p_tenant, p_user, q.thread_no, h.last_seq, q.run_no, q.ordinal + 1, q.attempt, 'agent_stopped',
            json_build_object('reason', p_reason, 'duration_ms',
                greatest(0, (extract(epoch FROM r.ended_at - r.accepted_at) * 1000)::bigint))::text, r.ended_at);
    RETURN r.run_id;
END $$;

-- The head of a thread; no row where this user has no such thread.
CREATE FUNCTION read_head(p_tenant text, p_user text, p_thread_id text)
RETURNS TABLE (epoch text, first_seq bigint, last_seq bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = agentws, pg_temp AS $$
BEGIN
    PERFORM set_config('agentws.tenant_id', p_tenant, true), set_config('agentws.user_id', p_user, true);
    RETURN QUERY SELECT h.epoch, h.first_seq, h.last_seq FROM thread_head h
        WHERE h.tenant_id = p_tenant AND h.user_id = p_user AND h.thread_id = p_thread_id;
END $$;

-- A page of a thread's events after p_after, oldest first; nothing where the thread's epoch is not p_epoch.
-- It ends after p_limit rows, or with the row that makes it longer than p_bytes; more: it ended so, ask on.
CREATE FUNCTION read_events(
    p_tenant text, p_user text, p_thread_id text, p_epoch text, p_after bigint, p_limit integer, p_bytes integer)
RETURNS TABLE (seq bigint, from_seq bigint, type text, ordinal integer, attempt smallint, at timestamptz, body text,
    run_no bigint, run_id text, agent text, content text, more boolean)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = agentws, pg_temp
-- Each event finds its run and its message by their keys, whatever the planner thinks of tables that it has not seen.
SET enable_hashjoin = off SET enable_mergejoin = off SET enable_material = off AS $$
DECLARE
    v_thread_no bigint;
    v_rows integer := 0;
    v_bytes integer := 0;
BEGIN
    PERFORM set_config('agentws.tenant_id', p_tenant, true), set_config('agentws.user_id', p_user, true);
    SELECT h.thread_no INTO v_thread_no FROM thread_head h
        WHERE h.tenant_id = p_tenant AND h.user_id = p_user AND h.thread_id = p_thread_id AND h.epoch = p_epoch;
    FOR seq, from_seq, type, ordinal, attempt, at, body, run_no, run_id, agent, content IN
        SELECT e.seq, e.from_seq, e.type, e.ordinal, e.attempt, e.at, e.body, r.run_no, r.run_id, r.agent, m.content
        FROM event e
        JOIN run r ON r.tenant_id = p_tenant AND r.user_id = p_user AND r.run_no = e.run_no
        LEFT JOIN message m ON m.tenant_id = p_tenant AND m.user_id = p_user AND m.thread_no = v_thread_no AND m.turn = r.turn
            AND m.role = CASE e.type WHEN 'agent_started' THEN 0 WHEN 'agent_completed' THEN 1 WHEN 'agent_error' THEN 1
                WHEN 'agent_stopped' THEN 1 END
        WHERE e.tenant_id = p_tenant AND e.user_id = p_user AND e.thread_no = v_thread_no AND e.seq > p_after
        ORDER BY e.seq LIMIT p_limit
    LOOP
        v_rows := v_rows + 1;
        v_bytes := v_bytes + coalesce(octet_length(body), 0) + coalesce(octet_length(content), 0);
        more := v_rows = p_limit OR v_bytes > p_bytes;
        RETURN NEXT;
        EXIT WHEN v_bytes > p_bytes;
    END LOOP;
END $$;

-- Messages of the turns before p_turn (and, paging back, before a message), newest first.
CREATE FUNCTION read_messages(
    p_tenant text, p_user text, p_thread_no bigint, p_turn bigint, p_before_turn bigint, p_before_role smallint, p_limit integer)
RETURNS TABLE (turn bigint, role smallint, content text, run_id text, created_at timestamptz)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = agentws, pg_temp AS $$
BEGIN
    PERFORM set_config('agentws.tenant_id', p_tenant, true), set_config('agentws.user_id', p_user, true);
    RETURN QUERY SELECT m.turn, m.role, m.content, r.run_id, m.created_at
        FROM message m JOIN run r ON r.tenant_id = p_tenant AND r.user_id = p_user AND r.run_no = m.run_no
        WHERE m.tenant_id = p_tenant AND m.user_id = p_user AND m.thread_no = p_thread_no AND m.turn < p_turn
            AND (p_before_turn IS NULL OR (m.turn, m.role) < (p_before_turn, p_before_role))
        ORDER BY m.turn DESC, m.role DESC LIMIT p_limit;
END $$;

-- Units of work of the system: no content passes here ----------------------------------------------------------

CREATE FUNCTION register_node(p_node bigint, p_name text, p_ttl interval) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = agentws, pg_temp AS $$
    INSERT INTO node (node_id, name, expires_at) VALUES (p_node, p_name, clock_timestamp() + p_ttl)
$$;

-- Renews a lease that has not run out. alive: it had not. The runs that this node holds, and which
-- of them are to stop.
CREATE FUNCTION renew_node(
    p_node bigint, p_ttl interval,
    OUT alive boolean, OUT tenants text[], OUT users text[], OUT runs bigint[], OUT stopping boolean[]
) LANGUAGE plpgsql SECURITY DEFINER SET search_path = agentws, pg_temp AS $$
BEGIN
    UPDATE node SET expires_at = clock_timestamp() + p_ttl WHERE node_id = p_node AND expires_at > clock_timestamp();
    alive := FOUND;
    SELECT coalesce(array_agg(tenant_id), '{}'), coalesce(array_agg(user_id), '{}'), coalesce(array_agg(run_no), '{}'),
        coalesce(array_agg(q.stopping), '{}')
        INTO tenants, users, runs, stopping FROM run_queue q WHERE q.owner = p_node;
END $$;

CREATE FUNCTION remove_node(p_node bigint) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = agentws, pg_temp AS $$
    DELETE FROM node WHERE node_id = p_node
$$;

-- Takes over up to p_limit runs whose process is gone, and the orphans: those of this node that it does not know.
CREATE FUNCTION take_over(p_node bigint, p_tenants text[], p_users text[], p_runs bigint[], p_limit integer)
RETURNS TABLE (tenant_id text, user_id text, thread_id text, run_no bigint, fence integer, orphan boolean)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = agentws, pg_temp AS $$
DECLARE
    c record;
BEGIN
    FOR c IN SELECT q.tenant_id, q.user_id, q.thread_id, q.run_no, q.fence, k.run_no IS NOT NULL AS orphan FROM run_queue q
        LEFT JOIN node n ON n.node_id = q.owner
        LEFT JOIN unnest(p_tenants, p_users, p_runs) AS k (tenant_id, user_id, run_no) ON q.owner = p_node
            AND k.tenant_id = q.tenant_id AND k.user_id = q.user_id AND k.run_no = q.run_no
        WHERE q.owner IS NOT NULL AND (n.node_id IS NULL OR n.expires_at < clock_timestamp() OR k.run_no IS NOT NULL)
        ORDER BY q.queued_at LIMIT p_limit
    LOOP
        PERFORM 1 FROM thread_head h
            WHERE h.tenant_id = c.tenant_id AND h.user_id = c.user_id AND h.thread_id = c.thread_id
            FOR UPDATE SKIP LOCKED;
        CONTINUE WHEN NOT FOUND;
        RETURN QUERY UPDATE run_queue q SET owner = p_node, fence = q.fence + 1
            WHERE q.tenant_id = c.tenant_id AND q.user_id = c.user_id AND q.run_no = c.run_no AND q.fence = c.fence
            RETURNING q.tenant_id, q.user_id, q.thread_id, q.run_no, q.fence, c.orphan;
    END LOOP;
    DELETE FROM node WHERE node.expires_at < clock_timestamp() - interval '1 hour'
        AND NOT EXISTS (SELECT 1 FROM run_queue q WHERE q.owner = node.node_id);
END $$;

-- Claims up to p_limit waiting runs whose thread is idle, the longest waiting first.
CREATE FUNCTION claim_waiting(p_node bigint, p_agents text[], p_limit integer)
RETURNS TABLE (tenant_id text, user_id text, thread_id text, run_no bigint, fence integer, orphan boolean)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = agentws, pg_temp AS $$
DECLARE
    c record;
BEGIN
    FOR c IN SELECT q.tenant_id, q.user_id, q.thread_id, q.run_no FROM run_queue q JOIN thread_head h
        ON h.tenant_id = q.tenant_id AND h.user_id = q.user_id AND h.thread_id = q.thread_id
        WHERE q.owner IS NULL AND h.running_run_no IS NULL AND q.agent = ANY (p_agents) AND q.available_at <= now()
            AND NOT EXISTS (SELECT 1 FROM run_queue o WHERE o.tenant_id = q.tenant_id AND o.user_id = q.user_id
                AND o.thread_no = q.thread_no AND o.owner IS NULL AND o.turn < q.turn)
        ORDER BY q.queued_at LIMIT p_limit
    LOOP
        PERFORM 1 FROM thread_head h WHERE h.tenant_id = c.tenant_id AND h.user_id = c.user_id
            AND h.thread_id = c.thread_id AND h.running_run_no IS NULL FOR UPDATE SKIP LOCKED;
        CONTINUE WHEN NOT FOUND;
        RETURN QUERY UPDATE run_queue q SET owner = p_node, fence = q.fence + 1
            WHERE q.tenant_id = c.tenant_id AND q.user_id = c.user_id AND q.run_no = c.run_no AND q.owner IS NULL
                AND NOT EXISTS (SELECT 1 FROM run_queue o WHERE o.tenant_id = q.tenant_id AND o.user_id = q.user_id
                    AND o.thread_no = q.thread_no AND o.owner IS NULL AND o.turn < q.turn)
            RETURNING q.tenant_id, q.user_id, q.thread_id, q.run_no, q.fence, false;
        IF FOUND THEN
            UPDATE thread_head h SET running_run_no = c.run_no, waiting = h.waiting - 1
                WHERE h.tenant_id = c.tenant_id AND h.user_id = c.user_id AND h.thread_id = c.thread_id;
        END IF;
    END LOOP;
END $$;

-- The schema's newest migration and the oldest code (by its newest migration) that can work on it.
CREATE FUNCTION schema_state(OUT newest integer, OUT readable_from integer)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = agentws, pg_temp AS $$
    SELECT number, readable_from FROM schema_migration ORDER BY number DESC LIMIT 1
$$;

-- The last numbers of many threads at once; for whoever follows them and may have missed a hint.
CREATE FUNCTION read_heads(p_tenants text[], p_users text[], p_threads text[])
RETURNS TABLE (place integer, epoch text, last_seq bigint)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = agentws, pg_temp AS $$
    SELECT k.o::integer, h.epoch, h.last_seq
    FROM unnest(p_tenants, p_users, p_threads) WITH ORDINALITY AS k (t, u, i, o)
    JOIN thread_head h ON h.tenant_id = k.t AND h.user_id = k.u AND h.thread_id = k.i
$$;

ALTER FUNCTION create_thread OWNER TO agentws_app;
ALTER FUNCTION accept OWNER TO agentws_app;
ALTER FUNCTION queue_position OWNER TO agentws_app;
ALTER FUNCTION append OWNER TO agentws_app;
ALTER FUNCTION stop_reason_of OWNER TO agentws_app;
ALTER FUNCTION begin_claimed OWNER TO agentws_app;
ALTER FUNCTION begin_run OWNER TO agentws_app;
ALTER FUNCTION read_remains OWNER TO agentws_app;
ALTER FUNCTION stop OWNER TO agentws_app;
ALTER FUNCTION end_waiting OWNER TO agentws_app;
ALTER FUNCTION read_head OWNER TO agentws_app;
ALTER FUNCTION read_events OWNER TO agentws_app;
ALTER FUNCTION read_messages OWNER TO agentws_app;
ALTER FUNCTION register_node OWNER TO agentws_system;
ALTER FUNCTION renew_node OWNER TO agentws_system;
ALTER FUNCTION remove_node OWNER TO agentws_system;
ALTER FUNCTION take_over OWNER TO agentws_system;
ALTER FUNCTION claim_waiting OWNER TO agentws_system;
ALTER FUNCTION schema_state OWNER TO agentws_system;
ALTER FUNCTION read_heads OWNER TO agentws_system;
