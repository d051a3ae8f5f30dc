"""A run that asked for it stops when nobody has followed its thread for a time; what was deleted goes."""

import asyncio
from typing import Any

import asyncpg
import pytest

from agentws.app import Service
from agentws.runtime import housekeeper

from ..conftest import StartService, TestDatabase
from ..faults import Line
from ..peers import Peer, peer

INTERVAL_S = 0.02


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks often, so that tests need not wait."""
    monkeypatch.setattr(housekeeper, "LOOK_INTERVAL_S", INTERVAL_S)
    monkeypatch.setattr(housekeeper, "_PURGE_INTERVAL_S", INTERVAL_S)


async def start(client: Peer, **options: Any) -> dict[str, Any]:
    """A run that is at work until it is stopped, and stops when nobody follows it."""
    accepted = await client.ask("hi", agent="slow", **{"on_disconnect": "stop", **options})
    assert accepted["type"] == "request_accepted", accepted
    return accepted


async def looked(line: Line, times: int = 3) -> None:
    await line.answered("find_unfollowed", line.calls.count("find_unfollowed") + times)


async def terminal(service: Service, accepted: dict[str, Any]) -> dict[str, Any]:
    """The end of a run, read by a connection that comes only now."""
    async with peer(service) as client:
        client.send(type="subscribe", thread_id=accepted["thread_id"])
        return (await client.ended(accepted["run_id"]))[-1]


async def stopped(database: TestDatabase, accepted: dict[str, Any]) -> None:
    """Waits, without following it, until a run has ended."""
    owner = await asyncpg.connect(database.owner_url)
    try:
        async with asyncio.timeout(20):
            while not await owner.fetchval(
                "SELECT ended_seq IS NOT NULL FROM agentws.run WHERE run_id = $1", accepted["run_id"]
            ):
                pass
    finally:
        await owner.close()


async def test_a_run_stops_when_the_last_connection_that_follows_it_has_gone(
    start_service: StartService, database: TestDatabase
) -> None:
    service = await start_service(disconnect_grace_s=0.0)
    async with peer(service) as client:
        accepted = await start(client)
    await stopped(database, accepted)
    end = await terminal(service, accepted)
    assert (end["type"], end["payload"]["reason"], end["payload"]["response"]) == (
        "agent_stopped", "disconnected", "started ",
    )  # fmt: skip


async def test_a_run_that_waits_stops_too(start_service: StartService, database: TestDatabase) -> None:
    service = await start_service(disconnect_grace_s=0.0)
    async with peer(service) as client:
        first = await start(client, on_disconnect="continue")
        accepted = await start(client)
        assert accepted["status"] == "queued"
    await stopped(database, accepted)
    async with peer(service) as client:
        client.send(type="subscribe", thread_id=first["thread_id"])
        assert (await client.ended(accepted["run_id"]))[-1]["payload"]["reason"] == "disconnected"
        assert not any(
            frame["type"] == "agent_stopped" and frame["run_id"] == first["run_id"] for frame in client.frames
        )


async def test_another_connection_that_follows_it_keeps_it(start_service: StartService, line: Line) -> None:
    service = await start_service(disconnect_grace_s=0.0)
    async with peer(service) as other:
        async with peer(service) as client:
            accepted = await start(client)
            other.send(type="subscribe", thread_id=accepted["thread_id"])
            await other.until_type("caught_up")
        await looked(line)
        other.send(type="stop_agent", run_id=accepted["run_id"])
        assert (await other.ended(accepted["run_id"]))[-1]["payload"]["reason"] == "user"


async def test_a_connection_that_follows_another_thread_or_is_anothers_does_not_keep_it(
    start_service: StartService, database: TestDatabase
) -> None:
    service = await start_service(disconnect_grace_s=0.0)
    async with peer(service) as other, peer(service, "eve") as stranger:
        await other.ask("hi", agent="echo")
        async with peer(service) as client:
            accepted = await start(client)
            stranger.send(type="create_thread", thread_id=accepted["thread_id"])
            await stranger.until_type("thread_created")
            stranger.send(type="subscribe", thread_id=accepted["thread_id"])
            await stranger.until_type("caught_up")
        await stopped(database, accepted)
    assert (await terminal(service, accepted))["payload"]["reason"] == "disconnected"


async def test_one_that_comes_back_in_time_finds_it_at_work(start_service: StartService, line: Line) -> None:
    service = await start_service(disconnect_grace_s=600.0)
    async with peer(service) as client:
        accepted = await start(client)
    await looked(line)
    async with peer(service) as client:
        client.send(type="subscribe", thread_id=accepted["thread_id"])
        await client.until_type("caught_up")
        client.send(type="stop_agent", run_id=accepted["run_id"])
        assert (await client.ended(accepted["run_id"]))[-1]["payload"]["reason"] == "user"


async def test_a_connection_to_another_process_keeps_it(start_service: StartService, line: Line) -> None:
    one = await start_service(disconnect_grace_s=1.0)
    another = await start_service(disconnect_grace_s=1.0)
    async with peer(another) as other:
        async with peer(one) as client:
            accepted = await start(client)
            other.send(type="subscribe", thread_id=accepted["thread_id"])
            await other.until_type("caught_up")
        # Two processes look, and what the one notes the other reads: more than the time that is given.
        await looked(line, int(3 / INTERVAL_S))
        other.send(type="stop_agent", run_id=accepted["run_id"])
        assert (await other.ended(accepted["run_id"]))[-1]["payload"]["reason"] == "user"


async def test_nothing_is_stopped_because_the_database_was_away(start_service: StartService, line: Line) -> None:
    one = await start_service(disconnect_grace_s=0.5)
    another = await start_service(disconnect_grace_s=0.5)
    async with peer(another) as other:
        async with peer(one) as client:
            accepted = await start(client)
            other.send(type="subscribe", thread_id=accepted["thread_id"])
            await other.until_type("caught_up")
        line.cut("find_unfollowed")
        asked = line.calls.count("find_unfollowed")
        while line.calls.count("find_unfollowed") < asked + int(2 / INTERVAL_S):
            other.send(type="ping")
            await other.until_type("pong")
        line.mend()
        # The process that is followed by nobody looks before the other one can note that somebody does.
        line.cut("mark_followed", 2)
        await looked(line, int(1 / INTERVAL_S))
        other.send(type="stop_agent", run_id=accepted["run_id"])
        assert (await other.ended(accepted["run_id"]))[-1]["payload"]["reason"] == "user"


async def test_a_run_that_goes_on_is_left_alone(start_service: StartService, line: Line) -> None:
    service = await start_service(disconnect_grace_s=0.0)
    async with peer(service) as client:
        accepted = await start(client, on_disconnect="continue")
    await looked(line)
    async with peer(service) as client:
        client.send(type="stop_agent", run_id=accepted["run_id"])
        assert (await client.until_type("stop_accepted"))["run_ids"] == [accepted["run_id"]]


async def test_a_database_that_is_away_for_a_while_is_asked_again(
    start_service: StartService, database: TestDatabase, line: Line
) -> None:
    service = await start_service(disconnect_grace_s=0.0)
    line.cut("find_unfollowed", 3)
    line.cut("stop", 1)
    line.cut("purge_tickets", 3)
    async with peer(service) as client:
        accepted = await start(client)
    await stopped(database, accepted)
    await line.answered("purge_tickets", 1)


async def test_a_run_that_went_with_its_thread_meanwhile_is_no_failure(
    start_service: StartService, database: TestDatabase, line: Line, caplog: pytest.LogCaptureFixture
) -> None:
    service = await start_service(disconnect_grace_s=0.0)
    line.hold("stop")
    async with peer(service) as client:
        gone = await start(client)
        client.send(type="unsubscribe", thread_id=gone["thread_id"])
        await line.waiting.wait()
        client.send(type="delete_thread", thread_id=gone["thread_id"])
        await client.until_type("thread_deleted")
        other = await start(client)
    line.mend()
    await stopped(database, other)
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


async def test_what_was_deleted_goes_after_a_time_and_not_before(
    start_service: StartService, database: TestDatabase, line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = await start_service()
    owner = await asyncpg.connect(database.owner_url)
    try:
        async with peer(service) as client:
            thread_id = (await client.run("hi", agent="tool"))[0]["thread_id"]
            client.send(type="delete_thread", thread_id=thread_id)
            await client.until_type("thread_deleted")
            kept = await client.run("hi", agent="tool")
        await line.answered("find_deleted", line.calls.count("find_deleted") + 3)
        assert await owner.fetchval("SELECT count(*) FROM agentws.deleted_thread") == 1
        monkeypatch.setattr(housekeeper, "_PURGE_AGE_S", 0.0)
        monkeypatch.setattr(housekeeper, "_PURGE_ROWS", 2)
        async with asyncio.timeout(20):
            while await owner.fetchval("SELECT count(*) FROM agentws.deleted_thread"):
                pass
        assert await owner.fetchval("SELECT count(*) FROM agentws.event") == kept[-1]["seq"]
        assert await owner.fetchval("SELECT count(*) FROM agentws.run") == 1
    finally:
        await owner.close()
