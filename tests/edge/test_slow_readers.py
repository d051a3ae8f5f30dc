"""A slow reader is held a bounded number of bytes for, gets everything in order, and nobody else notices."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import agentws
from agentws.app import Service
from agentws.edge.connection import Connection
from agentws.store.journal import PgJournal

from ..conftest import StartService
from ..peers import Peer, peer

BUDGET = 20_000
THREADS = 10
THOUGHTS = 40


async def muse(run: agentws.Run) -> None:
    """Says 40 KB in events of 1 KB."""
    for number in range(THOUGHTS):
        await run.think(f"{number} ".ljust(1000, "ä" if number % 2 else "x"))


async def huge(run: agentws.Run) -> None:
    await run.write("ä" * 500_000)


AGENTS = {"muse": muse, "huge": huge}
LARGEST = 2_500


@pytest.mark.parametrize("busy", [False, True])
async def test_the_answer_to_a_start_comes_before_the_events_of_its_run_also_to_a_slow_reader(
    service: Service, busy: bool
) -> None:
    async with peer(service) as client, peer(service) as other:
        client.send(type="create_thread", thread_id="t")
        client.send(type="subscribe", thread_id="t")
        await client.until_type("caught_up")
        client.reading.clear()
        client.send(type="ping")
        # Its events wait to be sent before the answer is made.
        first = await other.ask("hi", agent="slow" if busy else "echo", thread_id="t")
        if not busy:
            await other.ended(first["run_id"])
        client.send(type="user_message", content="hi", agent="echo", thread_id="t", run_id="mine")
        await other.until(lambda frame: frame.get("run_id") == "mine")
        client.reading.set()
        if busy:
            other.send(type="stop_agent", run_id=first["run_id"])
        await client.ended("mine")
        of_mine = [frame["type"] for frame in client.frames if frame.get("run_id") == "mine"]
        assert of_mine[0] == "request_accepted"
        seqs = [frame["seq"] for frame in client.frames if "event_id" in frame]
        assert seqs == [*range(1, len(seqs) + 1)]


class Held:
    """The most that a connection held, looked at in each step of the loop."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.most = 0

    @property
    def now(self) -> int:
        return self._connection.buffered

    async def watch(self) -> None:
        while True:
            self.most = max(self.most, self._connection.buffered)
            await asyncio.sleep(0)


@contextmanager
def held(service: Service, client: Peer) -> Iterator[Held]:
    connection_id = client.frames[0]["connection_id"]
    [connection] = [each for each in service.connections if each.connection_id == connection_id]
    watched = Held(connection)
    task = asyncio.get_running_loop().create_task(watched.watch())
    yield watched
    task.cancel()


async def follow_threads(client: Peer, count: int = THREADS) -> list[str]:
    names = [f"t{number}" for number in range(count)]
    for name in names:
        client.send(type="create_thread", thread_id=name)
        client.send(type="subscribe", thread_id=name)
        await client.until_type("caught_up")
    return names


def seqs(client: Peer, thread_id: str) -> list[int]:
    """The numbers that came of a thread."""
    return [frame["seq"] for frame in client.frames if "event_id" in frame and frame["thread_id"] == thread_id]


async def run_all(client: Peer, names: list[str], agent: str = "muse") -> None:
    for name in names:
        await client.run("hi", agent=agent, thread_id=name)


async def while_served(other: Peer, condition: Callable[[], bool]) -> None:
    """Waits as long as a condition holds; another connection is served meanwhile."""
    async with asyncio.timeout(20):
        while condition():
            other.send(type="list_threads")
            await other.until_type("thread_list")


async def test_all_that_a_connection_follows_shares_one_budget(start_service: StartService) -> None:
    service = await start_service(AGENTS, send_buffer_bytes=BUDGET, pool_size=8)
    async with peer(service) as slow, peer(service) as fast:
        names = await follow_threads(slow)
        with held(service, slow) as bytes_held:
            slow.reading.clear()
            # The others do not notice.
            await run_all(fast, names)
            assert BUDGET < bytes_held.most <= BUDGET + LARGEST
            slow.reading.set()
            last = THOUGHTS + 2
            for _ in names:
                await slow.until_type("agent_completed")
            assert bytes_held.most <= BUDGET + LARGEST
        for name in names:
            assert seqs(slow, name) == seqs(fast, name) == [*range(1, last + 1)]
        assert bytes_held.now == 0


async def test_threads_that_are_behind_at_once_are_read_a_page_at_a_time_and_in_turns(
    start_service: StartService, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = await start_service(AGENTS, send_buffer_bytes=BUDGET, pool_size=8)
    plain, at_once, most_at_once = PgJournal.read_events, 0, 0

    async def counted(self: PgJournal, *args: Any, **kwargs: Any) -> Any:
        nonlocal at_once, most_at_once
        at_once += 1
        most_at_once = max(most_at_once, at_once)
        try:
            return await plain(self, *args, **kwargs)
        finally:
            at_once -= 1

    async with peer(service) as writer:
        names = await follow_threads(writer)
        await run_all(writer, names)
    monkeypatch.setattr(PgJournal, "read_events", counted)
    async with peer(service) as client, peer(service) as other:
        client.reading.clear()
        for name in names:
            client.send(type="subscribe", thread_id=name)
        feed = service.feed
        await while_served(other, lambda: feed is None or feed.subscriptions < THREADS)
        client.reading.set()
        for _ in names:
            await client.until_type("caught_up")
        assert most_at_once == 1
        first, last = (
            [place for place, frame in enumerate(client.frames) if "event_id" in frame and frame["thread_id"] == name]
            for name in (names[0], names[-1])
        )
        assert last[0] < first[-1]


async def test_an_event_larger_than_the_budget_goes_through(start_service: StartService) -> None:
    service = await start_service(AGENTS, send_buffer_bytes=BUDGET)
    async with peer(service) as slow, peer(service) as fast:
        names = await follow_threads(slow, 3)
        with held(service, slow) as bytes_held:
            slow.reading.clear()
            await run_all(fast, names, "huge")
            slow.reading.set()
            for _ in names:
                await slow.until_type("agent_completed")
            # One of them at a time: the text is 1 MB in UTF-8.
            assert 1_000_000 < bytes_held.most < 1_100_000
        for name in names:
            texts = [frame["payload"]["text"] for frame in slow.frames if frame["type"] == "agent_message"]
            assert "".join(texts) == "ä" * 500_000 * len(names)
            assert seqs(slow, name) == seqs(fast, name)


async def test_who_unsubscribes_while_behind_is_held_nothing_for(start_service: StartService) -> None:
    service = await start_service(AGENTS, send_buffer_bytes=BUDGET)
    async with peer(service) as slow, peer(service) as fast:
        [name] = await follow_threads(slow, 1)
        with held(service, slow) as bytes_held:
            slow.reading.clear()
            await run_all(fast, [name])
            assert bytes_held.now > BUDGET
            slow.send(type="unsubscribe", thread_id=name)
            feed = service.feed
            await while_served(fast, lambda: feed is not None and feed.subscriptions > 1)
            # What is on its way to the socket is not taken back.
            assert bytes_held.now < BUDGET
            slow.reading.set()
            await slow.until_type("unsubscribed")


async def test_closing_is_not_held_up_by_who_does_not_read(start_service: StartService) -> None:
    service = await start_service(AGENTS, send_buffer_bytes=BUDGET)
    async with peer(service) as slow, peer(service) as fast:
        [name] = await follow_threads(slow, 1)
        slow.reading.clear()
        await run_all(fast, [name])
        service.connections.close_all(1001, "going away", within_s=0.05)
        async with asyncio.timeout(20):
            await service.connections.none_open()
        assert fast.closed_with == 1001
        assert slow.closed_with is None
        assert service.connections.buffered == 0
