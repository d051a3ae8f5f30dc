"""What the database holds of a user, and of runs that wait, is bounded; a limit of 0 is none."""

from typing import Any

import pytest

from agentws.core.context import Principal
from agentws.core.limits import RETRY_AFTER_MS, StartLimits
from agentws.store.runs import PgStarts
from agentws.store.threads import PgThreads
from agentws.wire.errors import Refusal
from agentws.wire.ids import ThreadId

from .conftest import ANN, BOB, NODE, Connection, Store, T, contents, number, refusal_of, wanted

TENANT = Principal("acme", "ann")


class Limited:
    """Starts on the store's pool within limits; by default each in a new thread, at work at once."""

    def __init__(self, store: Store, **limits: int) -> None:
        self._starts = PgStarts(store.pool, StartLimits(**limits))

    async def start(self, thread: str, whose: Principal = ANN, **how: Any) -> str:
        """The status of an accepted start."""
        start = wanted(thread, **{"new": True, "owner": NODE, **how})
        return (await self._starts.accept(whose, start)).status

    async def refused(self, thread: str, whose: Principal = ANN, **how: Any) -> str:
        return await refusal_of(self.start(thread, whose, **how))


async def thread_of(store: Store, whose: Principal, name: str, *, most: int) -> str:
    threads = PgThreads(store.pool, most=most)
    return (await threads.create(whose, ThreadId(name), number(), title=None, metadata=None)).thread_id


# Threads


async def test_a_user_who_has_as_many_threads_as_may_be_makes_no_other(store: Store, owner: Connection) -> None:
    limited = Limited(store, threads=2)
    for name in ("t", "u"):
        await limited.start(name)
    before = await contents(owner)
    assert await limited.refused("v", key="k") == "too_many_threads"
    assert await refusal_of(thread_of(store, ANN, "v", most=2)) == "too_many_threads"
    assert await contents(owner) == before


async def test_in_threads_that_are_there_everything_goes_on(store: Store) -> None:
    limited = Limited(store, threads=1)
    await limited.start("t")
    assert await thread_of(store, ANN, "t", most=1) == "t"
    assert await limited.start("t", new=False) == "queued"
    # Named by a caller that may make it, but there already.
    assert await limited.start("t") == "queued"


async def test_other_users_threads_do_not_count(store: Store) -> None:
    limited = Limited(store, threads=1)
    for whose in (ANN, BOB, TENANT):
        await limited.start("t", whose)
    assert await limited.refused("u", TENANT) == "too_many_threads"


async def test_a_deleted_thread_makes_room(store: Store) -> None:
    limited = Limited(store, threads=1)
    await limited.start("t")
    await store.threads.delete(ANN, T)
    assert await limited.start("u") == "running"


# Runs of a user


async def test_running_and_waiting_runs_of_all_threads_count(store: Store, owner: Connection) -> None:
    limited = Limited(store, runs=3)
    await limited.start("t")
    await limited.start("t", new=False)
    await limited.start("u")
    before = await contents(owner)
    assert await limited.refused("v", key="k") == "too_many_runs"
    assert await limited.refused("t", new=False) == "too_many_runs"
    assert await contents(owner) == before
    assert await limited.start("t", BOB) == "running"


async def test_a_run_that_has_ended_makes_room(store: Store) -> None:
    limited = Limited(store, runs=1)
    claim = await store.claimed()
    assert await limited.refused("u") == "too_many_runs"
    await store.finish(claim)
    assert await limited.start("u") == "running"


# Runs that wait


async def test_runs_that_wait_count_over_all_users(store: Store) -> None:
    limited = Limited(store, waiting=2)
    await limited.start("t", ANN, owner=None)
    await limited.start("t", BOB, owner=None)
    assert await limited.refused("t", TENANT, owner=None) == "overloaded"
    assert await limited.refused("t", ANN, new=False) == "overloaded"


async def test_a_start_that_need_not_wait_is_accepted_however_many_do(store: Store) -> None:
    limited = Limited(store, waiting=1)
    await limited.start("t", owner=None)
    assert await limited.start("u") == "running"
    assert await limited.refused("u", new=False) == "overloaded"


async def test_runs_at_work_are_not_waiting(store: Store) -> None:
    limited = Limited(store, waiting=1)
    for name in ("t", "u", "v"):
        await limited.start(name)
    assert await limited.start("t", new=False) == "queued"


# All


async def test_limits_of_0_are_none(store: Store) -> None:
    limited = Limited(store, threads=0, runs=0, waiting=0)
    for name in ("t", "u", "v"):
        assert await limited.start(name) == "running"
        assert await limited.start(name, new=False) == "queued"
    assert await thread_of(store, ANN, "w", most=0) == "w"


@pytest.mark.parametrize("code", ["too_many_threads", "too_many_runs", "overloaded"])
async def test_a_refusal_says_when_to_come_back(store: Store, code: str) -> None:
    limits = {"too_many_threads": {"threads": 1}, "too_many_runs": {"runs": 1}, "overloaded": {"waiting": 1}}[code]
    await store.accept(new=True)
    with pytest.raises(Refusal) as refused:
        await Limited(store, **limits).start("u", owner=None)
    assert (refused.value.code, refused.value.retry_after_ms) == (code, RETRY_AFTER_MS[code])


async def test_of_several_limits_the_first_in_the_protocols_order_is_told(store: Store) -> None:
    await store.accept(new=True)
    for limits, code in (
        ({"threads": 1, "runs": 1, "waiting": 1}, "too_many_threads"),
        ({"runs": 1, "waiting": 1}, "too_many_runs"),
        ({"waiting": 1}, "overloaded"),
    ):
        assert await Limited(store, **limits).refused("u", owner=None) == code
    limited = Limited(store, threads=1, runs=1, waiting=1)
    assert await limited.refused("u", refusal="too_many_subscriptions") == "too_many_subscriptions"


async def test_what_is_checked_before_the_limits_is_answered_first(store: Store) -> None:
    await store.accept(new=True, key="k", content="one", run_id="mine")
    limited = Limited(store, threads=1, runs=1, waiting=1)
    beyond: dict[str, Any] = {"refusal": "too_many_subscriptions"}
    for how, code in (
        ({"key": "k", "content": "two"}, "idempotency_conflict"),
        ({"new": False}, "thread_not_found"),
        ({"run_id": "mine"}, "run_id_conflict"),
        ({"run_id": "mine", "new": False}, "thread_not_found"),
        ({"run_id": "mine", "new": False, "key": "k", "content": "two"}, "idempotency_conflict"),
    ):
        assert await limited.refused("u", **beyond, **how) == code
    assert await limited.start("u", **beyond, key="k", content="one") == "queued"


async def test_a_limit_is_told_before_a_busy_thread(store: Store) -> None:
    await store.claimed()
    how: dict[str, Any] = {"new": False, "if_busy": "reject"}
    assert await Limited(store, runs=1).refused("t", **how) == "too_many_runs"
    await store.accept(thread="u", new=True)
    assert await Limited(store, waiting=1).refused("t", **how) == "overloaded"
    assert await Limited(store, runs=3, waiting=2).refused("t", **how) == "thread_busy"


async def test_a_refused_interruption_stops_nothing(store: Store) -> None:
    claim = await store.claimed()
    assert await Limited(store, runs=1).refused("t", new=False, if_busy="interrupt") == "too_many_runs"
    assert (await store.append(claim, 2)).stop_reason is None
