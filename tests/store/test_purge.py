"""What was deleted goes in bounded steps, with all that belongs to it and nothing else."""

import asyncio

import pytest

from agentws.core.run import Claim
from agentws.store.nodes import PgNodes
from agentws.store.pool import Database
from agentws.wire.ids import ThreadId

from ..conftest import TestDatabase
from .conftest import ANN, BOB, LIMIT_S, NODE, Connection, Store, T, contents, piece, until_waiting


async def fill(store: Store, *, runs: int = 3) -> Claim:
    """A thread of several runs with answers, the last at work; the first claim."""
    first = claim = await store.claimed(text="x" * 100)
    for _ in range(runs - 1):
        await store.append(claim, 2, piece("a"), piece("b"))
        await store.finish(claim, first=4)
        accepted = await store.accept(owner=NODE)
        assert accepted.claim is not None
        claim = accepted.claim
    return first


async def purge(store: Store, *, limit: int = 1000) -> list[int]:
    """Purges until nothing is left to do; how many rows each call removed."""
    removed = [await store.nodes.purge(older_than_s=0, limit=limit)]
    while removed[-1]:
        removed.append(await store.nodes.purge(older_than_s=0, limit=limit))
    return removed


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 1000])
async def test_all_rows_of_a_thread_go_in_steps_of_at_most_so_many(store: Store, owner: Connection, limit: int) -> None:
    await fill(store)
    await store.threads.delete(ANN, T)
    removed = await purge(store, limit=limit)
    # 10 events and 5 messages; the two messages of a turn go together.
    assert sum(removed) == 15
    assert max(removed) <= limit + 1
    assert {table: rows for table, rows in (await contents(owner)).items() if rows} == {}


async def test_nothing_else_goes(store: Store, owner: Connection) -> None:
    await store.claimed(BOB)
    await store.claimed(ANN, "u")
    await store.claimed(BOB, "v")
    await store.threads.delete(BOB, ThreadId("v"))
    await owner.execute("UPDATE agentws.deleted_thread SET deleted_at = deleted_at + interval '1 hour'")
    before = await contents(owner)
    await fill(store)
    await store.threads.delete(ANN, T)
    await purge(store)
    assert await contents(owner) == before


async def test_a_name_made_anew_keeps_its_own(store: Store, owner: Connection) -> None:
    await fill(store)
    await store.threads.delete(ANN, T)
    before = None
    for text in ("second", "third"):
        if before is not None:
            await store.threads.delete(ANN, T)
        await store.claimed(text=text)
        before = await store.events()
    await purge(store, limit=2)
    assert await store.events() == before
    history = await store.threads.history(ANN, T, frame_id=None, limit=9, before=None)
    assert [message.content for message in history.messages] == ["third"]
    assert await owner.fetchval("SELECT count(*) FROM agentws.run") == 1


async def test_what_was_deleted_a_moment_ago_stays_for_its_followers(store: Store) -> None:
    claim = await fill(store)
    deleted = await store.threads.delete(ANN, T)
    assert await store.nodes.purge(older_than_s=60, limit=1000) == 0
    assert len(await store.records(ANN, T, epoch=claim.epoch, after_seq=0, limit=99)) == deleted.last_seq


async def test_a_key_outlives_its_thread(store: Store) -> None:
    first = await store.accept(new=True, key="k", run_id="mine", owner=NODE)
    await store.threads.delete(ANN, T)
    await purge(store)
    repeat = await store.accept(key="k")
    assert (repeat.duplicate, repeat.run_id, repeat.status) == (True, first.run_id, "stopped")
    # Its run's id is free with its run.
    assert (await store.accept(new=True, run_id="mine")).run_id == "mine"


async def test_threads_go_the_longest_deleted_first(store: Store, owner: Connection) -> None:
    for name, age in (("t", 10), ("u", 30), ("v", 20)):
        await store.claimed(thread=name)
        await store.threads.delete(ANN, ThreadId(name))
        await owner.execute(
            "UPDATE agentws.deleted_thread SET deleted_at = deleted_at - make_interval(secs => $2)"
            " WHERE thread_id = $1",
            name,
            age,
        )
    while len(left := await owner.fetch("SELECT thread_id FROM agentws.deleted_thread")) == 3:
        await store.nodes.purge(older_than_s=0, limit=1)
    assert {row["thread_id"] for row in left} == {"t", "v"}


async def test_two_processes_purge_one_thread_together(store: Store, owner: Connection, database: TestDatabase) -> None:
    await fill(store, runs=10)
    await store.threads.delete(ANN, T)
    async with owner.transaction():
        await owner.execute("SELECT FROM agentws.deleted_thread FOR UPDATE")
        both = [asyncio.ensure_future(store.nodes.purge(older_than_s=0, limit=20)) for _ in range(2)]
        await until_waiting(owner, 2)
    assert sorted(await asyncio.gather(*both)) == [18, 20]
    other = Database(database.url, size=1, timeout_s=LIMIT_S)
    await other.open(wait_s=LIMIT_S)
    await PgNodes(other).purge(older_than_s=0, limit=20)
    await other.close()
    await purge(store)
    assert {table: rows for table, rows in (await contents(owner)).items() if rows} == {}
