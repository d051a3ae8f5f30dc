"""A new epoch changes the epoch of every thread, and nothing else of it."""

import asyncio

import pytest

from agentws.core.context import Principal
from agentws.ports import End, ThreadKey
from agentws.store import nodes
from agentws.wire.ids import ThreadId

from .conftest import ANN, BOB, NODE, Connection, Store, T, piece, until_waiting

OF_ALL = "SELECT tenant_id, user_id, thread_id, epoch FROM agentws.thread_head"
BUT_THE_EPOCH = (
    "SELECT array_agg(x.row::text ORDER BY x.row::text) FROM (SELECT to_jsonb(h) - 'epoch' AS row FROM {} h) x"
)


async def epochs(owner: Connection) -> dict[tuple[str, ...], str]:
    return {(row["tenant_id"], row["user_id"], row["thread_id"]): row["epoch"] for row in await owner.fetch(OF_ALL)}


@pytest.mark.parametrize("batch", [1, 3, 4, 12, 13, 500])
async def test_every_thread_of_every_user_gets_one_in_batches(
    store: Store, owner: Connection, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    monkeypatch.setattr(nodes, "_BATCH", batch)
    for whose in (ANN, BOB, Principal("acme", "ann"), Principal("z", "a")):
        for name in ("t", "T", "u:1"):
            await store.claimed(whose, name)
    before, rest = await epochs(owner), await owner.fetchval(BUT_THE_EPOCH.format("agentws.thread_head"))
    assert await store.nodes.new_epochs() == 12
    after = await epochs(owner)
    assert set(after) == set(before)
    assert not set(after.values()) & set(before.values())
    assert len(set(after.values())) == 12
    assert await owner.fetchval(BUT_THE_EPOCH.format("agentws.thread_head")) == rest


async def test_without_threads_there_is_nothing_to_do(store: Store) -> None:
    assert await store.nodes.new_epochs() == 0


async def test_a_run_at_work_goes_on_and_is_read_in_the_new_one_alone(store: Store) -> None:
    claim = await store.claimed()
    await store.nodes.new_epochs()
    await store.append(claim, 2, piece("x"))
    await store.finish(claim, first=3)
    assert [kind for _, kind, _ in await store.events()] == ["agent_started", "agent_message", "agent_completed"]
    assert await store.records(ANN, T, epoch=claim.epoch, after_seq=0, limit=9) == []
    head = await store.journal.read_head(ANN, T)
    assert head is not None
    key = (ThreadKey(ANN, T), claim.epoch)
    assert await store.journal.read_ends([key]) == {key: End(epoch=head.epoch, last_seq=3)}


async def test_a_repeat_is_answered_with_the_new_one(store: Store) -> None:
    first = await store.accept(new=True, key="k", owner=NODE)
    await store.nodes.new_epochs()
    head = await store.journal.read_head(ANN, T)
    assert head is not None
    repeat = await store.accept(key="k")
    assert (repeat.duplicate, repeat.epoch) == (True, head.epoch)
    assert first.epoch != head.epoch


async def test_a_thread_that_is_being_written_is_waited_for(store: Store, owner: Connection) -> None:
    claim = await store.claimed()
    await store.claimed(BOB)
    async with owner.transaction():
        await owner.execute("UPDATE agentws.thread_head SET last_seq = 7 WHERE user_id = 'ann'")
        giving = asyncio.ensure_future(store.nodes.new_epochs())
        await until_waiting(owner, 1)
    assert await giving == 2
    head = await store.journal.read_head(ANN, T)
    assert head is not None
    assert (head.last_seq, head.epoch != claim.epoch) == (7, True)


async def test_a_deleted_thread_keeps_its_own(store: Store) -> None:
    claim = await store.claimed()
    deleted = await store.threads.delete(ANN, ThreadId(claim.thread_id))
    assert await store.nodes.new_epochs() == 0
    assert len(await store.records(ANN, T, epoch=deleted.epoch, after_seq=0, limit=9)) == 2
