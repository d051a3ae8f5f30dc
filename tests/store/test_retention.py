"""Events go when they are old, the first ones first, and no run loses any before it has ended; keys go too."""

import asyncio
import itertools
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentws.core.framing import first_of
from agentws.core.replay import restart_at
from agentws.core.run import Draft
from agentws.ports import Head, ThreadKey
from agentws.runtime import sweeper
from agentws.runtime.folder import Folder
from agentws.runtime.sweeper import Sweeper
from agentws.wire.events import EventType
from agentws.wire.ids import ThreadId, ThreadNo, new_number

from .conftest import ANN, BOB, NODE, Connection, Store, T, piece

DAY_S = 86400.0
KEY = ThreadKey(ANN, T)


async def run(store: Store, thread: str = T, *, new: bool = True, count: int = 3) -> None:
    """A run with `count` pieces that has ended."""
    claim = await store.claimed(thread=thread, new=new)
    drafts = [Draft(EventType.AGENT_MESSAGE, f'{{"text":"x","offset":{n}}}') for n in range(count)]
    await store.append(claim, 2, *drafts)
    await store.finish(claim, first=count + 2)


async def age(owner: Connection, days: float, *, upto: int = 1 << 60, thread: str = T) -> None:
    """Makes events look older, as if they had been written so long ago."""
    await owner.execute(
        "UPDATE agentws.event e SET at = at - $1::interval FROM agentws.thread_head h"
        " WHERE (h.tenant_id, h.user_id, h.thread_no) = (e.tenant_id, e.user_id, e.thread_no)"
        " AND h.thread_id = $2 AND e.seq <= $3",
        timedelta(days=days),
        thread,
        upto,
    )
    await owner.execute("UPDATE agentws.thread_head SET oldest_at = oldest_at - $1::interval", timedelta(days=days))


async def head(store: Store, thread: str = T) -> Head:
    found = await store.journal.read_head(ANN, ThreadId(thread))
    assert found is not None
    return found


async def numbers(store: Store, thread: str = T) -> list[int]:
    """The numbers that are there, each once; dense from the first to the last."""
    now = await head(store, thread)
    events = await store.records(ANN, ThreadId(thread), epoch=now.epoch, after_seq=0, limit=1000)
    covered = [n for _, record in events for n in range(first_of(record), record.seq + 1)]
    assert covered == list(range(now.first_seq, now.last_seq + 1))
    return covered


async def remove(store: Store, *, days: float = 10, limit: int = 1000) -> int:
    return await store.retention.remove_aged(KEY, older_than_s=days * DAY_S, limit=limit)


async def test_what_is_older_goes_and_what_is_not_stays(store: Store, owner: Connection) -> None:
    await run(store)
    await run(store, new=False)
    await age(owner, 20, upto=5)
    await age(owner, 5)
    assert await remove(store) == 5
    assert await numbers(store) == [6, 7, 8, 9, 10]
    assert await remove(store) == 0
    messages = (await store.threads.history(ANN, T, frame_id=None, limit=9, before=None)).messages
    assert [message.content for message in messages] == ["hello", "answer"] * 2


async def test_a_thread_that_has_lost_all_goes_on_counting(store: Store, owner: Connection) -> None:
    await run(store)
    await age(owner, 20)
    assert await remove(store) == 5
    assert ((await head(store)).first_seq, (await head(store)).last_seq) == (6, 5)
    await run(store, new=False)
    assert await numbers(store) == [6, 7, 8, 9, 10]


async def test_it_is_done_in_bounded_steps(store: Store, owner: Connection) -> None:
    await run(store, count=10)
    await age(owner, 20)
    steps = []
    while step := await remove(store, limit=5):
        steps.append(step)
        await numbers(store)
    assert steps == [5, 5, 2]


async def test_nothing_goes_of_a_run_that_has_not_ended_nor_after_its_first_event(
    store: Store, owner: Connection
) -> None:
    at_work = await store.claimed()
    await store.append(at_work, 2, piece("a"))
    waits = await store.accept()
    assert waits.seq == 2
    await age(owner, 20)
    assert await remove(store) == 0
    await store.finish(at_work, first=3)
    # The end is young, and what waits came before it.
    await age(owner, 20)
    assert await remove(store) == 2
    assert await numbers(store) == [3, 4]
    assert (await store.threads.read(ANN, T)).resume_after == 2


async def test_a_folded_event_goes_as_a_whole_with_the_last_of_it(store: Store, owner: Connection) -> None:
    await run(store, count=40)
    await age(owner, 20, upto=30)
    await Folder(store.nodes, store.retention, age_s=0).fold_due()
    assert await remove(store) == 1
    assert (await numbers(store))[0] == 2
    await age(owner, 20, upto=41)
    assert await remove(store) == 1
    assert await numbers(store) == [42]


async def test_a_clock_that_was_set_back_leaves_no_hole(store: Store, owner: Connection) -> None:
    await run(store)
    await age(owner, 20)
    await owner.execute("UPDATE agentws.event SET at = now() WHERE seq = 3")
    assert await remove(store) == 2
    assert await numbers(store) == [3, 4, 5]


async def test_whoever_held_less_starts_with_the_first_that_is_left(store: Store, owner: Connection) -> None:
    await run(store, count=10)
    await age(owner, 20, upto=6)
    await remove(store)
    now = await head(store)
    for after_seq, expected in [(0, (6, False)), (5, (6, False)), (6, (6, True)), (9, (9, True))]:
        numbers = {"first_seq": now.first_seq, "last_seq": now.last_seq}
        assert restart_at(after_seq=after_seq, epoch=now.epoch, current=now.epoch, **numbers) == expected


async def test_the_numbers_stay_dense_whatever_is_folded_and_removed(store: Store, owner: Connection) -> None:
    loop = asyncio.get_running_loop()
    names = (f"thread{n}" for n in itertools.count())

    async def examine(counts: list[int], old: int, limit: int, folds_first: bool) -> None:
        thread = next(names)
        for n, count in enumerate(counts):
            await run(store, thread, new=n == 0, count=count)
        await age(owner, 20, upto=old, thread=thread)
        steps = [
            Folder(store.nodes, store.retention, age_s=0).fold_due,
            lambda: store.retention.remove_aged(ThreadKey(ANN, ThreadId(thread)), older_than_s=10 * DAY_S, limit=limit),
        ]
        for step in (*(steps if folds_first else reversed(steps)), *steps):
            await step()
            await numbers(store, thread)
        assert (await head(store, thread)).first_seq <= old + 1

    @settings(database=None, deadline=None, max_examples=25, suppress_health_check=list(HealthCheck))
    @given(
        st.lists(st.integers(0, 25), min_size=1, max_size=3),
        st.integers(0, 80),
        st.integers(1, 30),
        st.booleans(),
    )
    def check(counts: list[int], old: int, limit: int, folds_first: bool) -> None:
        asyncio.run_coroutine_threadsafe(examine(counts, old, limit, folds_first), loop).result()

    await asyncio.to_thread(check)


async def test_a_sweep_finds_old_events_of_all_users_and_looks_at_no_other_thread_again(
    store: Store, owner: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeper, "_MOST_THREADS", 2)
    monkeypatch.setattr(sweeper, "_MOST_EVENTS", 2)
    monkeypatch.setattr(sweeper, "_PAUSE_S", 0.0)
    for whose, thread in itertools.product((ANN, BOB), ("a", "b", "c")):
        claim = await store.claimed(whose, thread)
        await store.finish(claim)
    await store.threads.create(ANN, ThreadId("empty"), ThreadNo(new_number()), title=None, metadata=None)
    for thread in ("a", "c"):
        await age(owner, 20, thread=thread)
    # What a schema that did not know of it left.
    await owner.execute("UPDATE agentws.thread_head SET oldest_at = '-infinity'")
    aged, last = await store.nodes.find_aged(None, older_than_s=10 * DAY_S, limit=99)
    assert (len(aged), last) == (6, ThreadKey(BOB, ThreadId("c")))
    sweep = Sweeper(store.nodes, store.retention, keep_s=10 * DAY_S)
    assert await sweep.sweep() == 2 * 2 * 2
    rows = await owner.fetch("SELECT thread_id, first_seq FROM agentws.thread_head ORDER BY user_id, thread_id")
    assert [tuple(row) for row in rows] == [
        *[("a", 3), ("b", 1), ("c", 3), ("empty", 1)],
        *[("a", 3), ("b", 1), ("c", 3)],
    ]
    aged, last = await store.nodes.find_aged(None, older_than_s=10 * DAY_S, limit=99)
    assert (aged, last) == ([], ThreadKey(BOB, ThreadId("c")))
    assert await store.nodes.find_aged(last, older_than_s=0, limit=99) == ([], None)
    assert await sweep.sweep() == 0


async def test_old_keys_go_in_bounded_steps_and_young_ones_stay(store: Store, owner: Connection) -> None:
    for n in range(5):
        await store.accept(key=f"k{n}", new=n == 0)
    await owner.execute(
        "UPDATE agentws.start_key SET created_at = now() - interval '3 days' WHERE idempotency_key < 'k3'"
    )
    steps = [await store.nodes.purge_keys(older_than_s=2 * DAY_S, limit=2) for _ in range(3)]
    assert steps == [2, 1, 0]
    assert (await store.accept(key="k3", owner=NODE)).duplicate
    # Long forgotten: it is a start of its own.
    assert not (await store.accept(key="k0", content="other")).duplicate
