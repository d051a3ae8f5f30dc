"""What nothing was heard of is found by one look at all threads that are followed, so many in a call, and at once where
somebody says that hints were missed."""

import asyncio
from typing import Any

import pytest

from agentws.broker.local import LocalBroker
from agentws.core.replay import Batch
from agentws.feed import feed as module
from agentws.ports import StoreUnavailable, ThreadKey
from agentws.store.journal import PgJournal

from .conftest import StartService
from .faults import Line
from .peers import Peer, peer

HOUR_MS = 3_600_000.0


async def follow(client: Peer, *thread_ids: str) -> None:
    for thread_id in thread_ids:
        client.send(type="create_thread", thread_id=thread_id)
        client.send(type="subscribe", thread_id=thread_id)
        await client.until_type("caught_up")


@pytest.fixture
def deaf(monkeypatch: pytest.MonkeyPatch) -> None:
    """No hint reaches anybody."""

    def publish(self: LocalBroker, key: ThreadKey, batch: Batch) -> None:
        """Tells nobody."""

    monkeypatch.setattr(LocalBroker, "publish", publish)


async def test_all_threads_are_asked_for_so_many_in_a_call_and_one_that_fails_does_not_keep_the_others(
    start_service: StartService, deaf: None, line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = PgJournal.read_ends
    chunks: list[int] = []

    async def read_ends(self: PgJournal, followed: Any) -> Any:
        chunks.append(len(followed))
        if any(key.thread_id == "t0" for key, _ in followed):
            raise StoreUnavailable("this part is not answered")
        return await plain(self, followed)

    service = await start_service(poll_interval_ms=HOUR_MS)
    async with peer(service) as client:
        await follow(client, *(f"t{number}" for number in range(7)))
        monkeypatch.setattr(module, "THREADS_A_CALL", 3)
        monkeypatch.setattr(PgJournal, "read_ends", read_ends)
        runs = [await client.ask("hi", agent="echo", thread_id=f"t{number}") for number in range(7)]
        await line.answered("append", 7)
        assert service.feed is not None
        service.feed.reconcile()
        async with asyncio.timeout(20):
            ended = 0
            while ended < 4:
                await client.until_type("agent_completed")
                ended += 1
        assert chunks[:3] == [3, 3, 1]
        assert not any(frame["type"] == "agent_completed" and frame["thread_id"] == "t0" for frame in client.frames)
        # A look that was not answered in all its parts is made again soon, not after the interval.
        monkeypatch.setattr(PgJournal, "read_ends", plain)
        for run in runs:
            await client.ended(run["run_id"])
        assert [frame["code"] for frame in client.frames if frame["type"] == "error"] == ["database_unavailable"]


async def test_a_look_that_is_asked_for_during_another_is_made_after_it(
    start_service: StartService, deaf: None, line: Line
) -> None:
    service = await start_service(poll_interval_ms=HOUR_MS)
    assert service.feed is not None
    async with peer(service) as client:
        await follow(client, "t")
        line.hold("read_heads")
        service.feed.reconcile()
        await line.waiting.wait()
        for _ in range(5):
            service.feed.reconcile()
        line.mend()
        await line.answered("read_heads", 2)
        run = await client.ask("hi", agent="echo", thread_id="t")
        await line.answered("append")
        service.feed.reconcile()
        await client.ended(run["run_id"])
        assert line.calls.count("read_heads") == 3


async def test_many_who_follow_one_thread_are_asked_for_once(
    start_service: StartService, deaf: None, line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = PgJournal.read_ends
    asked: list[int] = []

    async def read_ends(self: PgJournal, followed: Any) -> Any:
        asked.append(len(followed))
        return await plain(self, followed)

    monkeypatch.setattr(PgJournal, "read_ends", read_ends)
    service = await start_service(poll_interval_ms=HOUR_MS)
    assert service.feed is not None
    async with peer(service) as one, peer(service) as two:
        for each in (one, two):
            await follow(each, "t")
        run = await one.ask("hi", agent="echo", thread_id="t")
        await line.answered("append")
        service.feed.reconcile()
        for each in (one, two):
            await each.ended(run["run_id"])
        assert asked == [1]
