"""A follower gets each event once and in order, whatever it missed and however slowly it takes."""

import asyncio
import itertools
from typing import Any

import asyncpg
import pytest

from agentws.broker.local import LocalBroker
from agentws.core.context import Principal
from agentws.core.replay import Batch
from agentws.ports import ThreadKey
from agentws.wire.ids import ThreadId

from .conftest import StartService, TestDatabase
from .faults import Line
from .histories import Reader
from .peers import Peer, peer


def dense(frames: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The run events among frames, held to the dense rule."""
    events = [frame for frame in frames if "event_id" in frame]
    for before, after in itertools.pairwise(events):
        assert after.get("from_seq", after["seq"]) == before["seq"] + 1
    return events


async def subscribe(client: Peer, thread_id: str, after_seq: int = 0) -> None:
    client.send(type="subscribe", id="s", thread_id=thread_id, after_seq=after_seq)
    await client.until_type("caught_up")


async def test_lost_hints_are_made_good_from_the_journal(
    start_service: StartService, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = LocalBroker.publish
    numbers = itertools.count()

    def every_other(self: LocalBroker, key: ThreadKey, batch: Batch) -> None:
        if next(numbers) % 2:
            plain(self, key, batch)

    monkeypatch.setattr(LocalBroker, "publish", every_other)
    service = await start_service(poll_interval_ms=20)
    async with peer(service) as client:
        for _ in range(5):
            accepted = await client.ask("7", agent="stream")
            await client.ended(accepted["run_id"])
        events = dense(client.frames)
    assert events[0]["seq"] == 1
    assert sum(event["type"] == "agent_completed" for event in events) == 5


async def test_doubled_and_late_hints_do_no_harm(start_service: StartService, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = LocalBroker.publish
    held: list[tuple[ThreadKey, Batch]] = []

    def twice_and_again(self: LocalBroker, key: ThreadKey, batch: Batch) -> None:
        for each in (*held, (key, batch), (key, batch)):
            plain(self, *each)
        held[:] = [(key, batch)]

    monkeypatch.setattr(LocalBroker, "publish", twice_and_again)
    service = await start_service()
    async with peer(service) as client:
        events = await client.run("20", agent="stream")
        assert dense(client.frames) == events


async def test_a_follower_that_takes_nothing_costs_bounded_memory_and_loses_nothing(
    start_service: StartService,
) -> None:
    async def talk(run: Any) -> None:
        for number in range(200):
            await run.write("x" * 5000)
            await run.think(f"{number}")

    service = await start_service({"talk": talk}, send_buffer_bytes=20_000)
    async with peer(service) as slow, peer(service) as fast:
        accepted = await slow.ask("hi")
        slow.reading.clear()
        await subscribe(fast, accepted["thread_id"])
        await fast.ended(accepted["run_id"])
        assert service.feed is not None
        assert max(service.feed.buffered()) < 100_000
        slow.reading.set()
        events = await slow.ended(accepted["run_id"])
        assert dense(slow.frames) == events
        assert "".join(event["payload"]["text"] for event in events if event["type"] == "agent_message") == "x" * 10**6


async def test_a_long_thread_is_replayed_in_pages(start_service: StartService) -> None:
    async def think(run: Any) -> None:
        for number in range(950):
            await run.think(str(number))

    service = await start_service({"think": think})
    async with peer(service) as client:
        live = await client.run("hi")
    async with peer(service) as again:
        await subscribe(again, live[0]["thread_id"])
        assert dense(again.frames) == live
        for after in (1, 199, 200, 201, 951, 952):
            again.frames.clear()
            again._taken = 0
            await subscribe(again, live[0]["thread_id"], after)
            assert dense(again.frames) == live[after:]


async def test_subscribing_while_a_run_writes_misses_and_doubles_nothing(start_service: StartService) -> None:
    service = await start_service()
    async with peer(service) as writer:
        accepted = await writer.ask("300", agent="stream")
        readers = []
        async with asyncio.TaskGroup() as tasks:
            readers = [tasks.create_task(_read(service, accepted)) for _ in range(10)]
        written = await writer.ended(accepted["run_id"])
    for reader in readers:
        # What was read of the journal came merged.
        assert Reader.of(reader.result()) == Reader.of(written)


async def _read(service: Any, accepted: dict[str, Any]) -> list[dict[str, Any]]:
    async with peer(service) as client:
        await subscribe(client, accepted["thread_id"])
        events = await client.ended(accepted["run_id"])
        assert dense(client.frames) == events
        return events


async def test_followers_hear_once_that_the_database_is_away(start_service: StartService, line: Line) -> None:
    service = await start_service(poll_interval_ms=10)
    async with peer(service) as client:
        first = await client.run("hi", agent="echo")
        client.send(type="create_thread", thread_id="other")
        await client.until_type("thread_created")
        client.send(type="subscribe", thread_id="other")
        await client.until_type("caught_up")
        polls = line.calls.count("read_heads")
        line.cut("read_heads", 5)
        told = await client.until_type("error")
        assert (told["id"], told["code"]) == (None, "database_unavailable")
        while line.calls.count("read_heads") < polls + 10:
            client.send(type="ping", id="p")
            await client.until_type("pong")
        assert sum(frame["type"] == "error" for frame in client.frames) == 1
        await client.run("and on", agent="echo", thread_id=first[0]["thread_id"])


async def test_a_closed_connection_leaves_no_subscription(start_service: StartService) -> None:
    service = await start_service()
    async with peer(service) as client:
        await client.run("hi", agent="echo")
    assert service.feed is not None
    assert list(service.feed.buffered()) == []


def test_a_broker_keeps_no_entry_for_a_thread_without_followers() -> None:
    class Deaf:
        def push(self, batch: Batch) -> None:
            raise AssertionError("nobody is told")

    broker, key = LocalBroker(), ThreadKey(Principal("", "ada"), ThreadId("t"))
    listener = Deaf()
    broker.subscribe(key, listener)
    broker.unsubscribe(key, listener)
    broker.publish(key, Batch(epoch="e", after_seq=0, last_seq=1))
    assert broker._listeners == {}


async def test_a_start_follows_again_after_its_thread_got_a_new_epoch(
    start_service: StartService, database: TestDatabase
) -> None:
    service = await start_service(poll_interval_ms=20)
    async with peer(service) as client:
        first = await client.run("hi", agent="echo")
        owner = await asyncpg.connect(database.owner_url)
        await owner.execute("UPDATE agentws.thread_head SET epoch = 'other'")
        await owner.close()
        ended = await client.until_type("subscription_ended")
        assert ended["reason"] == "epoch_changed"
        again = await client.run("again", agent="echo", thread_id=first[0]["thread_id"])
        assert {event["epoch"] for event in again} == {"other"}


async def test_a_hint_of_what_is_not_there_is_not_looked_for_without_end(
    start_service: StartService, line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = LocalBroker.publish

    def publish_and_boast(self: LocalBroker, key: ThreadKey, batch: Batch) -> None:
        plain(self, key, batch)
        plain(self, key, Batch(epoch=batch.epoch, after_seq=10**6, last_seq=10**6))

    monkeypatch.setattr(LocalBroker, "publish", publish_and_boast)
    service = await start_service(poll_interval_ms=50)
    async with peer(service) as client:
        await client.run("hi", agent="echo")
        await line.answered("read_heads", line.calls.count("read_heads") + 3)
        assert line.calls.count("read_events") < 20
