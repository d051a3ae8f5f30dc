"""What an operator is told of a run: its course and nothing that was said in it, under its own user's name only."""

import asyncpg
import pytest

from agentws.core.run import Draft
from agentws.store.outlines import PgOutlines
from agentws.wire.events import EventType

from .conftest import ANN, NODE, Store, T


async def test_an_outline_tells_lengths_and_no_texts(store: Store) -> None:
    claim = await store.claimed(text="secret question", run_id="r1")
    await store.append(
        claim,
        2,
        Draft(EventType.AGENT_THINKING, '{"reasoning":"secret thought","step":1,"offset":0}'),
        Draft(EventType.TOOL_EXECUTING, '{"execution_id":"e","tool_name":"look","parameters":{"q":"secret"}}'),
        Draft(
            EventType.TOOL_COMPLETED,
            '{"execution_id":"e","tool_name":"look","success":true,"outcome":"done","result":"secret","error":null,'
            '"duration_ms":12}',
        ),
        Draft(EventType.AGENT_EVENT, '{"name":"app.thing","value":{"text":"secret"}}'),
        Draft(EventType.AGENT_MESSAGE, '{"text":"secret \\u00e9","offset":0}'),
    )
    await store.finish(claim, first=7, response="secret answer")
    found = await PgOutlines(store.pool).read(tenant_id="", user_id="ann", run_id="r1")
    assert found is not None
    assert "secret" not in repr(found)
    assert (found.status, found.asked_characters, found.answered_characters) == ("completed", 15, 13)
    assert found.thread_id == T
    thought, executing, completed, event, message = found.events[1:6]
    assert thought.characters == 14
    assert (executing.tool_name, executing.execution_id, executing.parameters_bytes) == ("look", "e", 14)
    assert (completed.outcome, completed.duration_ms, completed.result_bytes) == ("done", 12, 8)
    assert (event.name, event.characters) == ("app.thing", None)
    assert message.characters == 8
    assert [each.type for each in found.events][::6] == ["agent_started", "agent_completed"]
    assert not found.more


async def test_a_run_waits_behind_those_that_were_at_work_and_not_behind_those_that_wait_too(store: Store) -> None:
    first = await store.claimed(run_id="r1", agent="slow")
    await store.accept(run_id="r2", owner=NODE)
    await store.accept(run_id="r3", owner=NODE)
    outlines = PgOutlines(store.pool)
    waiting = await outlines.read(tenant_id="", user_id="ann", run_id="r2")
    assert waiting is not None
    assert [(each.run_id, each.status) for each in waiting.ahead] == [("r1", "running")]
    assert waiting.started_at is None
    await store.finish(first, owner=NODE, agents=("demo",))
    begun = await outlines.read(tenant_id="", user_id="ann", run_id="r2")
    assert begun is not None
    assert [(each.run_id, each.agent, each.status) for each in begun.ahead] == [("r1", "slow", "completed")]
    last = await outlines.read(tenant_id="", user_id="ann", run_id="r3")
    assert last is not None
    assert [each.run_id for each in last.ahead] == ["r1", "r2"]


@pytest.mark.parametrize(("tenant", "user", "run_id"), [("", "bob", "r1"), ("other", "ann", "r1"), ("", "ann", "r2")])
async def test_another_s_run_is_not_there(store: Store, tenant: str, user: str, run_id: str) -> None:
    await store.claimed(ANN, run_id="r1")
    assert await PgOutlines(store.pool).read(tenant_id=tenant, user_id=user, run_id=run_id) is None


async def test_the_names_of_a_call_see_nothing_where_the_principal_s_rows_are_not(
    owner: "asyncpg.Connection[asyncpg.Record]", store: Store
) -> None:
    """The policies hold inside the function too, not only what it asks for."""
    await store.claimed(ANN, run_id="r1")
    source = await owner.fetchval("SELECT prosrc FROM pg_proc WHERE proname = 'explain_run'")
    await owner.execute(
        "CREATE FUNCTION agentws.unasked(p_tenant text, p_user text, p_run_id text, p_limit integer) RETURNS json"
        " LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = agentws, pg_temp AS $$"
        + source.replace(" AND tenant_id = p_tenant AND user_id = p_user", "")
        + "$$; ALTER FUNCTION agentws.unasked OWNER TO agentws_app"
    )
    call = "SELECT agentws.unasked('', $1, 'r1', 10)"
    assert await owner.fetchval(call, "ann") is not None
    assert await owner.fetchval(call, "bob") is None


async def test_no_more_events_are_told_than_were_asked_for(store: Store) -> None:
    claim = await store.claimed(run_id="r1")
    await store.append(claim, 2, *[Draft(EventType.AGENT_MESSAGE, '{"text":"x","offset":0}')] * 5)
    rows = await store.pool.system("SELECT json_array_length(x -> 'events') AS n, x ->> 'more' AS more"
        " FROM agentws.explain_run('', 'ann', 'r1', 4) AS x")  # fmt: skip
    assert (rows[0]["n"], rows[0]["more"]) == (4, "true")
