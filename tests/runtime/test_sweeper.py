"""A service removes events and idempotency keys that are too old, by itself, and only where it was told to."""

import asyncio

import asyncpg
import pytest

from agentws.runtime import housekeeper, sweeper

from ..conftest import StartService, TestDatabase
from ..faults import Line
from ..peers import peer

OLD = "UPDATE agentws.event SET at = at - interval '3 days'; UPDATE agentws.thread_head SET oldest_at = '-infinity'"
FIRST = "SELECT first_seq FROM agentws.thread_head"


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks often, so that tests need not wait."""
    monkeypatch.setattr(sweeper, "SWEEP_INTERVAL_S", 0.02)
    monkeypatch.setattr(housekeeper, "_PURGE_INTERVAL_S", 0.02)


async def test_events_go_after_the_time_that_is_set_also_when_the_database_was_away(
    start_service: StartService, database: TestDatabase, line: Line
) -> None:
    service = await start_service(event_retention_days=2.0)
    owner = await asyncpg.connect(database.owner_url)
    try:
        async with peer(service) as client:
            events = await client.run("hi", agent="tool")
            line.cut("find_aged", 2)
            await owner.execute(OLD)
            async with asyncio.timeout(20):
                while await owner.fetchval(FIRST) == 1:
                    pass
            assert await owner.fetchval(FIRST) == events[-1]["seq"] + 1
            client.send(type="get_thread_history", thread_id=events[0]["thread_id"])
            told = await client.until_type("thread_history")
            assert [message["role"] for message in told["messages"]] == ["user", "assistant"]
    finally:
        await owner.close()


async def test_where_no_time_is_set_nothing_looks_for_old_events(
    start_service: StartService, database: TestDatabase, line: Line
) -> None:
    service = await start_service()
    owner = await asyncpg.connect(database.owner_url)
    try:
        async with peer(service) as client:
            await client.run("hi", agent="tool")
        await owner.execute(OLD)
        await line.answered("purge_keys", line.calls.count("purge_keys") + 3)
        assert await owner.fetchval(FIRST) == 1
        assert "find_aged" not in line.calls
    finally:
        await owner.close()


async def test_keys_are_kept_for_more_than_a_day_and_not_for_ever(
    start_service: StartService, database: TestDatabase
) -> None:
    service = await start_service()
    owner = await asyncpg.connect(database.owner_url)
    try:
        async with peer(service) as client:
            for key, hours in (("young", 25), ("old", 49)):
                await client.ask("hi", agent="echo", idempotency_key=key)
                await owner.execute(
                    "UPDATE agentws.start_key SET created_at = now() - $1 * interval '1 hour'"
                    " WHERE idempotency_key = $2",
                    hours,
                    key,
                )
            async with asyncio.timeout(20):
                while await owner.fetchval("SELECT count(*) FROM agentws.start_key") == 2:
                    pass
            assert await owner.fetchval("SELECT idempotency_key FROM agentws.start_key") == "young"
            again = await client.ask("hi", agent="echo", idempotency_key="young")
            assert again.get("duplicate") is True
    finally:
        await owner.close()
