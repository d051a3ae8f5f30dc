-- readable from: 2
--
-- Runs that are handed from one process to another, and attempts that wait for their time.
--
-- A released run has begun, and nobody works on it: its owner is 0, which no node's id ever is, so that for a stop, a
-- deletion and a place in the queue it counts as one that runs. Code of before this migration takes it for a run of a
-- process that is gone, and restarts it without a delay.

COMMENT ON COLUMN run_queue.owner IS 'The node that works on it; null: it waits to be begun; 0: it was begun and released, for whoever starts its next attempt.';
COMMENT ON COLUMN run_queue.available_at IS 'Nobody may claim it before.';

-- Gives a run back that is held under p_fence: whoever claims it after p_delay starts its next attempt. Its fence is
-- raised, so that whoever has released it writes nothing more.
-- outcome: released (also by an earlier call, whose answer was lost), stopping (a stop was accepted before: it has to end
-- in that), fenced (another holds it, or it has ended).
CREATE FUNCTION release_run(
    p_tenant text, p_user text, p_thread_id text, p_run_no bigint, p_fence integer, p_delay interval,
    OUT outcome text, OUT o_stop_reason text
) LANGUAGE plpgsql SECURITY DEFINER SET search_path = agentws, pg_temp AS $$
DECLARE
    q run_queue;
BEGIN
    PERFORM set_config('agentws.tenant_id', p_tenant, true), set_config('agentws.user_id', p_user, true);
    outcome := 'fenced';
    PERFORM 1 FROM thread_head
        WHERE tenant_id = p_tenant AND user_id = p_user AND thread_id = p_thread_id AND running_run_no = p_run_no FOR UPDATE;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    SELECT * INTO q FROM run_queue WHERE tenant_id = p_tenant AND user_id = p_user AND run_no = p_run_no FOR UPDATE;
    IF q.owner = 0 AND q.fence = p_fence + 1 THEN
        outcome := 'released';
    ELSIF q.fence = p_fence AND q.stopping THEN
        outcome := 'stopping';
        o_stop_reason := stop_reason_of(p_tenant, p_user, p_run_no);
    ELSIF q.fence = p_fence THEN
        UPDATE run_queue SET owner = 0, fence = q.fence + 1, available_at = clock_timestamp() + p_delay
            WHERE tenant_id = p_tenant AND user_id = p_user AND run_no = p_run_no;
        outcome := 'released';
    END IF;
END $$;

ALTER TABLE node ADD COLUMN agents text[];
COMMENT ON COLUMN node.agents IS 'The agents that it can call; null: it is of code that did not tell.';

CREATE FUNCTION register_node_2(p_node bigint, p_name text, p_ttl interval, p_agents text[]) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = agentws, pg_temp AS $$
    INSERT INTO node (node_id, name, expires_at, agents) VALUES (p_node, p_name, clock_timestamp() + p_ttl, p_agents)
$$;

-- Ends a node's lease. Its row stays for a while, as that of one that died, for who asks which agents were known lately.
CREATE OR REPLACE FUNCTION remove_node(p_node bigint) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = agentws, pg_temp AS $$
    UPDATE node SET expires_at = least(expires_at, clock_timestamp()) WHERE node_id = p_node
$$;

-- Takes over up to p_limit runs that somebody has to close, whether or not there is a slot for them: those whose process
-- is gone, the orphans (those of this node that it does not know), and released ones that are to stop. One that may be
-- begun again is left to a node that knows its agent, where there is one.
CREATE FUNCTION take_over_2(p_node bigint, p_tenants text[], p_users text[], p_runs bigint[], p_limit integer)
RETURNS TABLE (tenant_id text, user_id text, thread_id text, run_no bigint, fence integer, orphan boolean, released boolean)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = agentws, pg_temp AS $$
DECLARE
    c record;
BEGIN
    FOR c IN SELECT q.tenant_id, q.user_id, q.thread_id, q.run_no, q.fence, k.run_no IS NOT NULL AS orphan,
            q.owner = 0 AS released
        FROM run_queue q
        LEFT JOIN node n ON n.node_id = q.owner
        LEFT JOIN unnest(p_tenants, p_users, p_runs) AS k (tenant_id, user_id, run_no) ON q.owner = p_node
            AND k.tenant_id = q.tenant_id AND k.user_id = q.user_id AND k.run_no = q.run_no
        WHERE q.owner IS NOT NULL AND CASE WHEN q.owner = 0 THEN q.stopping
            ELSE n.node_id IS NULL OR n.expires_at < clock_timestamp() OR k.run_no IS NOT NULL END
            AND (q.stopping OR k.run_no IS NOT NULL
                OR NOT EXISTS (SELECT 1 FROM node m WHERE m.node_id = p_node AND q.agent <> ALL (m.agents))
                OR NOT EXISTS (SELECT 1 FROM node m WHERE m.expires_at > clock_timestamp() AND q.agent = ANY (m.agents)))
        ORDER BY q.queued_at LIMIT p_limit
    LOOP
        PERFORM 1 FROM thread_head h
            WHERE h.tenant_id = c.tenant_id AND h.user_id = c.user_id AND h.thread_id = c.thread_id
            FOR UPDATE SKIP LOCKED;
        CONTINUE WHEN NOT FOUND;
        RETURN QUERY UPDATE run_queue q SET owner = p_node, fence = q.fence + 1
            WHERE q.tenant_id = c.tenant_id AND q.user_id = c.user_id AND q.run_no = c.run_no AND q.fence = c.fence
            RETURNING q.tenant_id, q.user_id, q.thread_id, q.run_no, q.fence, c.orphan, c.released;
    END LOOP;
    DELETE FROM node WHERE node.expires_at < clock_timestamp() - interval '1 hour'
        AND NOT EXISTS (SELECT 1 FROM run_queue q WHERE q.owner = node.node_id);
END $$;

-- Claims up to p_limit runs whose time has come: released ones first, because their threads wait for them, then waiting
-- ones whose thread is idle; of both, those accepted first. One whose agent no node has known for a minute is claimed by
-- any that has been there for as long: it has to end, and its thread waits for that.
CREATE FUNCTION claim_waiting_2(p_node bigint, p_agents text[], p_limit integer)
RETURNS TABLE (tenant_id text, user_id text, thread_id text, run_no bigint, fence integer, orphan boolean, released boolean)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = agentws, pg_temp AS $$
DECLARE
    c record;
    v_since constant timestamptz := clock_timestamp() - interval '1 minute';
    -- The agents that some node has known since; null: it cannot be said.
    v_known text[];
BEGIN
    IF EXISTS (SELECT 1 FROM node n WHERE n.node_id = p_node AND n.started_at < v_since)
        AND NOT EXISTS (SELECT 1 FROM node n WHERE n.agents IS NULL AND n.expires_at > v_since)
    THEN
        SELECT coalesce(array_agg(DISTINCT a), '{}') INTO v_known FROM node n, unnest(n.agents) a
            WHERE n.expires_at > v_since;
    END IF;
    FOR c IN SELECT q.tenant_id, q.user_id, q.thread_id, q.run_no, q.fence, q.owner IS NOT NULL AS released
        FROM run_queue q JOIN thread_head h
        ON h.tenant_id = q.tenant_id AND h.user_id = q.user_id AND h.thread_id = q.thread_id
        WHERE q.available_at <= clock_timestamp()
            AND (q.agent = ANY (p_agents) OR (q.available_at < v_since AND q.agent <> ALL (v_known)))
            AND (q.owner = 0 OR (q.owner IS NULL AND h.running_run_no IS NULL
                AND NOT EXISTS (SELECT 1 FROM run_queue o WHERE o.tenant_id = q.tenant_id AND o.user_id = q.user_id
                    AND o.thread_no = q.thread_no AND o.owner IS NULL AND o.turn < q.turn)))
        ORDER BY q.owner NULLS LAST, q.queued_at LIMIT p_limit
    LOOP
        IF c.released THEN
            PERFORM 1 FROM thread_head h
                WHERE h.tenant_id = c.tenant_id AND h.user_id = c.user_id AND h.thread_id = c.thread_id
                FOR UPDATE SKIP LOCKED;
            CONTINUE WHEN NOT FOUND;
            RETURN QUERY UPDATE run_queue q SET owner = p_node, fence = q.fence + 1
                WHERE q.tenant_id = c.tenant_id AND q.user_id = c.user_id AND q.run_no = c.run_no AND q.fence = c.fence
                RETURNING q.tenant_id, q.user_id, q.thread_id, q.run_no, q.fence, false, true;
            CONTINUE;
        END IF;
        PERFORM 1 FROM thread_head h WHERE h.tenant_id = c.tenant_id AND h.user_id = c.user_id
            AND h.thread_id = c.thread_id AND h.running_run_no IS NULL FOR UPDATE SKIP LOCKED;
        CONTINUE WHEN NOT FOUND;
        RETURN QUERY UPDATE run_queue q SET owner = p_node, fence = q.fence + 1
            WHERE q.tenant_id = c.tenant_id AND q.user_id = c.user_id AND q.run_no = c.run_no AND q.owner IS NULL
                AND NOT EXISTS (SELECT 1 FROM run_queue o WHERE o.tenant_id = q.tenant_id AND o.user_id = q.user_id
                    AND o.thread_no = q.thread_no AND o.owner IS NULL AND o.turn < q.turn)
            RETURNING q.tenant_id, q.user_id, q.thread_id, q.run_no, q.fence, false, false;
        IF FOUND THEN
            UPDATE thread_head h SET running_run_no = c.run_no, waiting = h.waiting - 1
                WHERE h.tenant_id = c.tenant_id AND h.user_id = c.user_id AND h.thread_id = c.thread_id;
        END IF;
    END LOOP;
END $$;

ALTER FUNCTION release_run OWNER TO agentws_app;
ALTER FUNCTION take_over_2 OWNER TO agentws_system;
ALTER FUNCTION register_node_2 OWNER TO agentws_system;
ALTER FUNCTION claim_waiting_2 OWNER TO agentws_system;
