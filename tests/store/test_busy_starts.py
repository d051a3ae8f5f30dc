"""Where a thread is busy, a start waits, is refused, or goes before those that wait and has the running one stopped."""

import asyncio

import pytest

from agentws.core.run import Accepted, Claim
from agentws.wire.ids import ThreadId

from .conftest import ANN, BOB, NODE, Connection, Store, T, Wire, contents, refusal_of, until_waiting


async def texts(store: Store, claim: Claim) -> list[str]:
    """What the agent of a run is told of its thread."""
    return [message.content for message in await store.journal.read_messages(claim, before=None, limit=99)]


async def next_of(store: Store, claim: Claim) -> Claim:
    """Ends a run; the thread's next one, claimed."""
    following = (await store.finish(claim, first=claim.ordinal + 1, stopped=True, owner=NODE)).next
    assert following is not None
    return following


async def in_turn(store: Store, claim: Claim) -> list[str]:
    """The texts of the runs that wait behind a claim, in the order in which they come to work."""
    told: list[str] = []
    while True:
        following = (await store.finish(claim, first=claim.ordinal + 1, stopped=True, owner=NODE)).next
        if following is None:
            return told
        told.append(following.text)
        claim = following


async def interrupt(store: Store, text: str) -> Accepted:
    return await store.accept(text=text, if_busy="interrupt", owner=NODE)


# Reject


async def test_a_busy_thread_rejects_and_nothing_is_written(store: Store, owner: Connection) -> None:
    claim = await store.claimed()
    before = await contents(owner)
    assert await refusal_of(store.accept(if_busy="reject", owner=NODE, key="k")) == "thread_busy"
    assert await contents(owner) == before
    await store.finish(claim)
    assert (await store.accept(if_busy="reject", owner=NODE, key="k")).status == "running"


async def test_a_thread_where_a_run_waits_is_busy(store: Store) -> None:
    await store.accept(new=True)
    assert await refusal_of(store.accept(if_busy="reject", owner=NODE)) == "thread_busy"


@pytest.mark.parametrize("if_busy", ["reject", "interrupt"])
async def test_an_idle_or_a_new_thread_is_not_busy(store: Store, if_busy: str) -> None:
    first = await store.accept(new=True, if_busy=if_busy, owner=NODE)
    assert (first.status, first.interrupted) == ("running", None)
    assert first.claim is not None
    await store.finish(first.claim)
    second = await store.accept(if_busy=if_busy, owner=NODE)
    assert (second.status, second.position, second.interrupted) == ("running", 0, None)


@pytest.mark.parametrize("if_busy", ["reject", "interrupt"])
async def test_a_thread_that_is_not_there_is_not_found_whatever_is_to_be_done_where_it_is_busy(
    store: Store, if_busy: str
) -> None:
    await store.claimed(BOB)
    assert await refusal_of(store.accept(if_busy=if_busy, owner=NODE)) == "thread_not_found"


async def test_of_two_that_reject_at_once_one_is_accepted(store: Store, owner: Connection) -> None:
    claim = await store.claimed()
    await store.finish(claim)
    async with owner.transaction():
        await owner.execute("SELECT FROM agentws.thread_head FOR UPDATE")
        both = [asyncio.ensure_future(store.accept(if_busy="reject", owner=NODE)) for _ in range(2)]
        await until_waiting(owner, 2)
    answers = await asyncio.gather(*both, return_exceptions=True)
    assert sorted(type(answer).__name__ for answer in answers) == ["Accepted", "Fault"]


# Interrupt


async def test_what_runs_is_to_stop_and_the_new_one_is_next(store: Store) -> None:
    claim = await store.claimed()
    accepted = await interrupt(store, "now")
    assert (accepted.interrupted, accepted.status, accepted.position) == (claim.run_no, "queued", 1)
    assert (await store.append(claim, 2)).stop_reason == "interrupted"
    following = await next_of(store, claim)
    assert (following.run_id, following.stop_reason) == (accepted.run_id, None)


async def test_a_reason_that_was_given_before_stays(store: Store) -> None:
    claim = await store.claimed()
    await store.starts.stop(ANN, run_id=claim.run_id, run_no=None, thread_id=None, reason="enough")
    assert (await interrupt(store, "now")).interrupted == claim.run_no
    assert (await store.append(claim, 2)).stop_reason == "enough"


async def test_the_last_to_interrupt_goes_before_all_that_wait(store: Store) -> None:
    claim = await store.claimed(text="r")
    for text in ("a", "b"):
        await store.accept(text=text)
    positions = [(await interrupt(store, text)).position for text in ("i", "j")]
    assert positions == [1, 1]
    assert (await store.accept(text="c")).position == 5
    assert await in_turn(store, claim) == ["j", "i", "a", "b", "c"]


async def test_one_that_interrupts_an_idle_thread_in_which_runs_wait_goes_before_them(store: Store) -> None:
    await store.accept(new=True, text="a")
    accepted = await interrupt(store, "i")
    assert (accepted.status, accepted.claim, accepted.interrupted, accepted.position) == ("queued", None, None, 1)
    [ticket] = await store.nodes.claim_waiting(NODE, ["demo"], limit=9)
    claim = await store.starts.begin(ticket)
    assert claim is not None
    assert claim.text == "i"
    assert await in_turn(store, claim) == ["a"]


async def test_its_place_is_told_in_its_first_event_and_others_move_back(store: Store) -> None:
    await store.claimed()
    await store.accept(key="a")
    accepted = await interrupt(store, "i")
    [(_, record)] = await store.records(ANN, T, epoch=accepted.epoch, after_seq=accepted.seq, limit=9)
    assert (record.type, record.body) == ("agent_queued", '{"position":1}')
    assert (await store.accept(key="a")).position == 2


async def test_an_agent_is_told_what_came_before_its_run_in_the_queue(store: Store) -> None:
    claim = await store.claimed(text="r")
    await store.accept(text="a")
    await interrupt(store, "i")
    first = await next_of(store, claim)
    assert await texts(store, first) == ["r", "answer"]
    second = await next_of(store, first)
    assert await texts(store, second) == ["r", "answer", "i", "answer"]


async def test_any_number_of_interruptions_keeps_the_order(store: Store) -> None:
    """More than there are halves of the gap between two places."""
    claim = await store.claimed(text="r")
    for text in ("a", "b"):
        await store.accept(text=text)
    interrupting = [str(number) for number in range(70)]
    for text in interrupting:
        await interrupt(store, text)
    await store.accept(text="c")
    assert await in_turn(store, claim) == [*reversed(interrupting), "a", "b", "c"]


async def close_up(owner: Connection, *turns: int) -> None:
    """Gives the runs of the one thread these places, in the order of their acceptance."""
    runs = await owner.fetch("SELECT run_no, turn FROM agentws.run ORDER BY run_no")
    for run, turn in zip(runs, turns, strict=True):
        for table in ("run", "run_queue", "message"):
            await owner.execute(f"UPDATE agentws.{table} SET turn = $2 WHERE run_no = $1", run["run_no"], turn)
    await owner.execute("UPDATE agentws.thread_head SET last_turn = $1", max(turns))


async def test_where_no_place_is_left_those_that_wait_move_on_with_their_messages(
    store: Store, owner: Connection
) -> None:
    claim = await store.claimed(text="r")
    for text in ("a", "b"):
        await store.accept(text=text)
    await close_up(owner, 10, 11, 12)
    await interrupt(store, "i")
    await store.accept(text="c")
    assert await owner.fetchval(
        "SELECT count(*) FROM agentws.run r JOIN agentws.run_queue q USING (run_no) JOIN agentws.message m"
        " ON m.run_no = r.run_no WHERE r.turn <> q.turn OR r.turn <> m.turn"
    ) == 0  # fmt: skip
    assert await owner.fetchval("SELECT last_turn FROM agentws.thread_head") == await owner.fetchval(
        "SELECT max(turn) FROM agentws.run"
    )
    assert await owner.fetchval("SELECT turn FROM agentws.run WHERE run_no = $1", claim.run_no) == 10
    first = await next_of(store, claim)
    second = await next_of(store, first)
    assert [first.text, second.text] == ["i", "a"]
    assert await texts(store, second) == ["r", "answer", "i", "answer"]
    assert await in_turn(store, second) == ["b", "c"]


async def test_to_move_them_on_touches_nobody_elses_runs(store: Store, owner: Connection) -> None:
    await store.claimed(BOB)
    await store.accept(BOB)
    await store.claimed(thread="u")
    await store.accept(thread="u")
    untouched = "SELECT array_agg(x::text ORDER BY x::text) FROM agentws.{} x WHERE x.user_id = 'bob' OR thread_no = $1"
    u = await owner.fetchval("SELECT thread_no FROM agentws.thread_head WHERE thread_id = 'u'")
    before = [await owner.fetchval(untouched.format(table), u) for table in ("run", "run_queue", "message")]
    await store.claimed(text="r")
    await store.accept(text="a")
    mine = await owner.fetch("SELECT run_no FROM agentws.run WHERE user_id = 'ann' AND thread_no <> $1 ORDER BY 1", u)
    for turn, run in enumerate(mine, 10):
        for table in ("run", "run_queue", "message"):
            await owner.execute(f"UPDATE agentws.{table} SET turn = $2 WHERE run_no = $1", run["run_no"], turn)
    await interrupt(store, "i")
    assert [await owner.fetchval(untouched.format(table), u) for table in ("run", "run_queue", "message")] == before


async def test_an_interruption_whose_answer_is_lost_is_accepted_once(far_store: Store, wire: Wire) -> None:
    claim = await far_store.claimed()
    await far_store.accept(text="a")
    wire.lose_answers = 1
    accepted = await interrupt(far_store, "i")
    assert (wire.lost, accepted.status, accepted.position) == (1, "queued", 1)
    assert (await far_store.append(claim, 2)).stop_reason == "interrupted"
    assert await in_turn(far_store, claim) == ["i", "a"]


async def test_two_that_interrupt_at_once_both_have_a_place(store: Store, owner: Connection) -> None:
    claim = await store.claimed()
    await store.accept(text="a")
    async with owner.transaction():
        await owner.execute("SELECT FROM agentws.thread_head FOR UPDATE")
        both = [asyncio.ensure_future(interrupt(store, text)) for text in ("i", "j")]
        await until_waiting(owner, 2)
    assert [each.interrupted for each in await asyncio.gather(*both)] == [claim.run_no] * 2
    told = await in_turn(store, claim)
    assert (sorted(told[:2]), told[2:]) == (["i", "j"], ["a"])


async def test_a_run_that_has_ended_meanwhile_is_not_interrupted(store: Store, owner: Connection) -> None:
    claim = await store.claimed()
    async with owner.transaction():
        await owner.execute("SELECT FROM agentws.thread_head FOR UPDATE")
        ends = asyncio.ensure_future(store.finish(claim))
        await until_waiting(owner, 1)
        interrupts = asyncio.ensure_future(interrupt(store, "i"))
        await until_waiting(owner, 2)
    await ends
    accepted = await interrupts
    assert (accepted.status, accepted.interrupted) == ("running", None)
    assert [kind for _, kind, run in await store.events() if run == claim.run_id][-1] == "agent_completed"


async def test_another_thread_is_not_interrupted(store: Store) -> None:
    elsewhere = await store.claimed(thread="u")
    bobs = await store.claimed(BOB)
    await store.claimed()
    await interrupt(store, "i")
    assert (await store.append(elsewhere, 2)).stop_reason is None
    assert (await store.append(bobs, 2)).stop_reason is None
    assert (await store.threads.read(ANN, ThreadId("u"))).thread.running_run_id == elsewhere.run_id
