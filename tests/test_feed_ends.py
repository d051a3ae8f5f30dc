"""A subscription ends with its thread or its epoch, told once and after all that there was, whatever hints say."""

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from agentws.app import Service
from agentws.broker.local import LocalBroker
from agentws.core.context import Principal
from agentws.core.replay import Batch
from agentws.ports import ThreadKey
from agentws.store.nodes import PgNodes
from agentws.store.pool import Database
from agentws.store.threads import PgThreads
from agentws.wire.ids import ThreadId, ThreadNo, new_number

from .conftest import StartService, TestDatabase
from .faults import Line
from .peers import Peer, peer

ADA = Principal("", "ada")


@asynccontextmanager
async def another_process(database: TestDatabase) -> AsyncIterator[Database]:
    """A pool of its own: what is done over it nobody here is told of."""
    pool = Database(database.url, size=1, timeout_s=30)
    await pool.open(wait_s=30)
    try:
        yield pool
    finally:
        await pool.close()


def of_thread(client: Peer, thread_id: str) -> list[dict[str, Any]]:
    """The events of a thread, and what ends its subscriptions."""
    frames = [frame for frame in client.frames if frame.get("thread_id") == thread_id]
    return [
        frame for frame in frames if "event_id" in frame or frame["type"] in ("thread_deleted", "subscription_ended")
    ]


def assert_dense(frames: list[dict[str, Any]]) -> list[dict[str, Any]]:
    events = [frame for frame in frames if "event_id" in frame]
    for before, after in itertools.pairwise(events):
        assert after.get("from_seq", after["seq"]) == before["seq"] + 1
    return events


async def subscribed(client: Peer, thread_id: str, **fields: Any) -> dict[str, Any]:
    client.send(type="subscribe", id="s", thread_id=thread_id, **fields)
    answer = await client.until_type("subscribed", "error")
    assert answer["type"] == "subscribed", answer
    await client.until_type("caught_up")
    return answer


@asynccontextmanager
async def bystander(service: Service) -> AsyncIterator[None]:
    """Somebody who follows a thread of his own, so that ends are looked at also when nobody else follows anything."""
    async with peer(service, "bob") as client:
        await client.run("hi", agent="echo")
        yield


async def polled(line: Line, client: Peer, times: int = 3) -> None:
    """Waits until the ends have been looked at so often since, and what that brought has been sent."""
    await line.answered("read_heads", line.calls.count("read_heads") + times)
    client.send(type="ping", id="polled")
    await client.until(lambda frame: frame.get("id") == "polled")


# Deleted


async def test_a_deletion_by_another_process_is_found_and_told_once_after_the_last_events(
    start_service: StartService, database: TestDatabase, line: Line
) -> None:
    service = await start_service(poll_interval_ms=20)
    async with bystander(service), peer(service) as client, peer(service) as other, another_process(database) as pool:
        accepted = await client.ask("hi", agent="slow")
        thread_id = accepted["thread_id"]
        await client.until_type("agent_message")
        await subscribed(other, thread_id)
        await PgThreads(pool).delete(ADA, ThreadId(thread_id))
        for each in (client, other):
            await each.until_type("thread_deleted")
            await polled(line, each)
            told = of_thread(each, thread_id)
            events = assert_dense(told)
            assert (events[-1]["type"], events[-1]["payload"]["reason"]) == ("agent_stopped", "thread_deleted")
            assert [frame["type"] for frame in told[len(events) :]] == ["thread_deleted"]


async def test_its_run_is_dropped_here_and_its_slot_is_free(
    start_service: StartService, database: TestDatabase
) -> None:
    service = await start_service(poll_interval_ms=20, lease_ttl_s=0.6, max_runs=1)
    async with peer(service) as client, another_process(database) as pool:
        accepted = await client.ask("hi", agent="slow")
        await client.until_type("agent_message")
        await PgThreads(pool).delete(ADA, ThreadId(accepted["thread_id"]))
        await client.until_type("thread_deleted")
        # It writes nothing more by itself; a renewal of the lease tells that it is not this process's any more.
        events = await client.run("next", agent="echo")
        assert events[-1]["type"] == "agent_completed"


async def test_a_name_made_anew_before_its_deletion_was_heard_of_is_told_deleted_all_the_same(
    start_service: StartService, database: TestDatabase, line: Line
) -> None:
    service = await start_service(poll_interval_ms=20)
    async with peer(service) as client, another_process(database) as pool:
        first = await client.run("old", agent="echo", run_id="old")
        thread_id = first[0]["thread_id"]
        line.hold("read_heads")
        await line.waiting.wait()
        threads = PgThreads(pool)
        await threads.delete(ADA, ThreadId(thread_id))
        anew = await threads.create(ADA, ThreadId(thread_id), ThreadNo(new_number()), title=None, metadata=None)
        assert anew.epoch != first[0]["epoch"]
        line.mend()
        ended = await client.until_type("thread_deleted", "subscription_ended")
        assert (ended["type"], ended["id"]) == ("thread_deleted", None)
        events = await client.run("new", agent="echo", thread_id=thread_id)
        assert (events[0]["seq"], events[0]["epoch"]) == (1, anew.epoch)


async def test_a_thread_whose_last_rows_are_gone_ends_where_the_follower_is(
    start_service: StartService, database: TestDatabase, line: Line
) -> None:
    service = await start_service(poll_interval_ms=20)
    async with peer(service) as client, another_process(database) as pool:
        events = await client.run("hi", agent="echo")
        thread_id = events[0]["thread_id"]
        line.hold("read_heads")
        await line.waiting.wait()
        await PgThreads(pool).delete(ADA, ThreadId(thread_id))
        while await PgNodes(pool).purge(older_than_s=0, limit=100):
            pass
        line.mend()
        assert (await client.until_type("thread_deleted"))["thread_id"] == thread_id
        assert assert_dense(client.frames) == events


async def test_a_slow_follower_of_a_deleted_thread_is_told_of_no_event_behind_a_hole(
    start_service: StartService, database: TestDatabase, line: Line
) -> None:
    async def talk(run: Any) -> None:
        for number in range(100):
            await run.write("x" * 5000)
            await run.think(f"{number}")

    service = await start_service({"talk": talk}, send_buffer_bytes=20_000, poll_interval_ms=20)
    async with peer(service) as slow, peer(service) as fast, another_process(database) as pool:
        accepted = await slow.ask("hi")
        thread_id = accepted["thread_id"]
        slow.reading.clear()
        await subscribed(fast, thread_id)
        await fast.ended(accepted["run_id"])
        await PgThreads(pool).delete(ADA, ThreadId(thread_id))
        await fast.until_type("thread_deleted")
        await PgNodes(pool).purge(older_than_s=0, limit=150)
        slow.reading.set()
        assert (await slow.until_type("thread_deleted"))["thread_id"] == thread_id
        assert 0 < len(assert_dense(slow.frames)) < 150
        assert of_thread(slow, thread_id)[-1]["type"] == "thread_deleted"


async def test_a_hint_of_a_deletion_that_is_doubled_or_late_is_told_once(
    start_service: StartService, monkeypatch: pytest.MonkeyPatch, line: Line
) -> None:
    plain = LocalBroker.publish
    held: list[tuple[ThreadKey, Batch]] = []

    def twice_and_again(self: LocalBroker, key: ThreadKey, batch: Batch) -> None:
        for each in (*held, (key, batch), (key, batch)):
            plain(self, *each)
        if batch.deleted:
            held.append((key, batch))

    monkeypatch.setattr(LocalBroker, "publish", twice_and_again)
    service = await start_service(poll_interval_ms=20)
    async with peer(service) as client, peer(service) as other:
        thread_id = (await client.run("hi", agent="echo"))[0]["thread_id"]
        await subscribed(other, thread_id)
        client.send(type="delete_thread", id="d", thread_id=thread_id)
        await other.until_type("thread_deleted")
        client.send(type="create_thread", thread_id=thread_id)
        await client.until_type("thread_created")
        # The old hint comes again with each of the new thread's: it is of another epoch.
        await subscribed(other, thread_id)
        events = await client.run("again", agent="echo", thread_id=thread_id)
        await other.ended(events[0]["run_id"])
        await polled(line, other)
        assert [frame["id"] for frame in other.frames if frame["type"] == "thread_deleted"] == [None]
        assert [frame["id"] for frame in client.frames if frame["type"] == "thread_deleted"] == ["d"]


# Another epoch


async def test_a_batch_of_another_epoch_is_a_hint_and_no_end(
    start_service: StartService, monkeypatch: pytest.MonkeyPatch, line: Line
) -> None:
    plain = LocalBroker.publish

    def with_old_ones(self: LocalBroker, key: ThreadKey, batch: Batch) -> None:
        old = Batch(epoch="old", after_seq=batch.after_seq, last_seq=batch.last_seq + 50, items=batch.items)
        for each in (old, batch, old):
            plain(self, key, each)

    monkeypatch.setattr(LocalBroker, "publish", with_old_ones)
    service = await start_service(poll_interval_ms=20)
    async with peer(service) as client:
        events = await client.run("20", agent="stream")
        assert assert_dense(client.frames) == events
        await polled(line, client)
        assert not any(frame["type"] in ("subscription_ended", "thread_deleted") for frame in client.frames)
        await client.run("and on", agent="echo", thread_id=events[0]["thread_id"])


async def test_a_new_epoch_ends_each_subscription_once_and_a_run_goes_on_in_it(
    start_service: StartService, database: TestDatabase, line: Line
) -> None:
    service = await start_service(poll_interval_ms=20)
    async with peer(service) as client, peer(service) as other, another_process(database) as pool:
        accepted = await client.ask("hi", agent="slow")
        thread_id = accepted["thread_id"]
        await client.until_type("agent_message")
        await subscribed(other, thread_id)
        await PgNodes(pool).new_epochs()
        for each in (client, other):
            ended = await each.until_type("subscription_ended")
            assert (ended["thread_id"], ended["reason"]) == (thread_id, "epoch_changed")
        client.send(type="stop_agent", thread_id=thread_id)
        await client.until_type("stop_accepted")
        async with bystander(service):
            await polled(line, other)
        assert sum(frame["type"] == "subscription_ended" for frame in other.frames) == 1
        assert of_thread(other, thread_id)[-1]["type"] == "subscription_ended"
        # Who comes again with what it held starts anew, and reads all of it in the new epoch.
        answer = await subscribed(other, thread_id, after_seq=2, epoch=accepted["epoch"])
        assert (answer["recovered"], answer["after_seq"], answer["epoch"] != accepted["epoch"]) == (False, 0, True)
        events = [event for event in await other.ended(accepted["run_id"]) if event["epoch"] == answer["epoch"]]
        assert [event["type"] for event in assert_dense(events)] == ["agent_started", "agent_message", "agent_stopped"]


async def test_nothing_of_another_epoch_is_told_before_the_end(
    start_service: StartService, database: TestDatabase, line: Line
) -> None:
    service = await start_service(poll_interval_ms=20)
    async with peer(service) as client, another_process(database) as pool:
        accepted = await client.ask("hi", agent="slow")
        await client.until_type("agent_message")
        line.hold("read_heads")
        await line.waiting.wait()
        await PgNodes(pool).new_epochs()
        # Its worker knows the old one; the journal knows the new one only.
        client.send(type="stop_agent", thread_id=accepted["thread_id"])
        await client.until_type("stop_accepted")
        line.mend()
        await client.until_type("subscription_ended")
        assert {frame["epoch"] for frame in client.frames if "event_id" in frame} == {accepted["epoch"]}
