"""What becomes of starts, and of ends, whose thread is deleted before they are answered, or made."""

import asyncio
from dataclasses import replace

import asyncpg
import pytest

from agentws.wire.errors import Fault
from agentws.wire.ids import ThreadNo, new_number

from ..conftest import TestDatabase
from .conftest import ANN, NODE, Connection, Store, T, Wire, until_waiting, wanted


@pytest.mark.parametrize("made_anew", [False, True])
@pytest.mark.parametrize("new", [False, True])
@pytest.mark.parametrize("key", [None, "k"])
async def test_a_start_whose_answer_is_lost_was_accepted_also_where_its_thread_is_gone(
    far_store: Store, store: Store, wire: Wire, owner: Connection, key: str | None, new: bool, made_anew: bool
) -> None:
    async def delete() -> None:
        deleted = await store.threads.delete(ANN, T)
        epochs.append(deleted.epoch)
        if made_anew:
            await store.threads.create(ANN, T, ThreadNo(new_number()), title=None, metadata=None)

    epochs: list[str] = []
    if not new:
        await store.threads.create(ANN, T, ThreadNo(new_number()), title=None, metadata=None)
    wire.lose_answers, wire.on_loss = 1, delete
    accepted = await far_store.accept(new=new, owner=NODE, key=key, run_id="mine")
    assert (accepted.run_id, accepted.status, accepted.seq, accepted.position) == ("mine", "stopped", 0, 0)
    assert (accepted.thread_exists, accepted.claim, accepted.duplicate) == (False, None, False)
    assert [accepted.epoch] == epochs
    assert await owner.fetchval("SELECT count(*) FROM agentws.run") == 1


async def test_a_thread_that_a_start_made_and_that_was_deleted_is_not_made_again_by_the_next(store: Store) -> None:
    reserved = wanted(T, new=True)
    await store.starts.accept(ANN, reserved)
    await store.threads.delete(ANN, T)
    with pytest.raises(Fault, match="thread_not_found"):
        await store.starts.accept(ANN, replace(wanted(T), thread_no=reserved.thread_no))


async def test_an_end_whose_answer_is_lost_was_written_also_where_the_next_run_is_being_deleted(
    store: Store, owner: Connection, database: TestDatabase
) -> None:
    claim = await store.claimed()
    await store.accept()
    first = await store.finish(claim, owner=NODE)
    assert first.next is not None
    deleter = await asyncpg.connect(database.owner_url)
    try:
        async with deleter.transaction():
            await deleter.execute("SELECT * FROM agentws.delete_thread('', 'ann', $1, '{}')", T)
            repeated = asyncio.ensure_future(store.finish(claim, owner=NODE))
            await until_waiting(owner, 1)
        again = await repeated
    finally:
        await deleter.close()
    assert (again.last_seq, again.skipped, again.next) == (first.last_seq, 1, None)
