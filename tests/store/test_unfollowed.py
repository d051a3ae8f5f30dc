"""Runs that stop without a follower are found, the longest unfollowed first, and noted as followed."""

from agentws.core.context import Principal
from agentws.core.run import Unfollowed
from agentws.wire.ids import RunNo

from .conftest import ANN, BOB, NODE, Connection, Store, T

AGE = "UPDATE agentws.run_queue SET followed_at = followed_at - make_interval(secs => $2) WHERE run_no = $1"


async def found(store: Store, *, limit: int = 99) -> list[RunNo]:
    return [each.run_no for each in await store.nodes.find_unfollowed(limit=limit)]


async def start(store: Store, whose: Principal, thread: str, *, waits: bool = False) -> RunNo:
    owner = None if waits else NODE
    return (await store.accept(whose, thread, new=True, owner=owner, stops_unfollowed=True)).run_no


async def test_only_runs_that_stop_without_a_follower_are_found(store: Store) -> None:
    await store.claimed(ANN, "other")
    running = await start(store, ANN, "t")
    waiting = await start(store, BOB, "t", waits=True)
    assert sorted(await found(store)) == [running, waiting]
    [first, _] = await store.nodes.find_unfollowed(limit=9)
    assert (first.principal, first.thread_id, first.run_no) == (ANN, "t", running)
    assert first.idle_s >= 0


async def test_those_that_stop_already_or_have_ended_are_not(store: Store) -> None:
    stopping = await start(store, ANN, "t")
    await store.starts.stop(ANN, run_id=None, run_no=stopping, thread_id=None, reason="user")
    await store.finish(await store.claimed(thread="u", stops_unfollowed=True))
    ended = await start(store, ANN, "v", waits=True)
    await store.starts.stop(ANN, run_id=None, run_no=ended, thread_id=None, reason="user")
    assert await found(store) == []


async def test_the_longest_unfollowed_come_first_and_no_more_than_asked_for(store: Store, owner: Connection) -> None:
    runs = [await start(store, ANN, name) for name in ("t", "u", "v")]
    for run, age_s in zip(runs, (10, 30, 20), strict=True):
        await owner.execute(AGE, run, age_s)
    assert await found(store) == [runs[1], runs[2], runs[0]]
    assert await found(store, limit=2) == [runs[1], runs[2]]
    assert [each.idle_s // 10 for each in await store.nodes.find_unfollowed(limit=9)] == [3, 2, 1]


async def test_a_note_counts_from_now_for_the_runs_that_it_names(store: Store, owner: Connection) -> None:
    anns, bobs = await start(store, ANN, "t"), await start(store, BOB, "t")
    await owner.execute("UPDATE agentws.run_queue SET followed_at = followed_at - interval '1 hour'")
    every = await store.nodes.find_unfollowed(limit=9)
    await store.nodes.mark_followed([each for each in every if each.principal == ANN])
    idle = {each.run_no: each.idle_s for each in await store.nodes.find_unfollowed(limit=9)}
    assert idle[anns] < 3600 <= idle[bobs]


async def test_a_note_is_of_one_users_run_alone(store: Store, owner: Connection) -> None:
    anns = await start(store, ANN, "t")
    await owner.execute("UPDATE agentws.run_queue SET followed_at = followed_at - interval '1 hour'")
    forged = [Unfollowed(principal=whose, thread_id=T, run_no=anns, idle_s=0) for whose in (BOB, Principal("x", "ann"))]
    await store.nodes.mark_followed(forged)
    [each] = await store.nodes.find_unfollowed(limit=9)
    assert each.idle_s >= 3600


async def test_a_run_that_is_being_written_is_left_out_without_waiting(store: Store, owner: Connection) -> None:
    locked, free = await start(store, ANN, "t"), await start(store, ANN, "u")
    await owner.execute("UPDATE agentws.run_queue SET followed_at = followed_at - interval '1 hour'")
    both = await store.nodes.find_unfollowed(limit=9)
    async with owner.transaction():
        await owner.execute("SELECT FROM agentws.run_queue WHERE run_no = $1 FOR UPDATE", locked)
        await store.nodes.mark_followed(both)
    idle = {each.run_no: each.idle_s for each in await store.nodes.find_unfollowed(limit=9)}
    assert idle[free] < 3600 <= idle[locked]
