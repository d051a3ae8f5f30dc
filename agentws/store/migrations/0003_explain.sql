-- readable from: 2
--
-- What an operator is told of one run.

-- All that is kept of a run's course, and nothing of what was said in it: a text is told by its length. Null where this
-- user has no such run. Up to p_limit of its events; more: there are others.
CREATE FUNCTION explain_run(p_tenant text, p_user text, p_run_id text, p_limit integer) RETURNS json
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

ALTER FUNCTION explain_run OWNER TO agentws_app;
