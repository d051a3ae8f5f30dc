"""Who reads a thread's past while it is folded, or removed by age, holds it whole or is told to begin anew."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import asyncpg
import httpx
import pytest

import agentws
from agentws.app import Service, create_app
from agentws.client.reader import Event
from agentws.client.session import Output, Reset, Session
from agentws.core.context import Principal
from agentws.feed import feed
from agentws.ports import ThreadKey
from agentws.runtime import folder
from agentws.runtime.folder import Folder
from agentws.store.journal import PgJournal
from agentws.store.nodes import PgNodes
from agentws.store.pool import Database
from agentws.store.retention import PgRetention
from agentws.wire.ids import ThreadId

from .conftest import StartService, TestDatabase
from .faults import Line
from .histories import Reader
from .peers import Peer, peer
from .test_feed import dense

ADA = Principal("", "ada")


async def dig(run: agentws.Run) -> None:
    """Events enough to be folded: a tool tells how far it is 30 times, and an answer follows."""

    async def digs() -> None:
        for step in range(30):
            await run.progress(step / 30, f"{step}")

    for number in range(int(run.text)):
        await run.think(f"hole {number}")
        await run.call_tool("dig", digs)
        await run.write(f"dug {number} ")


async def chat(run: agentws.Run) -> None:
    """Pieces of an answer, so far from each other that each is an event of its own."""
    for number in range(60):
        await run.write(f"{number} ".ljust(270, "ä"))
        await asyncio.sleep(0.01)


@pytest.fixture
async def database_of(database: TestDatabase) -> AsyncIterator[Database]:
    pool = Database(database.url, size=2, timeout_s=20)
    await pool.open(wait_s=20)
    yield pool
    await pool.close()


def in_the_middle(monkeypatch: pytest.MonkeyPatch, act: Callable[[], Awaitable[object]]) -> list[int]:
    """Small pages, between the second and the third of which something is done; tells how many were read."""
    monkeypatch.setattr(feed, "PAGE", 8)
    plain, pages = PgJournal.read_events, [0]

    async def read_events(self: PgJournal, *args: Any, **named: Any) -> Any:
        pages[0] += 1
        if pages[0] == 3:
            await act()
        return await plain(self, *args, **named)

    monkeypatch.setattr(PgJournal, "read_events", read_events)
    return pages


def events_of(client: Peer) -> list[dict[str, Any]]:
    return [frame for frame in client.frames if "event_id" in frame]


async def replay(client: Peer, thread_id: str, after_seq: int = 0, **fields: Any) -> list[dict[str, Any]]:
    client.frames.clear()
    client._taken = 0
    client.send(type="subscribe", thread_id=thread_id, after_seq=after_seq, **fields)
    await client.until_type("caught_up", "subscription_ended")
    return events_of(client)


async def test_a_service_folds_what_has_ended_and_tells_the_same(
    start_service: StartService, database: TestDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder, "LOOK_INTERVAL_S", 0.02)
    service = await start_service({"dig": dig})
    owner = await asyncpg.connect(database.owner_url)
    try:
        async with peer(service) as client:
            live = await client.run("3")
            thread_id = live[0]["thread_id"]
            assert await owner.fetchval("SELECT count(*) FROM agentws.event") == len(live)
            await owner.execute("UPDATE agentws.fold_queue SET waiting_since = now() - interval '10 s'")
            async with asyncio.timeout(20):
                while await owner.fetchval("SELECT count(*) FROM agentws.fold_queue"):
                    pass
            assert await owner.fetchval("SELECT count(*) FROM agentws.event") == len(live) - 3 * 29
            whole = Reader.of(live)
            assert Reader.of(await replay(client, thread_id)) == whole
            for after in range(1, len(live), 5):
                reader = Reader.of(live[:after])
                reader.read(await replay(client, thread_id, after))
                assert reader == whole
    finally:
        await owner.close()


async def test_what_is_folded_between_two_pages_is_read_on_without_a_hole(
    start_service: StartService, database_of: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    fold = Folder(PgNodes(database_of), PgRetention(database_of), age_s=0)
    service = await start_service({"dig": dig})
    async with peer(service) as client:
        live = await client.run("2")
        pages = in_the_middle(monkeypatch, fold.fold_due)
        replayed = await replay(client, live[0]["thread_id"])
        assert pages[0] > 2
        # Each number once, also those that are one event by now with others that were told before.
        for before, after in itertools.pairwise(replayed):
            assert after.get("from_seq", after["seq"]) == before["seq"] + 1
        assert Reader.of(replayed) == Reader.of(live)


async def test_a_slow_reader_of_what_is_folded_meanwhile_is_told_only_the_rest(
    start_service: StartService, database_of: Database
) -> None:
    service = await start_service({"chat": chat}, send_buffer_bytes=20_000, piece_interval_ms=0)
    async with peer(service) as client, peer(service) as other:
        accepted = await client.ask("hi")
        client.reading.clear()
        other.send(type="subscribe", thread_id=accepted["thread_id"])
        live = await other.ended(accepted["run_id"])
        await Folder(PgNodes(database_of), PgRetention(database_of), age_s=0).fold_due()
        client.reading.set()
        told = await client.ended(accepted["run_id"])
        assert any("from_seq" in event for event in told)
        # It began with pieces as they were written, of an event that begins before them by now.
        assert "from_seq" not in told[5]
        assert Reader.of(dense(told)) == Reader.of(live)


class Following:
    """A client that holds what `Session` tells it, over a connection in this process."""

    def __init__(self, client: Peer, thread_id: str, seq: int, epoch: str) -> None:
        self._client = client
        self._session = Session()
        self._session.request("subscribe", {"thread_id": thread_id, "after_seq": seq, "epoch": epoch})
        self.told: list[Output] = []
        self._read = len(client.frames)

    async def until(self, match: Callable[[Output], bool]) -> None:
        async with asyncio.timeout(20):
            while not any(match(each) for each in self.told):
                while self._session.outbox:
                    self._client.send(**json.loads(self._session.outbox.popleft()))
                await self._client.until(lambda _: True)
                for frame in self._client.frames[self._read :]:
                    self.told += self._session.receive(json.dumps(frame))
                self._read = len(self._client.frames)


def resets(told: Output) -> bool:
    return isinstance(told, Reset)


@pytest.mark.parametrize("all_of_it", [True, False])
async def test_who_is_behind_what_is_removed_begins_anew_with_what_is_left(
    start_service: StartService, database: TestDatabase, database_of: Database, monkeypatch: pytest.MonkeyPatch,
    all_of_it: bool,
) -> None:  # fmt: skip
    service = await start_service({"dig": dig}, poll_interval_ms=20)
    owner = await asyncpg.connect(database.owner_url)
    try:
        async with peer(service) as client:
            live = await client.run("2")
            thread_id, epoch = live[0]["thread_id"], live[0]["epoch"]
            kept = len(live) if all_of_it else len(live) - 10
            await owner.execute("UPDATE agentws.event SET at = at - interval '1 day' WHERE seq <= $1", kept)
            key = ThreadKey(ADA, ThreadId(thread_id))
            in_the_middle(monkeypatch, lambda: PgRetention(database_of).remove_aged(key, older_than_s=3600, limit=1000))
            client.send(type="unsubscribe", thread_id=thread_id)
            await client.until_type("unsubscribed")
            following = Following(client, thread_id, 0, epoch)
            await following.until(resets)
            again = await client.run("1", thread_id=thread_id)
            await following.until(
                lambda told: isinstance(told, Event) and told.run_id == again[0]["run_id"] and told.is_terminal
            )
    finally:
        await owner.close()
    anew = next(place for place, each in enumerate(following.told) if resets(each))
    assert following.told[anew] == Reset(thread_id, epoch, kept)
    reader = [each for each in following.told[anew:] if isinstance(each, Event)]
    assert [n for each in reader for n in range(each.first, each.seq + 1)] == list(
        range(kept + 1, again[-1]["seq"] + 1)
    )


async def test_a_page_that_retention_overtook_says_where_it_begins(
    start_service: StartService, database: TestDatabase, database_of: Database, line: Line
) -> None:
    service = await start_service({"dig": dig})
    owner = await asyncpg.connect(database.owner_url)
    try:
        async with peer(service) as client:
            live = await client.run("1")
        thread_id = live[0]["thread_id"]
        await owner.execute("UPDATE agentws.event SET at = at - interval '1 day' WHERE seq <= 10")
    finally:
        await owner.close()
    line.hold("read_events")
    asking = asyncio.create_task(page_of(service, thread_id))
    await line.waiting.wait()
    await PgRetention(database_of).remove_aged(ThreadKey(ADA, ThreadId(thread_id)), older_than_s=3600, limit=1000)
    line.mend()
    body = await asking
    assert (body["first_seq"], body["after_seq"], body["recovered"], body["last_seq"]) == (11, 10, False, len(live))
    assert body["events"][0].get("from_seq", body["events"][0]["seq"]) == 11
    told = await page_of(service, thread_id)
    assert told == body


async def page_of(service: Service, thread_id: str) -> dict[str, Any]:
    transport = httpx.ASGITransport(create_app(service.settings, service=service))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        answer = await client.get(f"/api/threads/{thread_id}/events", params={"user": "ada"})
    assert answer.status_code == 200
    body: dict[str, Any] = answer.json()
    return body
