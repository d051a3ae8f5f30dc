"""Starts that meet at one instant: copies of one, and two with one number."""

import asyncio
from dataclasses import replace

from .conftest import ANN, NODE, Connection, Store, T, until_waiting, wanted


async def test_a_copy_of_a_start_with_its_run_id_is_told_so_also_while_both_wait(
    store: Store, owner: Connection
) -> None:
    await store.claimed()
    async with owner.transaction():
        await owner.execute("SELECT 1 FROM agentws.thread_head FOR UPDATE")
        copies = [asyncio.ensure_future(store.accept(run_id="r1", key="k", content="c", owner=NODE)) for _ in range(2)]
        await until_waiting(owner, 2)
    accepted = await asyncio.gather(*copies)
    assert sorted(each.duplicate for each in accepted) == [False, True]
    assert {each.run_id for each in accepted} == {"r1"}


async def test_a_number_that_is_taken_is_replaced(store: Store) -> None:
    first = wanted(T, new=True)
    await store.starts.accept(ANN, first)
    second = replace(wanted("u", new=True), run_no=first.run_no)
    accepted = await store.starts.accept(ANN, second)
    assert accepted.run_no != first.run_no
    assert not accepted.duplicate
