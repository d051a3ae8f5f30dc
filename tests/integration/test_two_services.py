"""Two services on one database hear of each other by hints alone: nothing else looks within the time of a test."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from agentws.app import Service, assembly
from agentws.broker.hints import Hint, Outbox, topic_of
from agentws.broker.line import CHANNEL
from agentws.ports import StoreUnavailable, ThreadKey
from agentws.store.pool import Database
from agentws.store.threads import PgThreads
from agentws.wire.ids import ThreadId

from ..conftest import StartService, TestDatabase
from ..faults import Line
from ..observe.reading import until, value
from ..peers import Peer, peer
from ..test_feed_ends import ADA, another_process

pytestmark = pytest.mark.long

HOUR_MS = 3_600_000.0
Start = Callable[..., Awaitable[Service]]


@pytest.fixture
def start(start_service: StartService) -> Start:
    """Starts a service that hears hints, and looks for nothing by itself."""

    async def begin(agents: dict[str, Any] | None = None, **settings: Any) -> Service:
        slow = {"reconcile_interval_ms": HOUR_MS, "poll_interval_ms": HOUR_MS, "lease_ttl_s": 3600.0}
        service = await start_service(agents, broker="postgres", **{**slow, **settings})
        await until(lambda: value(service, "agentws_hears_hints") == 1)
        return service

    return begin


@pytest.fixture
def unsearched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs that wait are not searched for, unless somebody says that there are some."""
    monkeypatch.setattr(assembly, "_LOOK_INTERVAL_S", 3600.0)


async def follow(client: Peer, thread_id: str) -> None:
    client.send(type="subscribe", id="s", thread_id=thread_id)
    await client.until_type("caught_up")


@asynccontextmanager
async def at_work(here: Service, there: Service) -> AsyncIterator[tuple[Peer, Peer, dict[str, Any]]]:
    """A run at work in one service, followed from both."""
    async with peer(here) as client, peer(there) as other:
        accepted = await client.ask("hi", agent="slow")
        await client.until_type("agent_message")
        await follow(other, accepted["thread_id"])
        yield client, other, accepted


async def test_what_one_writes_reaches_a_follower_of_the_other(start: Start) -> None:
    here, there = await start(), await start()
    async with peer(here) as client, peer(there) as other:
        client.send(type="create_thread", thread_id="t")
        await client.until_type("thread_created")
        await follow(other, "t")
        accepted = await client.ask("30", agent="stream", thread_id="t")
        events = await client.ended(accepted["run_id"])
        heard = await other.ended(accepted["run_id"])
        assert heard[-1] == events[-1]
        assert "".join(each["payload"]["text"] for each in heard if each["type"] == "agent_message") == "".join(
            f"w{number} " for number in range(30)
        )


async def test_a_stop_in_the_other_process_stops_the_run(start: Start) -> None:
    here, there = await start(), await start()
    async with at_work(here, there) as (client, other, accepted):
        other.send(type="stop_agent", run_id=accepted["run_id"], reason="enough")
        assert (await other.until_type("stop_accepted"))["run_ids"] == [accepted["run_id"]]
        for each in (client, other):
            ended = (await each.ended(accepted["run_id"]))[-1]
            assert (ended["type"], ended["payload"]["reason"]) == ("agent_stopped", "enough")


async def test_a_start_in_the_other_process_interrupts_the_run(start: Start, unsearched: None) -> None:
    here, there = await start(), await start()
    async with at_work(here, there) as (client, other, accepted):
        after = await other.ask("me first", agent="echo", thread_id=accepted["thread_id"], if_busy="interrupt")
        for each in (client, other):
            assert (await each.ended(accepted["run_id"]))[-1]["payload"]["reason"] == "interrupted"
            assert (await each.ended(after["run_id"]))[-1]["payload"]["response"] == "me first"


async def test_a_deletion_in_the_other_process_ends_the_run_and_is_told(start: Start) -> None:
    here, there = await start(max_runs=1), await start()
    async with at_work(here, there) as (client, other, accepted):
        other.send(type="delete_thread", id="d", thread_id=accepted["thread_id"])
        assert (await other.until_type("thread_deleted"))["id"] == "d"
        assert (await client.until_type("thread_deleted"))["id"] is None
        ended = [frame for frame in client.frames if frame["type"] == "agent_stopped"]
        assert [frame["payload"]["reason"] for frame in ended] == ["thread_deleted"]
        # It began after the last renewal; its slot is free all the same.
        assert here.worker is not None
        worker = here.worker
        await until(lambda: worker.free == 1)


async def test_a_deletion_that_a_hint_makes_up_is_looked_up_and_not_told(start: Start, database: TestDatabase) -> None:
    here, there = await start(), await start()
    async with peer(here) as client, peer(there) as other:
        events = await client.run("hi", agent="echo")
        thread_id = events[0]["thread_id"]
        await follow(other, thread_id)
        topic = topic_of(ThreadKey(ADA, ThreadId(thread_id)))
        anybody = await asyncpg.connect(database.url)
        try:
            for last_seq in (1, events[-1]["seq"], 1000):
                await anybody.execute(f"NOTIFY {CHANNEL}, '1 anybody\n{topic} {events[0]['epoch']} {last_seq} d'")
        finally:
            await anybody.close()
        again = await client.run("again", agent="echo", thread_id=thread_id)
        assert await other.ended(again[0]["run_id"]) == again
        assert not any(frame["type"] in ("thread_deleted", "subscription_ended") for frame in other.frames)


async def test_a_run_for_which_there_is_no_slot_is_taken_by_the_other_process(start: Start, unsearched: None) -> None:
    here, there = await start(max_runs=1), await start()
    async with peer(here) as client:
        await client.ask("hi", agent="slow")
        await client.until_type("agent_message")
        client.send(type="create_thread", thread_id="t")
        waits = await client.ask("who takes it?", agent="echo", thread_id="t")
        assert waits["status"] == "queued"
        assert (await client.ended(waits["run_id"]))[-1]["type"] == "agent_completed"
        assert there.statistics.read()["runs_completed"] == 1


async def test_many_stops_at_once_are_few_renewals(start: Start, line: Line) -> None:
    here, there = await start(), await start()
    async with peer(here) as client, peer(there) as other:
        runs = []
        for number in range(20):
            client.send(type="create_thread", thread_id=f"t{number}")
            runs.append(await client.ask("hi", agent="slow", thread_id=f"t{number}"))
        before = line.calls.count("renew_node")
        for run in runs:
            other.send(type="stop_agent", run_id=run["run_id"])
        for run in runs:
            assert (await client.ended(run["run_id"]))[-1]["type"] == "agent_stopped"
        assert 1 <= line.calls.count("renew_node") - before <= 20


# Hints that do not come


async def test_lost_hints_cost_time_only(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    def lose(self: Outbox, hint: Hint) -> None:
        """Nothing of a thread is sent; echoes are."""

    monkeypatch.setattr(Outbox, "add", lose)
    here, there = await start(), await start(reconcile_interval_ms=50.0, poll_interval_ms=50.0)
    async with at_work(here, there) as (client, other, accepted):
        client.send(type="stop_agent", run_id=accepted["run_id"])
        assert (await other.ended(accepted["run_id"]))[-1]["type"] == "agent_stopped"


async def end_lines(database: TestDatabase) -> None:
    owner = await asyncpg.connect(database.owner_url)
    try:
        await owner.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'agentws listen'"
            " AND datname = current_database()"
        )
    finally:
        await owner.close()


@asynccontextmanager
async def nobody_listens(database: TestDatabase, line: Line, *services: Service) -> AsyncIterator[PgThreads]:
    """Until the block is left no line can be made, and what is done with the threads told of by nobody."""
    plain, gate = Database._connect, asyncio.Event()

    async def wait(self: Database, name: str = "agentws") -> Any:
        if name == "agentws listen":
            await gate.wait()
        return await plain(self, name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Database, "_connect", wait)
        looks = line.calls.count("read_heads")
        await end_lines(database)
        await until(lambda: not any(value(each, "agentws_hears_hints") for each in services))
        # The loss of the line makes each of them look once.
        await line.answered("read_heads", looks + len(services))
        async with another_process(database) as pool:
            yield PgThreads(pool)
    gate.set()


async def test_what_was_missed_is_read_when_the_line_is_back(start: Start, database: TestDatabase, line: Line) -> None:
    here, there = await start(), await start()
    async with at_work(here, there) as (client, other, accepted):
        async with nobody_listens(database, line, here, there) as threads:
            await threads.delete(ADA, ThreadId(accepted["thread_id"]))
            assert not any(frame["type"] == "thread_deleted" for frame in (*client.frames, *other.frames))
        for each in (client, other):
            await each.until_type("thread_deleted")


async def test_the_end_of_a_run_that_was_missed_is_found_when_the_line_is_back(
    start: Start, database: TestDatabase, line: Line
) -> None:
    here, there = await start(max_runs=1), await start()
    assert here.worker is not None
    worker = here.worker
    async with at_work(here, there) as (_, _, accepted):
        async with nobody_listens(database, line, here, there) as threads:
            await threads.delete(ADA, ThreadId(accepted["thread_id"]))
            assert worker.free == 0
        await until(lambda: worker.free == 1)


async def test_a_stop_that_could_not_be_told_is_told_when_the_line_is_back(
    start: Start, database: TestDatabase, line: Line
) -> None:
    here, there = await start(), await start()
    async with at_work(here, there) as (client, other, accepted):
        async with nobody_listens(database, line, here, there):
            other.send(type="stop_agent", run_id=accepted["run_id"])
            await other.until_type("stop_accepted")
            assert here.worker is not None
            assert here.worker.in_flight == 1
        assert (await client.ended(accepted["run_id"]))[-1]["type"] == "agent_stopped"


async def test_a_service_starts_without_hints_and_asks_the_database_instead(
    start_service: StartService, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(self: Database) -> Any:
        raise StoreUnavailable("no line")

    monkeypatch.setattr(Database, "listen", refuse)
    settings: dict[str, Any] = {"broker": "postgres", "reconcile_interval_ms": HOUR_MS, "poll_interval_ms": 20}
    here, there = await start_service(**settings), await start_service(**settings)
    async with at_work(here, there) as (client, other, accepted):
        client.send(type="stop_agent", run_id=accepted["run_id"])
        assert (await other.ended(accepted["run_id"]))[-1]["type"] == "agent_stopped"
