-- readable from: 2
--
-- Threads that can be listed, changed, read and deleted; starts that go before others or are refused; tickets; limits.


-- A deleted thread's name is free at once; its rows are removed behind, and until then its followers read its end.
CREATE TABLE deleted_thread (
    tenant_id text NOT NULL DEFAULT '',
    user_id text NOT NULL,
    thread_id text NOT NULL,
    epoch text NOT NULL,
    thread_no bigint NOT NULL,
    last_seq bigint NOT NULL,
    deleted_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant_id, user_id, thread_id, epoch)
);

CREATE TABLE ticket (
    hash bytea PRIMARY KEY,
    tenant_id text NOT NULL DEFAULT '',
    user_id text NOT NULL,
    credentials_expire_at timestamptz,
    expires_at timestamptz NOT NULL
);
COMMENT ON TABLE ticket IS 'What a ticket stands for, under the SHA-256 of the ticket; nobody can read tickets from here.';

ALTER TABLE run_queue
    ADD COLUMN stops_unfollowed boolean NOT NULL DEFAULT false,
    ADD COLUMN followed_at timestamptz;
COMMENT ON COLUMN run_queue.followed_at IS 'When a connection was last known to follow the thread; kept only for runs that stop without one.';
-- Neither its columns nor its condition ever change in a row, so that no update of one stops being heap-only.
CREATE INDEX run_queue_stops_unfollowed ON run_queue (tenant_id, user_id, thread_id) WHERE stops_unfollowed;

-- Where a thread's row is removed, this would read all runs of its user, which have no index by thread; each new run would
-- lock the row. Nobody but the functions below writes, and a thread's runs go before it.
ALTER TABLE run DROP CONSTRAINT run_tenant_id_user_id_thread_no_fkey;

DO $$
DECLARE t text;
BEGIN
    FOREACH t IN ARRAY ARRAY['deleted_thread', 'ticket'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', t);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', t);
        EXECUTE format('CREATE POLICY system ON %I TO agentws_system USING (true)', t);
    END LOOP;
    CREATE POLICY principal ON deleted_thread TO agentws_app
        USING (tenant_id = current_setting('agentws.tenant_id', true)
            AND user_id = NULLIF(current_setting('agentws.user_id', true), ''));
END $$;

-- UPDATE: a row is locked while its thread is purged.
GRANT SELECT, INSERT, UPDATE, DELETE ON deleted_thread TO agentws_app;
GRANT SELECT ON deleted_thread TO agentws_system;
GRANT SELECT, INSERT, DELETE ON ticket TO agentws_system;
GRANT UPDATE, DELETE ON thread, message TO agentws_app;
GRANT DELETE ON event, run TO agentws_app;

-- Starts -------------------------------------------------------------------------------------------------------

DROP FUNCTION accept, create_thread, stop, read_heads;

-- Accepts a start: thread, run, message, first event, and the claim where the thread is idle and p_owner has a slot.
-- outcome: accepted, duplicate, thread_not_found, run_id_conflict, idempotency_conflict, thread_busy, or a limit's code.
-- p_thread_no makes the thread unless it is there; null: it has to be there. p_again: an earlier call with this p_run_no
-- was not answered. p_refusal: the limit that the caller itself has reached. Limits of 0 are none.
-- o_interrupted: the run that is to stop for this one.
CREATE FUNCTION accept(
    p_tenant text, p_user text, p_thread_id text, p_thread_no bigint, p_run_no bigint, p_run_id text, p_named boolean,
    p_kind text, p_agent text, p_text text, p_context json, p_owner bigint, p_key text, p_hash bytea, p_again boolean,
    p_if_busy text, p_stops_unfollowed boolean, p_refusal text, p_max_threads integer, p_max_runs integer,
    p_max_waiting integer, OUT outcome text, OUT o_thread_id text, OUT o_epoch text, OUT o_run_no bigint, OUT o_run_id text,
    OUT o_status text, OUT o_seq bigint, OUT o_position integer, OUT o_thread_no bigint, OUT o_turn bigint,
    OUT o_at timestamptz, OUT o_claimed boolean, OUT o_interrupted bigint
) LANGUAGE plpgsql SECURITY DEFINER SET search_path = agentws, pg_temp AS $$
DECLARE
    h thread_head;
    k start_key;
    runs boolean;
    v_first boolean;
    v_turn bigint;
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
        -- Claimed then and not since: the caller, who was never told, is the one who works on it. Its thread may have been
        -- deleted since.
        SELECT 'accepted', p_thread_id, coalesce(x.epoch, d.epoch), r.run_no, r.run_id, r.status, r.first_seq - 1,
                x.thread_no, r.turn, r.accepted_at,
                r.started_seq = r.first_seq AND q.owner = p_owner AND q.fence = 1 AND q.ordinal = 1
            INTO outcome, o_thread_id, o_epoch, o_run_no, o_run_id, o_status, o_seq, o_thread_no, o_turn, o_at, o_claimed
            FROM run r LEFT JOIN thread_head x
                ON x.tenant_id = p_tenant AND x.user_id = p_user AND x.thread_id = p_thread_id AND x.thread_no = r.thread_no
            LEFT JOIN deleted_thread d ON d.tenant_id = p_tenant AND d.user_id = p_user AND d.thread_id = p_thread_id
                AND d.thread_no = r.thread_no
            LEFT JOIN run_queue q ON q.tenant_id = p_tenant AND q.user_id = p_user AND q.run_no = p_run_no
            WHERE r.tenant_id = p_tenant AND r.user_id = p_user AND r.run_no = p_run_no
                AND coalesce(x.epoch, d.epoch) IS NOT NULL;
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
    -- What the thread is now; locked where the answer depends on it.
    IF p_if_busy = 'queue' THEN
        SELECT * INTO h FROM thread_head WHERE tenant_id = p_tenant AND user_id = p_user AND thread_id = p_thread_id;
    ELSE
        SELECT * INTO h FROM thread_head
            WHERE tenant_id = p_tenant AND user_id = p_user AND thread_id = p_thread_id FOR UPDATE;
    END IF;
    IF h.thread_no IS NULL AND p_thread_no IS NULL THEN
        outcome := 'thread_not_found';
        RETURN;
    END IF;
    outcome := refusal_of(p_tenant, p_user, p_refusal, h.thread_no IS NULL, p_max_threads, p_max_runs,
        CASE WHEN p_owner IS NULL OR h.running_run_no IS NOT NULL OR h.waiting > 0 THEN p_max_waiting ELSE 0 END);
    IF outcome IS NOT NULL THEN
        RETURN;
    END IF;
    IF p_if_busy <> 'queue' AND (h.running_run_no IS NOT NULL OR h.waiting > 0) THEN
        IF p_if_busy = 'reject' THEN
            outcome := 'thread_busy';
            RETURN;
        END IF;
        UPDATE run_queue SET stopping = true
            WHERE tenant_id = p_tenant AND user_id = p_user AND run_no = h.running_run_no AND NOT stopping;
        UPDATE run SET stop_reason = 'interrupted'
            WHERE tenant_id = p_tenant AND user_id = p_user AND run_no = h.running_run_no AND stop_reason IS NULL;
        o_interrupted := h.running_run_no;
        v_turn := turn_before_waiting(p_tenant, p_user, h);
    END IF;
    -- v_turn: before those that wait; null: at the end.
    v_first := v_turn IS NOT NULL;
    IF h.thread_no IS NULL THEN
        INSERT INTO thread_head (tenant_id, user_id, thread_id, thread_no, epoch, last_seq, last_turn, waiting, running_run_no)
            VALUES (p_tenant, p_user, p_thread_id, p_thread_no, left(replace(gen_random_uuid()::text, '-', ''), 12), 1, 4294967296,
                CASE WHEN p_owner IS NULL THEN 1 ELSE 0 END, CASE WHEN p_owner IS NULL THEN NULL ELSE p_run_no END)
            RETURNING * INTO h;
        INSERT INTO thread (tenant_id, user_id, thread_no, thread_id) VALUES (p_tenant, p_user, p_thread_no, p_thread_id);
    ELSE
        UPDATE thread_head SET last_seq = last_seq + 1, updated_at = clock_timestamp(),
            last_turn = last_turn + CASE WHEN v_first THEN 0 ELSE 4294967296 END,
            waiting = waiting + CASE WHEN running_run_no IS NULL AND waiting = 0 AND p_owner IS NOT NULL THEN 0 ELSE 1 END,
            running_run_no = CASE WHEN running_run_no IS NULL AND waiting = 0 AND p_owner IS NOT NULL
                THEN p_run_no ELSE running_run_no END
            WHERE tenant_id = p_tenant AND user_id = p_user AND thread_id = p_thread_id RETURNING * INTO h;
        IF NOT FOUND THEN
            outcome := 'thread_not_found';
            RETURN;
        END IF;
    END IF;
    v_turn := coalesce(v_turn, h.last_turn);
    runs := h.running_run_no IS NOT DISTINCT FROM p_run_no;
    o_at := clock_timestamp();
    IF p_key IS NOT NULL THEN
        INSERT INTO start_key (tenant_id, user_id, idempotency_key, content_hash, run_no, run_id, thread_id, thread_no,
                epoch, seq)
            VALUES (p_tenant, p_user, p_key, p_hash, p_run_no, p_run_id, p_thread_id, h.thread_no, h.epoch, h.last_seq - 1);
    END IF;
    INSERT INTO run (tenant_id, user_id, run_no, run_id, thread_no, turn, kind, agent, status, fence, context, first_seq,
            started_seq, started_at, accepted_at)
        VALUES (p_tenant, p_user, p_run_no, p_run_id, h.thread_no, v_turn, p_kind, p_agent,
            CASE WHEN runs THEN 'running' ELSE 'queued' END, CASE WHEN runs THEN 1 ELSE 0 END, p_context, h.last_seq,
            CASE WHEN runs THEN h.last_seq END, CASE WHEN runs THEN o_at END, o_at);
    INSERT INTO run_queue (tenant_id, user_id, run_no, thread_id, thread_no, turn, agent, owner, fence, begun_fence,
            stops_unfollowed, followed_at)
        VALUES (p_tenant, p_user, p_run_no, p_thread_id, h.thread_no, v_turn, p_agent,
            CASE WHEN runs THEN p_owner END, CASE WHEN runs THEN 1 ELSE 0 END, CASE WHEN runs THEN 1 END,
            p_stops_unfollowed, CASE WHEN p_stops_unfollowed THEN o_at END);
    INSERT INTO message (tenant_id, user_id, thread_no, turn, role, message_no, run_no, content, created_at)
        VALUES (p_tenant, p_user, h.thread_no, v_turn, 0, p_run_no, p_run_no, p_text, o_at);
    INSERT INTO event (tenant_id, user_id, thread_no, seq, run_no, ordinal, attempt, type, body, at)
        VALUES (p_tenant, p_user, h.thread_no, h.last_seq, p_run_no, 1, 1,
            CASE WHEN runs THEN 'agent_started' ELSE 'agent_queued' END,
            CASE WHEN runs THEN NULL ELSE '{"position":' || CASE WHEN v_first THEN 1 ELSE h.waiting END || '}' END, o_at);
    outcome := 'accepted';
    o_thread_id := p_thread_id; o_epoch := h.epoch; o_run_no := p_run_no; o_run_id := p_run_id;
    o_status := CASE WHEN runs THEN 'running' ELSE 'queued' END;
    o_seq := h.last_seq - 1;
    o_position := CASE WHEN runs THEN 0 WHEN v_first THEN 1 ELSE h.waiting END;
    o_thread_no := h.thread_no; o_turn := v_turn; o_claimed := runs;
END $$;

-- The limit that a start passes; null: none. In the order in which the protocol checks them.
CREATE FUNCTION refusal_of(
    p_tenant text, p_user text, p_refusal text, p_makes_thread boolean, p_max_threads integer, p_max_runs integer,
    p_max_waiting integer
) RETURNS text LANGUAGE plpgsql STABLE SET search_path = agentws, pg_temp AS $$
BEGIN
    IF p_refusal IS NOT NULL THEN
        RETURN p_refusal;
    END IF;
    IF p_makes_thread AND is_full(p_tenant, p_user, p_max_threads) THEN
        RETURN 'too_many_threads';
    END IF;
    IF p_max_runs > 0 AND p_max_runs <= (SELECT count(*) FROM (SELECT 1 FROM run_queue
        WHERE tenant_id = p_tenant AND user_id = p_user LIMIT p_max_runs) x)
    THEN
        RETURN 'too_many_runs';
    END IF;
    IF p_max_waiting > 0 AND p_max_waiting <= count_waiting(p_max_waiting) THEN
        RETURN 'overloaded';
    END IF;
    RETURN NULL;
END $$;

-- Whether a user has as many threads as p_max; 0: there is no limit.
CREATE FUNCTION is_full(p_tenant text, p_user text, p_max integer) RETURNS boolean
LANGUAGE sql STABLE SET search_path = agentws, pg_temp
-- Nobody reads through the threads of others, also where one user has most of them.
SET enable_seqscan = off AS $$
    SELECT p_max > 0 AND p_max <= (SELECT count(*) FROM (SELECT 1 FROM thread_head
        WHERE tenant_id = p_tenant AND user_id = p_user LIMIT p_max) x)
$$;

-- How many runs wait, of all users; counted up to p_limit.
CREATE FUNCTION count_waiting(p_limit integer) RETURNS bigint
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = agentws, pg_temp AS $$
    SELECT count(*) FROM (SELECT 1 FROM run_queue WHERE owner IS NULL LIMIT p_limit) x
$$;

-- A turn between the run that was begun last and the first that waits; null where none waits. The head is locked.
CREATE FUNCTION turn_before_waiting(p_tenant text, p_user text, h thread_head) RETURNS bigint
LANGUAGE plpgsql SET search_path = agentws, pg_temp AS $$
DECLARE
    v_waits bigint;
    v_begun bigint;
    w record;
BEGIN
    SELECT min(turn) INTO v_waits FROM run_queue
        WHERE tenant_id = p_tenant AND user_id = p_user AND thread_no = h.thread_no AND owner IS NULL;
    IF v_waits IS NULL THEN
        RETURN NULL;
    END IF;
    SELECT turn INTO v_begun FROM message
        WHERE tenant_id = p_tenant AND user_id = p_user AND thread_no = h.thread_no AND turn < v_waits
        ORDER BY turn DESC LIMIT 1;
    v_begun := coalesce(v_begun, 0);
    IF v_waits - v_begun < 2 THEN
        -- No room is left between them: those that wait move on, in their order.
        FOR w IN SELECT run_no, turn, h.last_turn + row_number() OVER (ORDER BY turn) * 4294967296 AS moved FROM run_queue
            WHERE tenant_id = p_tenant AND user_id = p_user AND thread_no = h.thread_no AND owner IS NULL
        LOOP
            UPDATE run_queue SET turn = w.moved
                WHERE tenant_id = p_tenant AND user_id = p_user AND run_no = w.run_no;
            UPDATE run SET turn = w.moved WHERE tenant_id = p_tenant AND user_id = p_user AND run_no = w.run_no;
            UPDATE message SET turn = w.moved
                WHERE tenant_id = p_tenant AND user_id = p_user AND thread_no = h.thread_no AND turn = w.turn AND role = 0;
            UPDATE thread_head SET last_turn = w.moved
                WHERE tenant_id = p_tenant AND user_id = p_user AND thread_id = h.thread_id AND last_turn < w.moved;
        END LOOP;
        v_waits := h.last_turn + 4294967296;
    END IF;
    RETURN v_begun + (v_waits - v_begun) / 2;
END $$;

-- Writes agent_started of a claimed run whose head this transaction holds, and tells all that its worker needs; null
-- where it has ended.
CREATE OR REPLACE FUNCTION begin_claimed(p_tenant text, p_user text, p_run_no bigint) RETURNS json
LANGUAGE plpgsql SET search_path = agentws, pg_temp AS $$
DECLARE
    h thread_head;
    q run_queue;
    r run;
BEGIN
    SELECT * INTO q FROM run_queue WHERE tenant_id = p_tenant AND user_id = p_user AND run_no = p_run_no FOR UPDATE;
    IF NOT FOUND THEN
        -- A repeated append holds no lock: its thread was deleted while it looked.
        RETURN NULL;
    END IF;
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
        'turn', r.turn, 'kind', r.kind, 'agent', r.agent, 'fence', q.fence, 'attempt', q.attempt, 'ordinal', q.ordinal,
        'was_begun', q.begun_fence <> q.fence,
        'untouched', q.begun_fence = q.fence - 1 AND q.attempt = 1
            AND q.ordinal = CASE WHEN r.started_seq = r.first_seq THEN 1 ELSE 2 END,
        'seq', r.started_seq, 'accepted_at', r.accepted_at, 'started_at', r.started_at,
        'stop_reason', CASE WHEN q.stopping THEN r.stop_reason END, 'context', r.context,
        'text', (SELECT m.content FROM message m WHERE m.tenant_id = p_tenant AND m.user_id = p_user
            AND m.thread_no = q.thread_no AND m.turn = r.turn AND m.role = 0),
        'elapsed_ms', greatest(0, (extract(epoch FROM clock_timestamp() - r.started_at) * 1000)::bigint));
END $$;

-- Stops one run by its id or number, or all runs of a thread: marks the running one, ends the waiting ones here.
-- outcome: stopping, run_not_found, thread_not_found. o_ended: the runs that were ended here;
-- o_ended_kinds: what kinds they were.
CREATE FUNCTION stop(
    p_tenant text, p_user text, p_run_id text, p_run_no bigint, p_thread_id text, p_reason text,
    OUT outcome text, OUT o_thread_id text, OUT o_epoch text, OUT o_last_seq bigint, OUT o_run_ids text[],
    OUT o_already_ended text[], OUT o_running bigint[], OUT o_ended bigint[], OUT o_ended_kinds text[]
) LANGUAGE plpgsql SECURITY DEFINER SET search_path = agentws, pg_temp AS $$
DECLARE
    h thread_head;
    r run;
    q run_queue;
BEGIN
    PERFORM set_config('agentws.tenant_id', p_tenant, true), set_config('agentws.user_id', p_user, true);
    o_run_ids := '{}'; o_already_ended := '{}'; o_running := '{}'; o_ended := '{}'; o_ended_kinds := '{}';
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
    IF NOT FOUND OR r.thread_no <> h.thread_no THEN
        outcome := CASE WHEN r.run_no IS NULL THEN 'thread_not_found' ELSE 'run_not_found' END;
        RETURN;
    END IF;
    FOR q IN SELECT * FROM run_queue w WHERE w.tenant_id = p_tenant AND w.user_id = p_user
        AND w.thread_no = h.thread_no AND (r.run_no IS NULL OR w.run_no = r.run_no) ORDER BY w.turn FOR UPDATE
    LOOP
        IF q.owner IS NULL THEN
            o_run_ids := o_run_ids || end_waiting(p_tenant, p_user, q, p_reason);
            o_ended := o_ended || q.run_no;
            o_ended_kinds := o_ended_kinds || (SELECT x.kind FROM run x
                WHERE x.tenant_id = p_tenant AND x.user_id = p_user AND x.run_no = q.run_no);
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

-- Threads ------------------------------------------------------------------------------------------------------

CREATE TYPE thread_view AS (
    thread_id text, title text, metadata json, created_at timestamptz, updated_at timestamptz, epoch text,
    first_seq bigint, last_seq bigint, running_run_id text, resume_after bigint, thread_no bigint);
COMMENT ON TYPE thread_view IS 'A thread as its user sees it. resume_after: the number before the first event of its oldest run that has not ended.';

-- A thread, looked up one table at a time: without statistics a join would be planned as a scan of all that the user has.
CREATE FUNCTION view_of(p_tenant text, p_user text, h thread_head) RETURNS thread_view
LANGUAGE plpgsql STABLE SET search_path = agentws, pg_temp AS $$
DECLARE
    v thread_view;
    t thread;
    v_runs bigint[];
BEGIN
    SELECT * INTO t FROM thread WHERE tenant_id = p_tenant AND user_id = p_user AND thread_no = h.thread_no;
    v.thread_id := h.thread_id; v.title := t.title; v.metadata := t.metadata; v.created_at := t.created_at;
    v.updated_at := h.updated_at; v.epoch := h.epoch; v.first_seq := h.first_seq; v.last_seq := h.last_seq;
    v.resume_after := h.last_seq; v.thread_no := h.thread_no;
    IF h.running_run_no IS NOT NULL OR h.waiting > 0 THEN
        SELECT run_id INTO v.running_run_id FROM run
            WHERE tenant_id = p_tenant AND user_id = p_user AND run_no = h.running_run_no;
        SELECT array_agg(run_no) INTO v_runs FROM run_queue
            WHERE tenant_id = p_tenant AND user_id = p_user AND thread_no = h.thread_no;
        SELECT coalesce(min(first_seq) - 1, h.last_seq) INTO v.resume_after FROM run
            WHERE tenant_id = p_tenant AND user_id = p_user AND run_no = ANY (v_runs);
    END IF;
    RETURN v;
END $$;

-- Makes a thread, or finds the one that is there. outcome: found, too_many_threads.
CREATE FUNCTION create_thread(
    p_tenant text, p_user text, p_thread_id text, p_thread_no bigint, p_title text, p_metadata json,
    p_max_threads integer, OUT outcome text, OUT o_thread thread_view
) LANGUAGE plpgsql SECURITY DEFINER SET search_path = agentws, pg_temp AS $$
DECLARE
    h thread_head;
BEGIN
    PERFORM set_config('agentws.tenant_id', p_tenant, true), set_config('agentws.user_id', p_user, true);
    outcome := 'found';
    LOOP
        SELECT * INTO h FROM thread_head
            WHERE tenant_id = p_tenant AND user_id = p_user AND thread_id = p_thread_id;
        EXIT WHEN FOUND;
        IF is_full(p_tenant, p_user, p_max_threads) THEN
            outcome := 'too_many_threads';
            RETURN;
        END IF;
        INSERT INTO thread_head (tenant_id, user_id, thread_id, thread_no, epoch)
            VALUES (p_tenant, p_user, p_thread_id, p_thread_no, left(replace(gen_random_uuid()::text, '-', ''), 12))
            ON CONFLICT DO NOTHING;
        IF FOUND THEN
            INSERT INTO thread (tenant_id, user_id, thread_no, thread_id, title, metadata)
                VALUES (p_tenant, p_user, p_thread_no, p_thread_id, p_title, p_metadata);
        END IF;
    END LOOP;
    o_thread := view_of(p_tenant, p_user, h);
END $$;

-- A thread; no row where this user has no such thread.
CREATE FUNCTION read_thread(p_tenant text, p_user text, p_thread_id text) RETURNS SETOF thread_view
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = agentws, pg_temp AS $$
DECLARE
    h thread_head;
BEGIN
    PERFORM set_config('agentws.tenant_id', p_tenant, true), set_config('agentws.user_id', p_user, true);
    SELECT * INTO h FROM thread_head WHERE tenant_id = p_tenant AND user_id = p_user AND thread_id = p_thread_id;
    IF FOUND THEN
        RETURN NEXT view_of(p_tenant, p_user, h);
    END IF;
END $$;

-- Replaces a thread's title ('' clears it) and metadata where they are given; no row where there is no such thread.
CREATE FUNCTION update_thread(p_tenant text, p_user text, p_thread_id text, p_title text, p_metadata json)
RETURNS SETOF thread_view
LANGUAGE plpgsql SECURITY DEFINER SET search_path = agentws, pg_temp AS $$
DECLARE
    h thread_head;
BEGIN
    PERFORM set_config('agentws.tenant_id', p_tenant, true), set_config('agentws.user_id', p_user, true);
    UPDATE thread_head SET updated_at = clock_timestamp()
        WHERE tenant_id = p_tenant AND user_id = p_user AND thread_id = p_thread_id RETURNING * INTO h;
    IF FOUND THEN
        UPDATE thread SET title = CASE WHEN p_title IS NULL THEN title ELSE nullif(p_title, '') END,
            metadata = coalesce(p_metadata, metadata)
            WHERE tenant_id = p_tenant AND user_id = p_user AND thread_no = h.thread_no;
        RETURN NEXT view_of(p_tenant, p_user, h);
    END IF;
END $$;

-- Up to p_limit of a user's threads, the one that was changed last first; those before a place (microseconds, thread_no).
CREATE FUNCTION list_threads(p_tenant text, p_user text, p_limit integer, p_before_us bigint, p_before_no bigint)
RETURNS SETOF thread_view
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = agentws, pg_temp AS $$
DECLARE
    h thread_head;
BEGIN
    PERFORM set_config('agentws.tenant_id', p_tenant, true), set_config('agentws.user_id', p_user, true);
    -- updated_at has no index, which would make each change of a head costly; a user's threads are bounded.
    FOR h IN SELECT * FROM thread_head t
        WHERE t.tenant_id = p_tenant AND t.user_id = p_user AND (p_before_us IS NULL
            OR ((extract(epoch FROM t.updated_at) * 1000000)::bigint, t.thread_no) < (p_before_us, p_before_no))
        ORDER BY t.updated_at DESC, t.thread_no DESC LIMIT p_limit
    LOOP
        RETURN NEXT view_of(p_tenant, p_user, h);
    END LOOP;
END $$;

-- The newest p_limit messages of a thread before a place (turn, role), newest first, each with its thread's numbers, all
-- of one snapshot; one row without a message where there is none, no row where there is no such thread.
CREATE FUNCTION read_history(
    p_tenant text, p_user text, p_thread_id text, p_limit integer, p_before_turn bigint, p_before_role bigint)
RETURNS TABLE (epoch text, last_seq bigint, resume_after bigint, message_no bigint, turn bigint, role smallint, content text,
    run_id text, status text, seq bigint, created_at timestamptz)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = agentws, pg_temp AS $$
DECLARE
    h thread_head;
    m message;
    r run;
    -- In variables: row-level security keeps an expression from becoming a bound of the index.
    v_before_turn bigint := coalesce(p_before_turn, 9223372036854775807);
    v_before_role bigint := coalesce(p_before_role, 0);
BEGIN
    PERFORM set_config('agentws.tenant_id', p_tenant, true), set_config('agentws.user_id', p_user, true);
    SELECT * INTO h FROM thread_head x
        WHERE x.tenant_id = p_tenant AND x.user_id = p_user AND x.thread_id = p_thread_id;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    epoch := h.epoch; last_seq := h.last_seq;
    resume_after := (view_of(p_tenant, p_user, h)).resume_after;
    FOR m IN SELECT * FROM message x
        WHERE x.tenant_id = p_tenant AND x.user_id = p_user AND x.thread_no = h.thread_no
            AND (x.turn, x.role) < (v_before_turn, v_before_role)
        ORDER BY x.turn DESC, x.role DESC LIMIT p_limit
    LOOP
        SELECT * INTO r FROM run x WHERE x.tenant_id = p_tenant AND x.user_id = p_user AND x.run_no = m.run_no;
        message_no := m.message_no; turn := m.turn; role := m.role; content := m.content; created_at := m.created_at;
        run_id := r.run_id; status := r.status;
        seq := CASE WHEN m.role = 1 THEN r.ended_seq ELSE coalesce(r.started_seq, r.first_seq) END;
        RETURN NEXT;
    END LOOP;
    IF message_no IS NULL THEN
        RETURN NEXT;
    END IF;
END $$;

-- Deletes a thread: ends its runs, keeps their last events for those who follow it, and frees its name.
-- p_tool_error: what is told of tools that were at work (JSON). outcome: deleted, thread_not_found.
CREATE FUNCTION delete_thread(
    p_tenant text, p_user text, p_thread_id text, p_tool_error text,
    OUT outcome text, OUT o_epoch text, OUT o_last_seq bigint, OUT o_running bigint[], OUT o_ended bigint[],
    OUT o_ended_kinds text[]
) LANGUAGE plpgsql SECURITY DEFINER SET search_path = agentws, pg_temp AS $$
DECLARE
    h thread_head;
    q run_queue;
BEGIN
    PERFORM set_config('agentws.tenant_id', p_tenant, true), set_config('agentws.user_id', p_user, true);
    SELECT * INTO h FROM thread_head
        WHERE tenant_id = p_tenant AND user_id = p_user AND thread_id = p_thread_id FOR UPDATE;
    IF NOT FOUND THEN
        outcome := 'thread_not_found';
        RETURN;
    END IF;
    o_running := '{}'; o_ended := '{}'; o_ended_kinds := '{}';
    FOR q IN SELECT * FROM run_queue w WHERE w.tenant_id = p_tenant AND w.user_id = p_user
        AND w.thread_no = h.thread_no ORDER BY w.owner IS NULL, w.turn FOR UPDATE
    LOOP
        IF q.owner IS NULL THEN
            PERFORM end_waiting(p_tenant, p_user, q, 'thread_deleted');
        ELSE
            PERFORM end_running(p_tenant, p_user, q, 'thread_deleted', p_tool_error);
            o_running := o_running || q.run_no;
        END IF;
        o_ended := o_ended || q.run_no;
        o_ended_kinds := o_ended_kinds || (SELECT x.kind FROM run x
            WHERE x.tenant_id = p_tenant AND x.user_id = p_user AND x.run_no = q.run_no);
    END LOOP;
    DELETE FROM thread_head WHERE tenant_id = p_tenant AND user_id = p_user AND thread_id = p_thread_id
        RETURNING epoch, last_seq INTO o_epoch, o_last_seq;
    INSERT INTO deleted_thread (tenant_id, user_id, thread_id, epoch, thread_no, last_seq)
        VALUES (p_tenant, p_user, p_thread_id, o_epoch, h.thread_no, o_last_seq);
    outcome := 'deleted';
END $$;

-- Ends a run that a process works on, under the head's lock: closes its tools, and raises its fence so that the process
-- writes nothing more.
CREATE FUNCTION end_running(p_tenant text, p_user text, q run_queue, p_reason text, p_tool_error text) RETURNS void
LANGUAGE plpgsql SET search_path = agentws, pg_temp AS $$
DECLARE
    r run;
    e event;
    v_now timestamptz := clock_timestamp();
    v_seq bigint;
    v_ordinal integer := q.ordinal;
    v_text text;
    v_closed text[];
BEGIN
    DELETE FROM run_queue WHERE tenant_id = p_tenant AND user_id = p_user AND run_no = q.run_no;
    SELECT last_seq INTO v_seq FROM thread_head
        WHERE tenant_id = p_tenant AND user_id = p_user AND thread_id = q.thread_id;
    SELECT * INTO r FROM run WHERE tenant_id = p_tenant AND user_id = p_user AND run_no = q.run_no;
    -- What tools were given and returned may hold NUL, of which PostgreSQL's JSON makes no text, whatever is asked of it.
    SELECT string_agg(x.body::json ->> 'text', '' ORDER BY x.seq) FILTER (WHERE x.type = 'agent_message'),
            coalesce(array_agg(replace(x.body, '\u0000', '\ufffd')::json ->> 'execution_id')
                FILTER (WHERE x.type = 'tool_completed'), '{}')
        INTO v_text, v_closed FROM event x
        WHERE x.tenant_id = p_tenant AND x.user_id = p_user AND x.thread_no = q.thread_no AND x.seq >= r.first_seq
            AND x.run_no = q.run_no AND x.attempt = q.attempt AND x.type IN ('agent_message', 'tool_completed');
    FOR e IN SELECT * FROM event x
        WHERE x.tenant_id = p_tenant AND x.user_id = p_user AND x.thread_no = q.thread_no AND x.seq >= r.first_seq
            AND x.run_no = q.run_no AND x.attempt = q.attempt AND x.type = 'tool_executing'
            AND replace(x.body, '\u0000', '\ufffd')::json ->> 'execution_id' <> ALL (v_closed) ORDER BY x.seq
    LOOP
        e.body := replace(e.body, '\u0000', '\ufffd');
        v_seq := v_seq + 1; v_ordinal := v_ordinal + 1;
        INSERT INTO event (tenant_id, user_id, thread_no, seq, run_no, ordinal, attempt, type, body, at)
            VALUES (p_tenant, p_user, q.thread_no, v_seq, q.run_no, v_ordinal, q.attempt, 'tool_completed',
                json_build_object('execution_id', e.body::json -> 'execution_id', 'tool_name', e.body::json -> 'tool_name',
                    'success', false, 'outcome', 'unknown', 'result', NULL, 'error', p_tool_error::json, 'duration_ms',
                    greatest(0, (extract(epoch FROM v_now - e.at) * 1000)::bigint))::text, v_now);
    END LOOP;
    v_seq := v_seq + 1; v_ordinal := v_ordinal + 1;
    INSERT INTO event (tenant_id, user_id, thread_no, seq, run_no, ordinal, attempt, type, body, at)
        VALUES (p_tenant, p_user, q.thread_no, v_seq, q.run_no, v_ordinal, q.attempt, 'agent_stopped',
            json_build_object('reason', p_reason, 'duration_ms',
                greatest(0, (extract(epoch FROM v_now - r.started_at) * 1000)::bigint))::text, v_now);
    IF v_text <> '' THEN
        INSERT INTO message (tenant_id, user_id, thread_no, turn, role, message_no, run_no, content, created_at)
            VALUES (p_tenant, p_user, q.thread_no, q.turn, 1, q.run_no + 1, q.run_no, v_text, v_now);
    END IF;
    UPDATE thread_head SET last_seq = v_seq, running_run_no = NULL
        WHERE tenant_id = p_tenant AND user_id = p_user AND thread_id = q.thread_id;
    UPDATE run SET status = 'stopped', stop_reason = p_reason, fence = q.fence + 1, attempt = q.attempt,
        ordinal = v_ordinal, ended_seq = v_seq, ended_at = v_now
        WHERE tenant_id = p_tenant AND user_id = p_user AND run_no = q.run_no;
END $$;

-- Removes up to p_limit rows of a deleted thread; how many; 0: nothing is left of it, nor its mark.
CREATE FUNCTION purge_deleted(p_tenant text, p_user text, p_thread_id text, p_epoch text, p_limit integer) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = agentws, pg_temp AS $$
DECLARE
    n integer;
    v_thread_no bigint;
    v_runs bigint[];
BEGIN
    PERFORM set_config('agentws.tenant_id', p_tenant, true), set_config('agentws.user_id', p_user, true);
    SELECT thread_no INTO v_thread_no FROM deleted_thread
        WHERE tenant_id = p_tenant AND user_id = p_user AND thread_id = p_thread_id AND epoch = p_epoch FOR UPDATE;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    DELETE FROM event WHERE tenant_id = p_tenant AND user_id = p_user AND thread_no = v_thread_no AND seq <= (
        SELECT max(x.seq) FROM (SELECT e.seq FROM event e WHERE e.tenant_id = p_tenant AND e.user_id = p_user
            AND e.thread_no = v_thread_no ORDER BY e.seq LIMIT p_limit) x);
    GET DIAGNOSTICS n = ROW_COUNT;
    IF n > 0 THEN
        RETURN n;
    END IF;
    -- Each run has a message of its user; runs have no index by thread.
    WITH gone AS (DELETE FROM message WHERE tenant_id = p_tenant AND user_id = p_user AND thread_no = v_thread_no
        AND turn <= (SELECT max(x.turn) FROM (SELECT m.turn FROM message m WHERE m.tenant_id = p_tenant
            AND m.user_id = p_user AND m.thread_no = v_thread_no ORDER BY m.turn LIMIT p_limit) x)
        RETURNING run_no)
        SELECT count(*), array_agg(run_no) INTO n, v_runs FROM gone;
    IF n > 0 THEN
        DELETE FROM run WHERE tenant_id = p_tenant AND user_id = p_user AND run_no = ANY (v_runs);
        RETURN n;
    END IF;
    DELETE FROM thread WHERE tenant_id = p_tenant AND user_id = p_user AND thread_no = v_thread_no;
    DELETE FROM deleted_thread
        WHERE tenant_id = p_tenant AND user_id = p_user AND thread_id = p_thread_id AND epoch = p_epoch;
    RETURN 0;
END $$;

-- A page of a thread's events after p_after, oldest first; nothing where no thread of this name has the epoch p_epoch.
-- It ends after p_limit rows, or with the row that makes it longer than p_bytes; more: it ended so, ask on.
CREATE OR REPLACE FUNCTION read_events(
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
    IF NOT FOUND THEN
        -- Deleted, and not gone yet: whoever follows it reads to its end.
        SELECT d.thread_no INTO v_thread_no FROM deleted_thread d
            WHERE d.tenant_id = p_tenant AND d.user_id = p_user AND d.thread_id = p_thread_id AND d.epoch = p_epoch;
    END IF;
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
CREATE OR REPLACE FUNCTION read_messages(
    p_tenant text, p_user text, p_thread_no bigint, p_turn bigint, p_before_turn bigint, p_before_role smallint, p_limit integer)
RETURNS TABLE (turn bigint, role smallint, content text, run_id text, created_at timestamptz)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = agentws, pg_temp AS $$
DECLARE
    -- In variables: row-level security keeps an expression from becoming a bound of the index.
    v_before_turn bigint := coalesce(p_before_turn, p_turn);
    v_before_role smallint := coalesce(p_before_role, 0);
BEGIN
    PERFORM set_config('agentws.tenant_id', p_tenant, true), set_config('agentws.user_id', p_user, true);
    RETURN QUERY SELECT m.turn, m.role, m.content, r.run_id, m.created_at
        FROM message m JOIN run r ON r.tenant_id = p_tenant AND r.user_id = p_user AND r.run_no = m.run_no
        WHERE m.tenant_id = p_tenant AND m.user_id = p_user AND m.thread_no = p_thread_no AND m.turn < p_turn
            AND (m.turn, m.role) < (v_before_turn, v_before_role)
        ORDER BY m.turn DESC, m.role DESC LIMIT p_limit;
END $$;

-- Units of work of the system: no content passes here ----------------------------------------------------------

-- The last numbers of many threads at once; for whoever follows them and may have missed a hint. Of a thread that was
-- deleted since, those of its end.
CREATE FUNCTION read_heads(p_tenants text[], p_users text[], p_threads text[], p_epochs text[])
RETURNS TABLE (place integer, epoch text, last_seq bigint, deleted boolean)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = agentws, pg_temp AS $$
    SELECT k.o::integer, coalesce(d.epoch, h.epoch), coalesce(d.last_seq, h.last_seq), d.epoch IS NOT NULL
    FROM unnest(p_tenants, p_users, p_threads, p_epochs) WITH ORDINALITY AS k (t, u, i, e, o)
    LEFT JOIN thread_head h ON h.tenant_id = k.t AND h.user_id = k.u AND h.thread_id = k.i
    LEFT JOIN deleted_thread d ON d.tenant_id = k.t AND d.user_id = k.u AND d.thread_id = k.i AND d.epoch = k.e
        AND h.epoch IS DISTINCT FROM k.e
    WHERE h.epoch IS NOT NULL OR d.epoch IS NOT NULL
$$;

-- Gives up to p_limit threads a new epoch, in the order of their keys after the one that is given (null: from the first);
-- the last one's key.
CREATE FUNCTION new_epoch(
    p_tenant text, p_user text, p_thread text, p_limit integer,
    OUT o_count integer, OUT o_tenant text, OUT o_user text, OUT o_thread text
) LANGUAGE plpgsql SECURITY DEFINER SET search_path = agentws, pg_temp AS $$
DECLARE
    k record;
BEGIN
    o_count := 0;
    FOR k IN SELECT h.tenant_id, h.user_id, h.thread_id FROM thread_head h
        WHERE (h.tenant_id, h.user_id, h.thread_id) > (coalesce(p_tenant, ''), coalesce(p_user, ''), coalesce(p_thread, ''))
        ORDER BY h.tenant_id, h.user_id, h.thread_id LIMIT p_limit FOR UPDATE
    LOOP
        UPDATE thread_head h SET epoch = left(replace(gen_random_uuid()::text, '-', ''), 12)
            WHERE h.tenant_id = k.tenant_id AND h.user_id = k.user_id AND h.thread_id = k.thread_id;
        o_count := o_count + 1;
        o_tenant := k.tenant_id; o_user := k.user_id; o_thread := k.thread_id;
    END LOOP;
END $$;

-- The runs that stop when nobody follows their thread, and for how long nobody was known to; the longest first.
CREATE FUNCTION find_unfollowed(p_limit integer)
RETURNS TABLE (tenant_id text, user_id text, thread_id text, run_no bigint, idle interval)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = agentws, pg_temp AS $$
    SELECT q.tenant_id, q.user_id, q.thread_id, q.run_no, clock_timestamp() - q.followed_at FROM run_queue q
        WHERE q.stops_unfollowed AND NOT q.stopping ORDER BY q.followed_at LIMIT p_limit
$$;

-- Notes that runs' threads are followed. A row that is being written is left out; it is noted the next time.
CREATE FUNCTION mark_followed(p_tenants text[], p_users text[], p_runs bigint[]) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = agentws, pg_temp AS $$
    UPDATE run_queue q SET followed_at = clock_timestamp() FROM (
        SELECT w.tenant_id, w.user_id, w.run_no FROM run_queue w
        JOIN unnest(p_tenants, p_users, p_runs) AS k (t, u, r) ON w.tenant_id = k.t AND w.user_id = k.u AND w.run_no = k.r
        FOR UPDATE OF w SKIP LOCKED) f
    WHERE q.tenant_id = f.tenant_id AND q.user_id = f.user_id AND q.run_no = f.run_no
$$;

-- Threads that were deleted at least p_age ago and are not gone yet, the oldest first.
CREATE FUNCTION find_deleted(p_age interval, p_limit integer)
RETURNS TABLE (tenant_id text, user_id text, thread_id text, epoch text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = agentws, pg_temp AS $$
    SELECT d.tenant_id, d.user_id, d.thread_id, d.epoch FROM deleted_thread d
        WHERE d.deleted_at < clock_timestamp() - p_age ORDER BY d.deleted_at LIMIT p_limit
$$;

CREATE FUNCTION issue_ticket(
    p_hash bytea, p_tenant text, p_user text, p_credentials_expire_at timestamptz, p_ttl interval) RETURNS timestamptz
LANGUAGE sql SECURITY DEFINER SET search_path = agentws, pg_temp AS $$
    INSERT INTO ticket (hash, tenant_id, user_id, credentials_expire_at, expires_at)
        VALUES (p_hash, p_tenant, p_user, p_credentials_expire_at, clock_timestamp() + p_ttl) RETURNING expires_at
$$;

-- What a ticket stands for, once: whoever gets it has removed it.
CREATE FUNCTION redeem_ticket(p_hash bytea)
RETURNS TABLE (tenant_id text, user_id text, credentials_expire_at timestamptz)
LANGUAGE sql SECURITY DEFINER SET search_path = agentws, pg_temp AS $$
    DELETE FROM ticket t WHERE t.hash = p_hash AND t.expires_at > clock_timestamp()
        RETURNING t.tenant_id, t.user_id, t.credentials_expire_at
$$;

CREATE FUNCTION purge_tickets() RETURNS bigint
LANGUAGE sql SECURITY DEFINER SET search_path = agentws, pg_temp AS $$
    WITH gone AS (DELETE FROM ticket WHERE expires_at < clock_timestamp() RETURNING 1) SELECT count(*) FROM gone
$$;

DO $$
DECLARE f text;
BEGIN
    FOREACH f IN ARRAY ARRAY['accept', 'refusal_of', 'is_full', 'turn_before_waiting', 'stop', 'view_of', 'create_thread',
        'read_thread', 'update_thread', 'list_threads', 'read_history', 'delete_thread', 'end_running', 'purge_deleted']
    LOOP
        EXECUTE format('ALTER FUNCTION %I OWNER TO agentws_app', f);
    END LOOP;
    FOREACH f IN ARRAY ARRAY['count_waiting', 'read_heads', 'new_epoch', 'find_unfollowed', 'mark_followed', 'find_deleted',
        'issue_ticket', 'redeem_ticket', 'purge_tickets']
    LOOP
        EXECUTE format('ALTER FUNCTION %I OWNER TO agentws_system', f);
    END LOOP;
END $$;
GRANT EXECUTE ON FUNCTION count_waiting TO agentws_app;
