"""What is counted of the feed, the database, the lease and the process moves when that happens."""

import asyncio
import contextlib
import tempfile
import time
from collections.abc import AsyncIterator

import asyncpg

import agentws

from ..conftest import StartService, TestDatabase
from ..faults import Line
from ..peers import Peer, peer
from .reading import moved, until, value


async def subscribe(client: Peer, thread_id: str) -> None:
    client.send(type="subscribe", id="s", thread_id=thread_id)
    await client.until_type("caught_up")


@contextlib.asynccontextmanager
async def blocked(database: TestDatabase) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    """Units of work that touch a thread are not answered until the block is left."""
    owner = await asyncpg.connect(database.owner_url)
    try:
        async with owner.transaction():
            await owner.execute("LOCK TABLE agentws.thread_head IN ACCESS EXCLUSIVE MODE")
            yield owner
    finally:
        await owner.close()


# The feed


async def test_subscriptions_are_counted_while_they_last(start_service: StartService) -> None:
    service = await start_service()
    async with peer(service) as client:
        with moved(service, "agentws_subscriptions", by=1):
            events = await client.run("hi", agent="echo")
        client.send(type="unsubscribe", thread_id=events[0]["thread_id"])
        await client.until_type("unsubscribed")
        assert value(service, "agentws_subscriptions") == 0


async def test_events_are_counted_by_where_they_came_from_and_timed_on_their_way(start_service: StartService) -> None:
    service = await start_service()
    async with peer(service) as client:
        with (
            moved(service, "agentws_events_sent_total", by=6, source="live"),
            moved(service, "agentws_commit_to_send_seconds_count"),
            moved(service, "agentws_commit_to_send_seconds_sum"),
            moved(service, "agentws_broker_batches_total"),
        ):
            events = await client.run("hi", agent="tool")
            assert len(events) == 6
    async with peer(service) as again:
        with (
            moved(service, "agentws_events_sent_total", by=6, source="replay"),
            moved(service, "agentws_resume_events_count", by=1),
            moved(service, "agentws_resume_events_sum", by=6),
            moved(service, "agentws_journal_reads_total"),
        ):
            await subscribe(again, events[0]["thread_id"])


async def test_a_slow_delivery_shows_in_its_lag(start_service: StartService) -> None:
    service = await start_service()
    async with peer(service) as client:
        accepted = await client.ask("hi", agent="slow")
        await client.until_type("agent_message")
        client.reading.clear()
        with moved(service, "agentws_commit_to_send_seconds_sum"):
            before = value(service, "agentws_commit_to_send_seconds_sum")
            # The first keeps the sender, so that what comes after it waits.
            client.send(type="ping")
            client.send(type="stop_agent", run_id=accepted["run_id"])
            await until(lambda: value(service, "agentws_runs_ended_total", agent="slow", outcome="stopped") == 1)
            await asyncio.sleep(0.2)
            client.reading.set()
            await client.until_type("agent_stopped")
            assert value(service, "agentws_commit_to_send_seconds_sum") - before >= 0.2


async def test_what_a_connection_does_not_take_is_counted_in_bytes(start_service: StartService) -> None:
    async def talk(run: agentws.Run) -> None:
        await run.write("x" * 50_000)

    service = await start_service({"talk": talk})
    async with peer(service) as client:
        client.reading.clear()
        with moved(service, "agentws_queue_bytes"):
            client.send(type="user_message", payload={"content": "hi"})
            await until(lambda: value(service, "agentws_queue_bytes") > 50_000)
        client.reading.set()
        await client.until_type("agent_completed")
        assert value(service, "agentws_queue_bytes") == 0


async def test_the_statistics_know_what_is_open_and_what_was_sent(start_service: StartService) -> None:
    service = await start_service()
    read = service.statistics.read
    async with peer(service) as client:
        events = await client.run("hi", agent="tool")
        assert (read()["connections"], read()["events_sent"], read()["events_replayed"]) == (1, 6, 0)
        client.send(type="subscribe", thread_id=events[0]["thread_id"], after_seq=2)
        await client.until_type("caught_up")
        assert (read()["events_sent"], read()["events_replayed"]) == (10, 4)
        assert (read()["runs_completed"], read()["runs_in_flight"]) == (1, 0)
    assert read()["connections"] == 0


# The database


async def test_calls_wait_for_a_connection_and_are_timed_by_unit_of_work(
    start_service: StartService, database: TestDatabase
) -> None:
    service = await start_service(pool_size=1)
    async with peer(service) as client:
        with (
            moved(service, "agentws_pool_wait_seconds_count"),
            moved(service, "agentws_pool_wait_seconds_sum"),
            moved(service, "agentws_database_call_seconds_count", by=1, unit="accept"),
            moved(service, "agentws_database_call_seconds_sum", unit="append"),
        ):
            await client.run("hi", agent="echo")
        async with peer(service, "eve") as other, contextlib.AsyncExitStack() as stack:
            await until(lambda: value(service, "agentws_pool_connections", state="idle") == 1)
            with (
                moved(service, "agentws_pool_connections", by=1, state="busy"),
                moved(service, "agentws_pool_waiting"),
            ):
                await stack.enter_async_context(blocked(database))
                for each in (client, other):
                    each.send(type="user_message", payload={"content": "hi", "agent": "echo"})
                await until(lambda: value(service, "agentws_pool_waiting") >= 1)
            assert value(service, "agentws_pool_connections", state="idle") == 0
        await client.until_type("agent_completed")


async def test_the_size_of_the_pool_is_told(start_service: StartService) -> None:
    small, large = await start_service(pool_size=2), await start_service(pool_size=5)
    assert value(small, "agentws_pool_size") == 2
    assert value(large, "agentws_pool_size") == 5


async def test_calls_that_the_database_does_not_answer_are_counted(
    start_service: StartService, database: TestDatabase
) -> None:
    service = await start_service()
    async with peer(service) as client, blocked(database) as owner:
        with moved(service, "agentws_database_unavailable_total"):
            client.send(type="user_message", payload={"content": "hi", "agent": "echo"})
            await until(lambda: value(service, "agentws_pool_connections", state="busy") > 0)
            await owner.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1 AND pid <> $2",
                database.name,
                owner.get_server_pid(),
            )
            await until(lambda: value(service, "agentws_database_unavailable_total") > 0)


# The lease, and runs without anybody


async def test_renewals_are_counted_by_what_came_of_them_and_a_loss_shows(
    start_service: StartService, database: TestDatabase, line: Line
) -> None:
    service = await start_service(lease_ttl_s=1.5)
    with moved(service, "agentws_lease_renewals_total", outcome="renewed"):
        await line.answered("renew_node", 1)
    with (
        moved(service, "agentws_lease_renewals_total", outcome="unanswered"),
        moved(service, "agentws_lease_losses_total"),
    ):
        line.cut("renew_node")
        line.hold("register_node_2")
        # It does not count as held from the moment on at which the loss is due, and the loss is told a little later.
        await until(lambda: value(service, "agentws_lease_losses_total") > 0)
        assert value(service, "agentws_lease_held") == 0
    with moved(service, "agentws_lease_held", by=1):
        line.mend()
        await until(lambda: value(service, "agentws_lease_held") == 1)
    with moved(service, "agentws_lease_renewals_total", outcome="refused"):
        owner = await asyncpg.connect(database.owner_url)
        await owner.execute("DELETE FROM agentws.node")
        await owner.close()
        await until(lambda: value(service, "agentws_lease_renewals_total", outcome="refused") > 0)


async def test_a_run_whose_lease_ran_out_is_counted_when_it_is_taken_over(
    start_service: StartService, line: Line
) -> None:
    service = await start_service(lease_ttl_s=0.6)
    async with peer(service) as client:
        accepted = await client.ask("hi", agent="slow")
        with moved(service, "agentws_takeovers_total", by=1, why="lost"):
            line.cut("renew_node")
            await until(lambda: value(service, "agentws_runs_in_flight") == 0)
            line.mend()
            await client.ended(accepted["run_id"])


async def test_a_run_that_this_process_was_never_told_of_is_counted_when_it_is_found(
    start_service: StartService, line: Line
) -> None:
    service = await start_service(lease_ttl_s=0.6)
    async with peer(service) as client:
        with moved(service, "agentws_takeovers_total", by=1, why="orphan"):
            line.lose_answers("accept", 3)
            assert (await client.ask("hi", agent="echo"))["code"] == "database_unavailable"
            await until(lambda: value(service, "agentws_runs_ended_total", agent="echo", outcome="completed") == 1)


async def test_a_run_that_waited_for_a_slot_is_counted_when_it_is_found(start_service: StartService) -> None:
    service = await start_service(max_runs=1)
    async with peer(service) as client, peer(service, "eve") as other:
        slow = await client.ask("hi", agent="slow")
        waiting = await other.ask("waits", agent="echo")
        with moved(service, "agentws_waiting_claims_total", by=1):
            client.send(type="stop_agent", run_id=slow["run_id"])
            await other.ended(waiting["run_id"])


async def test_going_away_shows(start_service: StartService) -> None:
    service = await start_service()
    with moved(service, "agentws_draining", by=1):
        await service.drain()


# The process


async def test_a_loop_that_was_kept_shows_how_late_it_was(start_service: StartService) -> None:
    service = await start_service()
    with moved(service, "agentws_loop_lag_seconds_count"), moved(service, "agentws_loop_lag_seconds_sum"):
        await until(lambda: value(service, "agentws_loop_lag_seconds_count") > 0)
        in_time = value(service, "agentws_loop_lag_seconds_bucket", le="0.25")
        seen = value(service, "agentws_loop_lag_seconds_count")
        time.sleep(1)  # noqa: ASYNC251  # keeps the loop, for longer than the watch sleeps
        await until(lambda: value(service, "agentws_loop_lag_seconds_count") > seen)
        assert value(service, "agentws_loop_lag_seconds_bucket", le="0.25") == in_time


async def test_tasks_are_counted(start_service: StartService) -> None:
    service = await start_service()
    with moved(service, "agentws_asyncio_tasks", by=1):
        task = asyncio.create_task(asyncio.Event().wait())
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_memory_and_open_files_are_the_process_s(start_service: StartService) -> None:
    service = await start_service()
    with moved(service, "agentws_resident_memory_bytes"), moved(service, "agentws_open_files", by=1):
        held = b"x" * (64 << 20)
        file = tempfile.TemporaryFile()  # noqa: SIM115  # it has to be open when the block is left
    file.close()
    assert value(service, "agentws_resident_memory_bytes") > len(held) > 0
