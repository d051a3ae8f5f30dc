"""A thread is made once and belongs to one user."""

import asyncio

from agentws.wire.ids import ThreadId, ThreadNo, new_number

from .conftest import ANN, BOB, NODE, Connection, Store, T, until_waiting


def number() -> ThreadNo:
    return ThreadNo(new_number())


async def test_a_new_thread_is_empty_and_has_what_it_was_given(store: Store) -> None:
    thread = await store.threads.create(ANN, T, number(), title="Trip", metadata='{"colour": "red"}')
    assert (thread.thread_id, thread.title, thread.last_seq, thread.running_run_id) == (T, "Trip", 0, None)
    assert thread.metadata is not None
    assert bytes(thread.metadata) == b'{"colour": "red"}'
    assert thread.created_at == thread.updated_at
    assert thread.epoch
    assert await store.events() == []


async def test_a_thread_needs_neither_title_nor_metadata(store: Store) -> None:
    thread = await store.threads.create(ANN, T, number(), title=None, metadata=None)
    assert (thread.title, thread.metadata) == (None, None)


async def test_making_a_thread_again_leaves_it_as_it_is(store: Store, owner: Connection) -> None:
    first = await store.threads.create(ANN, T, number(), title="Trip", metadata="{}")
    again = await store.threads.create(ANN, T, number(), title="Other", metadata='{"a": 1}')
    assert again == first
    assert await owner.fetchval("SELECT count(*) FROM agentws.thread") == 1


async def test_a_thread_made_by_a_start_is_found_with_its_numbers_and_its_running_run(store: Store) -> None:
    claim = await store.claimed()
    thread = await store.threads.create(ANN, T, number(), title="Trip", metadata=None)
    assert (thread.epoch, thread.last_seq, thread.running_run_id) == (claim.epoch, 1, claim.run_id)
    assert thread.title is None
    await store.finish(claim)
    thread = await store.threads.create(ANN, T, number(), title=None, metadata=None)
    assert (thread.last_seq, thread.running_run_id) == (2, None)


async def test_two_who_make_one_thread_at_once_get_the_same(store: Store, owner: Connection) -> None:
    async with owner.transaction():
        await owner.execute("LOCK TABLE agentws.thread_head")
        both = [
            asyncio.ensure_future(store.threads.create(ANN, T, number(), title=title, metadata=None))
            for title in ("one", "two")
        ]
        await until_waiting(owner, 2)
    one, two = await asyncio.gather(*both)
    assert one == two
    assert await owner.fetchval("SELECT count(*) FROM agentws.thread") == 1


async def test_two_users_threads_of_one_name_are_two(store: Store) -> None:
    anns = await store.threads.create(ANN, T, number(), title="Ann's", metadata=None)
    bobs = await store.threads.create(BOB, T, number(), title="Bob's", metadata=None)
    assert (anns.title, bobs.title) == ("Ann's", "Bob's")
    assert anns.epoch != bobs.epoch
    await store.accept(ANN, owner=NODE)
    assert await store.events(BOB) == []


async def test_the_inner_number_of_a_thread_is_taken_from_its_first_making(store: Store, owner: Connection) -> None:
    first = number()
    await store.threads.create(ANN, T, first, title=None, metadata=None)
    await store.threads.create(ANN, ThreadId("u"), number(), title=None, metadata=None)
    await store.threads.create(ANN, T, number(), title=None, metadata=None)
    assert await owner.fetchval("SELECT thread_no FROM agentws.thread_head WHERE thread_id = 't'") == first
