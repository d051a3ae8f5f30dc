"""A thread is made once, belongs to one user, and is told, changed and listed as it is."""

import asyncio
from typing import Any

import pytest

from agentws.core.context import Principal
from agentws.wire.answers import Thread, ThreadList
from agentws.wire.ids import ThreadId, cursor_of

from .conftest import ANN, BOB, NODE, Connection, Store, T, number, piece, refusal_of, until_waiting


async def make(store: Store, *names: str, whose: Principal = ANN) -> list[Thread]:
    return [await store.threads.create(whose, ThreadId(name), number(), title=None, metadata=None) for name in names]


async def update(store: Store, *, title: str | None = None, metadata: str | None = None, thread: str = T) -> Thread:
    return await store.threads.update(ANN, ThreadId(thread), title=title, metadata=metadata)


async def page(store: Store, *, limit: int = 50, before: str | None = None) -> ThreadList:
    return await store.threads.list_page(ANN, frame_id="i", limit=limit, before=before)


async def names(store: Store) -> list[str]:
    return [thread.thread_id for thread in (await page(store)).threads]


async def pages(store: Store, limit: int) -> list[list[str]]:
    """The names on all pages."""
    told = [await page(store, limit=limit)]
    while (before := told[-1].next_before) is not None:
        told.append(await page(store, limit=limit, before=before))
    return [[thread.thread_id for thread in each.threads] for each in told]


# Made


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


# Read


async def test_a_thread_is_read_as_it_was_made(store: Store) -> None:
    made = await store.threads.create(ANN, T, number(), title="Trip", metadata='{"a":[1.50]}')
    opened = await store.threads.read(ANN, T)
    assert opened.thread == made
    assert (opened.first_seq, opened.resume_after) == (1, 0)


@pytest.mark.parametrize("whose", [BOB, Principal("acme", "ann")])
async def test_a_thread_of_another_is_not_found(store: Store, whose: Principal) -> None:
    await make(store, T, whose=whose)
    assert await refusal_of(store.threads.read(ANN, T)) == "thread_not_found"
    assert await refusal_of(update(store, title="x")) == "thread_not_found"
    assert await names(store) == []
    assert (await store.threads.read(whose, T)).thread.title is None


async def test_a_follower_resumes_before_the_oldest_run_that_has_not_ended(store: Store) -> None:
    async def told() -> tuple[int, int, str | None]:
        opened = await store.threads.read(ANN, T)
        return opened.resume_after, opened.thread.last_seq, opened.thread.running_run_id

    first = await store.claimed()
    await store.append(first, 2, piece("x"))
    assert await told() == (0, 2, first.run_id)
    waiting = await store.accept()
    await store.accept()
    second = (await store.finish(first, first=3, owner=NODE)).next
    assert second is not None
    # From the number before it was queued.
    assert await told() == (waiting.seq, 6, waiting.run_id)
    await store.starts.stop(ANN, run_id=None, run_no=None, thread_id=T, reason="user")
    assert await told() == (waiting.seq, 7, waiting.run_id)
    await store.finish(second, first=3, stopped=True)
    assert await told() == (8, 8, None)


async def test_runs_that_wait_in_an_idle_thread_are_resumed_from_too(store: Store) -> None:
    await store.accept(new=True)
    opened = await store.threads.read(ANN, T)
    assert (opened.resume_after, opened.thread.last_seq, opened.thread.running_run_id) == (0, 1, None)


# Changed


async def test_what_is_given_replaces_the_whole_old_value_and_the_rest_stays(store: Store) -> None:
    made = await store.threads.create(ANN, T, number(), title="Trip", metadata='{"a": 1, "b": 2}')
    steps: list[tuple[dict[str, Any], tuple[str | None, str]]] = [
        ({"title": "Journey"}, ("Journey", '{"a": 1, "b": 2}')),
        ({"metadata": '{"c": 3}'}, ("Journey", '{"c": 3}')),
        ({"title": ""}, (None, '{"c": 3}')),
        ({}, (None, '{"c": 3}')),
        ({"title": "End", "metadata": "{}"}, ("End", "{}")),
    ]
    before = made
    for given, expected in steps:
        changed = await update(store, **given)
        assert changed.metadata is not None
        assert (changed.title, bytes(changed.metadata).decode()) == expected
        assert (changed.created_at, changed.epoch, changed.last_seq) == (made.created_at, made.epoch, 0)
        assert changed.updated_at >= before.updated_at
        assert (await store.threads.read(ANN, T)).thread == changed
        before = changed


async def test_a_thread_is_changed_while_a_run_is_at_work(store: Store) -> None:
    claim = await store.claimed()
    assert (await update(store, title="T")).running_run_id == claim.run_id
    await store.finish(claim)
    assert (await store.threads.read(ANN, T)).thread.title == "T"


async def test_two_changes_at_once_are_both_kept(store: Store, owner: Connection) -> None:
    await make(store, T)
    async with owner.transaction():
        await owner.execute("SELECT FROM agentws.thread_head FOR UPDATE")
        both = [asyncio.ensure_future(update(store, **given)) for given in ({"title": "T"}, {"metadata": "{}"})]
        await until_waiting(owner, 2)
    await asyncio.gather(*both)
    thread = (await store.threads.read(ANN, T)).thread
    assert thread.metadata is not None
    assert (thread.title, bytes(thread.metadata)) == ("T", b"{}")


# Listed


async def test_the_thread_that_was_changed_last_comes_first(store: Store) -> None:
    await make(store, "t", "u", "v")
    assert await names(store) == ["v", "u", "t"]
    await update(store, title="x", thread="u")
    assert await names(store) == ["u", "v", "t"]
    claim = await store.claimed(thread="t", new=False)
    assert await names(store) == ["t", "u", "v"]
    await update(store, title="y", thread="v")
    await store.append(claim, 2, piece("x"))
    assert await names(store) == ["v", "t", "u"]
    await store.finish(claim, first=3)
    assert await names(store) == ["t", "v", "u"]


async def test_a_list_tells_each_thread_as_it_is(store: Store) -> None:
    claim = await store.claimed()
    await store.threads.create(ANN, ThreadId("u"), number(), title="U", metadata="{}")
    told = await page(store)
    assert (told.id, told.next_before) == ("i", None)
    assert told.threads == [(await store.threads.read(ANN, ThreadId(name))).thread for name in ("u", "t")]
    assert told.threads[1].running_run_id == claim.run_id


@pytest.mark.parametrize("limit", [1, 2, 3, 6, 7, 8, 200])
@pytest.mark.parametrize("same_time", [False, True])
async def test_pages_hold_each_thread_once_also_those_of_one_time(
    store: Store, owner: Connection, limit: int, same_time: bool
) -> None:
    made = [f"t{number}" for number in range(7)]
    await make(store, *made)
    if same_time:
        await owner.execute("UPDATE agentws.thread_head SET updated_at = '2030-01-02 03:04:05.678901+00'")
    told = await pages(store, limit)
    assert [each for names in told for each in names] == made[::-1]
    assert [len(names) for names in told[:-1]] == [limit] * (len(told) - 1)
    assert told[-1]


async def test_threads_that_change_meanwhile_take_no_others_place(store: Store) -> None:
    await make(store, *(f"t{number}" for number in range(6)))
    first = await page(store, limit=2)
    await update(store, title="x", thread="t3")
    await store.threads.delete(ANN, ThreadId("t2"))
    await make(store, "new")
    second = await page(store, limit=9, before=first.next_before)
    assert [thread.thread_id for thread in second.threads] == ["t1", "t0"]


async def test_an_empty_list_has_no_next_page(store: Store) -> None:
    await make(store, T, whose=BOB)
    told = await page(store, limit=1)
    assert (told.threads, told.next_before) == ([], None)


@pytest.mark.parametrize(("place", "all_of_them"), [((0, 0), False), (((1 << 63) - 1, (1 << 63) - 1), True)])
async def test_a_cursor_of_another_list_is_a_place_in_time(
    store: Store, place: tuple[int, int], all_of_them: bool
) -> None:
    await make(store, "t", "u")
    assert len((await page(store, before=cursor_of(*place))).threads) == (2 if all_of_them else 0)
