-- readable from: 2
--
-- Finished answers kept as one event, events kept for a limited time, and idempotency keys that expire.


CREATE TABLE fold_queue (
    tenant_id text NOT NULL DEFAULT '',
    user_id text NOT NULL,
    run_no bigint NOT NULL,
    thread_id text NOT NULL,
    waiting_since timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, user_id, run_no)
);
CREATE UNIQUE INDEX fold_queue_by_age ON fold_queue (waiting_since, tenant_id, user_id, run_no);
COMMENT ON TABLE fold_queue IS 'The runs that have ended and whose pieces of text are not one event yet. No content.';
COMMENT ON COLUMN fold_queue.waiting_since IS 'When the run ended, or when a process last set about folding it: one that died is followed by another.';

-- Of the heads that are there now nobody knows how old their events are: they are looked at once.
ALTER TABLE thread_head ADD COLUMN oldest_at timestamptz NOT NULL DEFAULT '-infinity';
ALTER TABLE thread_head ALTER COLUMN oldest_at SET DEFAULT now();
COMMENT ON COLUMN thread_head.oldest_at IS 'No event of the thread is older. Written by retention alone, and without an index.';

-- Rows come in the order of their time, so that an insert goes to the index's last page. A BRIN index would end with
-- ranges that are never left out: rows of today fill the pages that old ones leave.
CREATE INDEX start_key_by_age ON start_key (created_at);

ALTER TABLE fold_queue ENABLE ROW LEVEL SECURITY;
ALTER TABLE fold_queue FORCE ROW LEVEL SECURITY;
CREATE POLICY principal ON fold_queue TO agentws_app
    USING (tenant_id = current_setting('agentws.tenant_id', true)
        AND user_id = NULLIF(current_setting('agentws.user_id', true), ''));
CREATE POLICY system ON fold_queue TO agentws_system USING (true);
CREATE POLICY system ON start_key TO agentws_system USING (true);

GRANT SELECT, INSERT, UPDATE, DELETE ON fold_queue TO agentws_app;
GRANT SELECT, UPDATE ON fold_queue TO agentws_system;
GRANT SELECT, DELETE ON start_key TO agentws_system;
GRANT UPDATE ON event TO agentws_app;

-- Folding ------------------------------------------------------------------------------------------------------

-- Appends a run's events from ordinal p_first on, and with p_status ends the run in the same transaction.
-- outcome: written, fenced (another holds the run, or it has ended otherwise), stopping (a stop was accepted: it has to
-- end in that, and nothing was written). o_skipped events were there already.
-- With p_owner the thread's next waiting run, if its agent is one of p_agents, is claimed for it: o_next.
CREATE OR REPLACE FUNCTION append(
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
            -- The thread may have been deleted since, and its name made anew: what runs there is no next of this one.
            SELECT running_run_no INTO next_no FROM thread_head WHERE tenant_id = p_tenant AND user_id = p_user
                AND thread_id = p_thread_id AND thread_no = r.thread_no;
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
    -- What a short run wrote stays as it is: to look at it again would cost more than it saves.
    IF r.ordinal > 16 THEN
        INSERT INTO fold_queue (tenant_id, user_id, run_no, thread_id, waiting_since)
            VALUES (p_tenant, p_user, p_run_no, p_thread_id, o_at);
    END IF;
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

-- What may be folded of a run that has ended, after p_after, oldest first; nothing where it has not ended.
-- It ends after p_limit rows, or with the row that makes it longer than p_bytes; more: it ended so, ask on.
CREATE FUNCTION read_foldable(
    p_tenant text, p_user text, p_run_no bigint, p_after bigint, p_limit integer, p_bytes integer)
RETURNS TABLE (seq bigint, from_seq bigint, type text, ordinal integer, attempt smallint, at timestamptz, body text,
    more boolean)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = agentws, pg_temp AS $$
DECLARE
    r run;
    -- In a variable: row-level security keeps an expression from becoming a bound of the index.
    v_after bigint;
    v_rows integer := 0;
    v_bytes integer := 0;
BEGIN
    PERFORM set_config('agentws.tenant_id', p_tenant, true), set_config('agentws.user_id', p_user, true);
    SELECT * INTO r FROM run x WHERE x.tenant_id = p_tenant AND x.user_id = p_user AND x.run_no = p_run_no;
    -- While it waited others wrote; from its start to its end the thread is its own, but for those that come to wait.
    v_after := greatest(p_after, r.started_seq - 1);
    FOR seq, from_seq, type, ordinal, attempt, at, body IN
        SELECT e.seq, e.from_seq, e.type, e.ordinal, e.attempt, e.at, e.body FROM event e
        WHERE e.tenant_id = p_tenant AND e.user_id = p_user AND e.thread_no = r.thread_no
            AND e.seq > v_after AND e.seq <= r.ended_seq
            AND e.run_no = p_run_no AND e.type IN ('agent_message', 'agent_thinking', 'tool_progress')
        ORDER BY e.seq LIMIT p_limit
    LOOP
        v_rows := v_rows + 1;
        v_bytes := v_bytes + coalesce(octet_length(body), 0);
        more := v_rows = p_limit OR v_bytes > p_bytes;
        RETURN NEXT;
        EXIT WHEN v_bytes > p_bytes;
    END LOOP;
END $$;

-- Puts one event in the place of several, for each group of p_rows events with the numbers p_from to p_to, which were
-- read before as of this run. p_last: nothing is left to fold of it. False where it is not as it was read: another
-- process folds it, or its thread or these events are gone; then it stays as it is.
CREATE FUNCTION fold_run(
    p_tenant text, p_user text, p_thread_id text, p_run_no bigint, p_from bigint[], p_to bigint[], p_rows integer[],
    p_bodies text[], p_last boolean
) RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER SET search_path = agentws, pg_temp AS $$
DECLARE
    h thread_head;
    r run;
    v_from bigint;
    v_to bigint;
    v_as_read boolean;
BEGIN
    PERFORM set_config('agentws.tenant_id', p_tenant, true), set_config('agentws.user_id', p_user, true);
    -- Whoever writes to the thread goes on beside this lock, because nobody changes the key; whoever deletes the thread or
    -- removes its old events waits for it.
    SELECT * INTO h FROM thread_head
        WHERE tenant_id = p_tenant AND user_id = p_user AND thread_id = p_thread_id FOR KEY SHARE;
    SELECT * INTO r FROM run WHERE tenant_id = p_tenant AND user_id = p_user AND run_no = p_run_no;
    IF h.thread_no IS DISTINCT FROM r.thread_no OR h.thread_no IS NULL THEN
        DELETE FROM fold_queue WHERE tenant_id = p_tenant AND user_id = p_user AND run_no = p_run_no;
        RETURN false;
    END IF;
    -- One process at a time.
    PERFORM 1 FROM fold_queue WHERE tenant_id = p_tenant AND user_id = p_user AND run_no = p_run_no FOR UPDATE;
    IF NOT FOUND OR r.ended_seq IS NULL THEN
        RETURN false;
    END IF;
    FOR i IN 1 .. cardinality(p_from) LOOP
        v_from := p_from[i]; v_to := p_to[i];
        SELECT count(*) = p_rows[i] AND bool_and(e.run_no = p_run_no) INTO v_as_read FROM event e
            WHERE e.tenant_id = p_tenant AND e.user_id = p_user AND e.thread_no = h.thread_no
                AND e.seq >= v_from AND e.seq <= v_to;
        IF NOT v_as_read THEN
            RETURN false;
        END IF;
        DELETE FROM event WHERE tenant_id = p_tenant AND user_id = p_user AND thread_no = h.thread_no
            AND seq >= v_from AND seq < v_to;
        UPDATE event SET from_seq = v_from, body = p_bodies[i]
            WHERE tenant_id = p_tenant AND user_id = p_user AND thread_no = h.thread_no AND seq = v_to;
    END LOOP;
    IF p_last THEN
        DELETE FROM fold_queue WHERE tenant_id = p_tenant AND user_id = p_user AND run_no = p_run_no;
    END IF;
    RETURN true;
END $$;

-- All that is kept of a run's course, and nothing of what was said in it: a text is told by its length. Null where this
-- user has no such run. Up to p_limit of its events; more: there are others.
CREATE OR REPLACE FUNCTION explain_run(p_tenant text, p_user text, p_run_id text, p_limit integer) RETURNS json
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = agentws, pg_temp AS $$
DECLARE
    r run;
    v_events json;
    v_ahead json;
    v_no_end constant bigint := 9223372036854775807;
BEGIN
    PERFORM set_config('agentws.tenant_id', p_tenant, true), set_config('agentws.user_id', p_user, true);
    SELECT * INTO r FROM run WHERE run_id = p_run_id AND tenant_id = p_tenant AND user_id = p_user;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    SELECT json_agg(json_strip_nulls(json_build_object(
            'type', e.type, 'attempt', e.attempt, 'at', e.at,
            'execution_id', b ->> 'execution_id', 'tool_name', b ->> 'tool_name',
            'parameters_bytes', octet_length((b -> 'parameters')::text),
            'result_bytes', CASE WHEN json_typeof(b -> 'result') <> 'null' THEN octet_length((b -> 'result')::text) END,
            'outcome', b ->> 'outcome', 'duration_ms', b -> 'duration_ms',
            'code', coalesce(b ->> 'code', b -> 'error' ->> 'code'),
            'characters', char_length(coalesce(b ->> 'text', b ->> 'reasoning')),
            'pieces', e.seq - e.from_seq + 1,
            'name', CASE e.type WHEN 'agent_event' THEN b ->> 'name' END,
            'position', b -> 'position', 'times', b -> 'times')) ORDER BY e.seq)
        INTO v_events
        FROM (SELECT x.*, x.body::json AS b FROM event x
            WHERE x.tenant_id = p_tenant AND x.user_id = p_user AND x.thread_no = r.thread_no AND x.run_no = r.run_no
                AND x.seq BETWEEN r.first_seq AND coalesce(r.ended_seq, v_no_end)
            ORDER BY x.seq LIMIT p_limit) e;
    -- One run of a thread works at a time, so that those which went before this one had an event while it waited, or work
    -- now; what only waited as well had not been started.
    SELECT json_agg(json_build_object('run_id', a.run_id, 'agent', a.agent, 'status', a.status,
            'started_at', a.started_at, 'ended_at', a.ended_at) ORDER BY a.started_seq)
        INTO v_ahead
        FROM run a
        WHERE a.tenant_id = p_tenant AND a.user_id = p_user AND a.started_seq < coalesce(r.started_seq, r.ended_seq, v_no_end)
            AND a.run_no IN (
                SELECT x.run_no FROM event x
                    WHERE x.tenant_id = p_tenant AND x.user_id = p_user AND x.thread_no = r.thread_no
                        AND x.seq > r.first_seq AND x.seq < coalesce(r.started_seq, r.ended_seq, v_no_end)
                UNION
                SELECT h.running_run_no FROM thread_head h
                    WHERE h.tenant_id = p_tenant AND h.user_id = p_user AND h.thread_no = r.thread_no
                        AND r.started_seq IS NULL AND r.ended_seq IS NULL)
            AND a.run_no <> r.run_no;
    RETURN json_build_object(
        'run_id', r.run_id, 'agent', r.agent, 'kind', r.kind, 'status', r.status, 'attempt', r.attempt,
        'thread_id', (SELECT t.thread_id FROM thread t
            WHERE t.tenant_id = p_tenant AND t.user_id = p_user AND t.thread_no = r.thread_no),
        'accepted_at', r.accepted_at, 'started_at', r.started_at, 'ended_at', r.ended_at, 'now', clock_timestamp(),
        'asked_characters', (SELECT char_length(m.content) FROM message m WHERE m.tenant_id = p_tenant
            AND m.user_id = p_user AND m.thread_no = r.thread_no AND m.turn = r.turn AND m.role = 0),
        'answered_characters', (SELECT char_length(m.content) FROM message m WHERE m.tenant_id = p_tenant
            AND m.user_id = p_user AND m.thread_no = r.thread_no AND m.turn = r.turn AND m.role = 1),
        'events', coalesce(v_events, '[]'), 'more', coalesce(json_array_length(v_events), 0) = p_limit,
        'ahead', coalesce(v_ahead, '[]'));
END $$;

-- Retention ----------------------------------------------------------------------------------------------------

-- Removes up to p_limit of a thread's oldest events that are older than p_age; how many. None of a run that has not
-- ended, nor after the first of one.
CREATE FUNCTION remove_aged(p_tenant text, p_user text, p_thread_id text, p_age interval, p_limit integer)
RETURNS integer LANGUAGE plpgsql SECURITY DEFINER SET search_path = agentws, pg_temp AS $$
DECLARE
    h thread_head;
    n integer := 0;
    v_upto bigint;
    v_resume_after bigint;
    v_oldest_at timestamptz;
BEGIN
    PERFORM set_config('agentws.tenant_id', p_tenant, true), set_config('agentws.user_id', p_user, true);
    SELECT * INTO h FROM thread_head
        WHERE tenant_id = p_tenant AND user_id = p_user AND thread_id = p_thread_id FOR UPDATE;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    v_resume_after := (view_of(p_tenant, p_user, h)).resume_after;
    -- A clock that was set back may have given a later event an earlier time: what goes is what is old from the first on.
    SELECT max(y.seq) INTO v_upto FROM (
        SELECT x.seq, bool_and(x.at < clock_timestamp() - p_age) OVER (ORDER BY x.seq) AS is_old FROM (
            SELECT e.seq, e.at FROM event e
            WHERE e.tenant_id = p_tenant AND e.user_id = p_user AND e.thread_no = h.thread_no AND e.seq <= v_resume_after
            ORDER BY e.seq LIMIT p_limit) x) y
        WHERE y.is_old;
    IF v_upto IS NOT NULL THEN
        DELETE FROM event
            WHERE tenant_id = p_tenant AND user_id = p_user AND thread_no = h.thread_no AND seq <= v_upto;
        GET DIAGNOSTICS n = ROW_COUNT;
        h.first_seq := v_upto + 1;
    END IF;
    SELECT e.at INTO v_oldest_at FROM event e
        WHERE e.tenant_id = p_tenant AND e.user_id = p_user AND e.thread_no = h.thread_no AND e.seq >= h.first_seq
        ORDER BY e.seq LIMIT 1;
    v_oldest_at := coalesce(v_oldest_at, clock_timestamp());
    IF n > 0 OR v_oldest_at <> h.oldest_at THEN
        UPDATE thread_head SET first_seq = h.first_seq, oldest_at = v_oldest_at
            WHERE tenant_id = p_tenant AND user_id = p_user AND thread_id = p_thread_id;
    END IF;
    RETURN n;
END $$;

-- Units of work of the system: no content passes here ----------------------------------------------------------

-- Up to p_limit runs that have waited to be folded for p_age, the longest first; they wait anew, should this come to nothing.
CREATE FUNCTION claim_folds(p_age interval, p_limit integer)
RETURNS TABLE (tenant_id text, user_id text, thread_id text, run_no bigint)
LANGUAGE sql SECURITY DEFINER SET search_path = agentws, pg_temp
-- By its index and its key also where nothing is known of the table, which is empty most of the time.
SET enable_hashjoin = off SET enable_mergejoin = off SET enable_seqscan = off AS $$
    UPDATE fold_queue q SET waiting_since = clock_timestamp() FROM (
        SELECT w.tenant_id, w.user_id, w.run_no FROM fold_queue w WHERE w.waiting_since < now() - p_age
        ORDER BY w.waiting_since LIMIT p_limit FOR UPDATE SKIP LOCKED) f
    WHERE q.tenant_id = f.tenant_id AND q.user_id = f.user_id AND q.run_no = f.run_no
    RETURNING q.tenant_id, q.user_id, q.thread_id, q.run_no
$$;

-- Among p_limit threads, in the order of their keys after the one that is given (null: from the first), those that may
-- have events older than p_age, and the last one's key in any case; no row: there are none.
CREATE FUNCTION find_aged(p_tenant text, p_user text, p_thread text, p_age interval, p_limit integer)
RETURNS TABLE (tenant_id text, user_id text, thread_id text, aged boolean)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = agentws, pg_temp AS $$
    SELECT y.tenant_id, y.user_id, y.thread_id, y.aged FROM (
        SELECT x.*, row_number() OVER (ORDER BY x.tenant_id, x.user_id, x.thread_id) = count(*) OVER () AS is_last FROM (
            SELECT h.tenant_id, h.user_id, h.thread_id, h.first_seq <= h.last_seq AND h.oldest_at < now() - p_age AS aged
            FROM thread_head h
            WHERE (h.tenant_id, h.user_id, h.thread_id)
                > (coalesce(p_tenant, ''), coalesce(p_user, ''), coalesce(p_thread, ''))
            ORDER BY h.tenant_id, h.user_id, h.thread_id LIMIT p_limit) x) y
        WHERE y.aged OR y.is_last ORDER BY y.tenant_id, y.user_id, y.thread_id
$$;

-- Removes up to p_limit idempotency keys that are older than p_age; how many.
CREATE FUNCTION purge_keys(p_age interval, p_limit integer) RETURNS bigint
LANGUAGE sql SECURITY DEFINER SET search_path = agentws, pg_temp
SET enable_hashjoin = off SET enable_mergejoin = off SET enable_seqscan = off AS $$
    WITH gone AS (DELETE FROM start_key k USING (
            SELECT o.tenant_id, o.user_id, o.idempotency_key FROM start_key o WHERE o.created_at < now() - p_age
            ORDER BY o.created_at LIMIT p_limit) f
        WHERE k.tenant_id = f.tenant_id AND k.user_id = f.user_id AND k.idempotency_key = f.idempotency_key
        RETURNING 1)
    SELECT count(*) FROM gone
$$;

DO $$
DECLARE f text;
BEGIN
    FOREACH f IN ARRAY ARRAY['read_foldable', 'fold_run', 'remove_aged'] LOOP
        EXECUTE format('ALTER FUNCTION %I OWNER TO agentws_app', f);
    END LOOP;
    FOREACH f IN ARRAY ARRAY['claim_folds', 'find_aged', 'purge_keys'] LOOP
        EXECUTE format('ALTER FUNCTION %I OWNER TO agentws_system', f);
    END LOOP;
END $$;
