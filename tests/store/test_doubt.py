"""Calls that end in doubt at the wire: they took effect, or never came, or come after their repetition; each counts."""

import asyncio
import random
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from agentws.core.run import Draft
from agentws.ports import StoreUnavailable
from agentws.store.pool import Database
from agentws.wire.events import EventType
from scripts.chaos.pgproxy import Doubt, PgProxy

from ..conftest import LOGIN, TestDatabase
from .conftest import ANN, LIMIT_S, NODE, Connection, Store, piece, until_waiting

KINDS = list(Doubt)


@pytest.fixture
async def proxy(database: TestDatabase) -> AsyncIterator[PgProxy]:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    target = Path(parse_qs(urlsplit(database.url).query)["host"][0]) / ".s.PGSQL.5432"
    made = PgProxy(port, target, random.Random(1))
    await made.start()
    yield made
    await made.close()


@pytest.fixture
async def doubtful(proxy: PgProxy, database: TestDatabase) -> AsyncIterator[Store]:
    """The store over a line that breaks."""
    pool = Database(f"postgresql://{LOGIN}@127.0.0.1:{proxy.port}/{database.name}", size=4, timeout_s=LIMIT_S)
    await pool.open(wait_s=LIMIT_S)
    yield Store.over(pool)
    await pool.close()


@pytest.mark.parametrize("doubt", KINDS)
@pytest.mark.parametrize("thread_is_new", [True, False])
async def test_a_start_in_doubt_is_accepted_once(
    proxy: PgProxy, doubtful: Store, store: Store, doubt: Doubt, thread_is_new: bool
) -> None:
    await store.accept(new=True)
    for turn in range(3):
        thread = f"new-{turn}" if thread_is_new else "t"
        proxy.doubt("accept", doubt)
        accepted = await doubtful.accept(thread=thread, new=thread_is_new, key=f"{doubt}{turn}", owner=NODE)
        assert not accepted.duplicate
        again = await doubtful.accept(thread=thread, new=thread_is_new, key=f"{doubt}{turn}", owner=NODE)
        assert (again.duplicate, again.run_id) == (True, accepted.run_id)
        events = await store.events(thread=thread)
        assert [seq for seq, _, _ in events] == list(range(1, len(events) + 1))
        assert [run_id for _, _, run_id in events].count(accepted.run_id) == 1


async def test_a_start_in_doubt_beside_its_copy_is_one(
    proxy: PgProxy, doubtful: Store, store: Store, owner: Connection
) -> None:
    await store.accept(new=True)
    async with owner.transaction():
        await owner.execute("SELECT FROM agentws.thread_head FOR UPDATE")
        first = asyncio.ensure_future(store.accept(key="k"))
        await until_waiting(owner, 1)
        # Asked for as often as what is not answered may be, it meets the other one at last.
        proxy.doubt("accept", Doubt.UNSENT)
        proxy.doubt("accept", Doubt.UNSENT)
        second = asyncio.ensure_future(doubtful.accept(key="k"))
        await until_waiting(owner, 2)
    assert [(each.duplicate, each.run_id) for each in (await first, await second)] == [
        (False, (await first).run_id),
        (True, (await first).run_id),
    ]


@pytest.mark.parametrize("doubt", KINDS)
async def test_events_in_doubt_are_written_once(proxy: PgProxy, doubtful: Store, store: Store, doubt: Doubt) -> None:
    claim = await store.claimed()
    journal = doubtful.journal
    for first in range(2, 12, 2):
        proxy.doubt("append", doubt)
        drafts = [piece(f"<{first}>"), Draft(EventType.AGENT_EVENT, '{"name":"a.b","value":1}')]
        # As the recorder does: the same call, until it is answered.
        while True:
            try:
                appended = await journal.append(
                    claim, first, drafts, attempt=1, ending=None, next_owner=None, agents=()
                )
            except StoreUnavailable:
                continue
            break
        assert appended.last_seq == first + 1
    events = await store.events()
    assert [seq for seq, _, _ in events] == list(range(1, 12))
    assert [kind for _, kind, _ in events] == ["agent_started", *["agent_message", "agent_event"] * 5]


@pytest.mark.parametrize("doubt", KINDS)
async def test_an_end_in_doubt_is_written_once_and_the_next_run_claimed_once(
    proxy: PgProxy, doubtful: Store, store: Store, doubt: Doubt
) -> None:
    claim = await store.claimed()
    waiting = await store.accept()
    proxy.doubt("append", doubt)
    while True:
        try:
            ended = await doubtful.finish(claim, owner=NODE)
        except StoreUnavailable:
            continue
        break
    assert ended.next is not None
    assert ended.next.run_id == waiting.run_id
    kinds = [kind for _, kind, _ in await store.events()]
    assert kinds == ["agent_started", "agent_queued", "agent_completed", "agent_started"]
    messages = await store.threads.history(ANN, claim.thread_id, frame_id=None, limit=10, before=None)
    assert [message.role for message in messages.messages] == ["user", "assistant", "user"]
