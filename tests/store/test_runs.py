"""A start is accepted once, in its user's thread, and claimed only where nothing else is at work there."""

import asyncio
from dataclasses import replace
from datetime import UTC
from typing import Any

import pytest

from agentws.core.context import Principal
from agentws.core.run import Draft, Stopped
from agentws.ports import Fenced, Stopping, StoreUnavailable
from agentws.wire.errors import Fault
from agentws.wire.events import EventType
from agentws.wire.ids import RunId, ThreadId, ThreadNo, new_number

from .conftest import ANN, BOB, NODE, OTHER_NODE, Connection, Store, T, Wire, piece, until_waiting, wanted

NOTHING = ThreadId("nothing")


async def refusal(store: Store, whose: Principal = ANN, thread: str = T, **how: Any) -> str:
    with pytest.raises(Fault) as refused:
        await store.accept(whose, thread, **how)
    return refused.value.code


async def rows(owner: Connection) -> list[int]:
    """How many rows each table has."""
    tables = ("thread_head", "thread", "run", "run_queue", "start_key", "message", "event")
    return [await owner.fetchval(f"SELECT count(*) FROM agentws.{table}") for table in tables]


# Acceptance


async def test_the_first_run_of_a_new_thread_is_at_work_at_once_where_a_node_has_a_slot(store: Store) -> None:
    start = wanted(T, new=True, owner=NODE, text="What is 2 + 2?", context='{"a": 1}')
    accepted = await store.starts.accept(ANN, start)
    assert (accepted.run_no, accepted.run_id, accepted.thread_id) == (start.run_no, start.run_id, T)
    assert (accepted.status, accepted.seq, accepted.position) == ("running", 0, 0)
    assert accepted.at is not None
    assert (accepted.duplicate, accepted.thread_exists, accepted.at.tzinfo) == (False, True, UTC)
    claim = accepted.claim
    assert claim is not None
    assert (claim.principal, claim.run_no, claim.thread_no) == (ANN, start.run_no, start.thread_no)
    assert (claim.fence, claim.attempt, claim.ordinal, claim.seq, claim.lost) == (1, 1, 1, 1, False)
    assert (claim.text, claim.context, claim.epoch) == ("What is 2 + 2?", '{"a": 1}', accepted.epoch)
    assert await store.events() == [(1, "agent_started", start.run_id)]


async def test_a_run_without_a_node_waits_and_says_so(store: Store) -> None:
    accepted = await store.accept(new=True)
    assert (accepted.status, accepted.seq, accepted.position, accepted.claim) == ("queued", 0, 1, None)
    [(origin, record)] = await store.records(ANN, T, epoch=accepted.epoch, after_seq=0, limit=9)
    assert (record.type, record.body, origin.run_id) == (EventType.AGENT_QUEUED, '{"position":1}', accepted.run_id)


async def test_a_run_of_a_named_thread_goes_on_with_its_numbers(store: Store) -> None:
    thread = await store.threads.create(ANN, T, ThreadNo(new_number()), title=None, metadata=None)
    accepted = await store.accept(owner=NODE)
    assert (accepted.epoch, accepted.seq, accepted.status) == (thread.epoch, 0, "running")
    assert accepted.claim is not None
    await store.finish(accepted.claim)
    later = await store.accept(owner=NODE)
    assert (later.epoch, later.seq, later.status) == (thread.epoch, 2, "running")


async def test_a_busy_thread_queues_in_the_order_of_acceptance_also_where_a_node_has_a_slot(store: Store) -> None:
    await store.claimed()
    waiting = [await store.accept(owner=NODE) for _ in range(3)]
    assert [each.position for each in waiting] == [1, 2, 3]
    assert [(each.status, each.claim) for each in waiting] == [("queued", None)] * 3
    assert [each.seq for each in waiting] == [1, 2, 3]


async def test_a_run_does_not_overtake_those_that_wait_in_an_idle_thread(store: Store) -> None:
    await store.accept(new=True)
    later = await store.accept(owner=NODE)
    assert (later.status, later.position, later.claim) == ("queued", 2, None)


async def test_a_thread_that_is_not_the_users_is_not_found(store: Store, owner: Connection) -> None:
    await store.accept(BOB, new=True)
    before = await rows(owner)
    assert await refusal(store) == "thread_not_found"
    assert await refusal(store, Principal("acme", "bob")) == "thread_not_found"
    assert await refusal(store, run_id="mine", key="k") == "thread_not_found"
    assert await rows(owner) == before


async def test_a_run_id_is_kept_verbatim_and_taken_once_for_a_user(store: Store, owner: Connection) -> None:
    assert (await store.accept(new=True, run_id="mine")).run_id == "mine"
    before = await rows(owner)
    assert await refusal(store, run_id="mine") == "run_id_conflict"
    assert await refusal(store, thread="u", new=True, run_id="mine", key="k") == "run_id_conflict"
    assert await rows(owner) == before
    assert (await store.accept(BOB, new=True, run_id="mine")).run_id == "mine"


async def test_two_starts_of_one_run_id_at_once_are_one_run_and_a_conflict(store: Store, owner: Connection) -> None:
    await store.accept(thread="u", new=True)
    await store.accept(thread="v", new=True)
    async with owner.transaction():
        await owner.execute("LOCK TABLE agentws.message IN ACCESS EXCLUSIVE MODE")
        both = [asyncio.ensure_future(store.accept(thread=thread, run_id="mine")) for thread in ("u", "v")]
        await until_waiting(owner, 2)
    answers = await asyncio.gather(*both, return_exceptions=True)
    assert sorted(type(each).__name__ for each in answers) == ["Accepted", "Fault"]
    assert [each.code for each in answers if isinstance(each, Fault)] == ["run_id_conflict"]
    assert await owner.fetchval("SELECT count(*) FROM agentws.run WHERE run_id = 'mine'") == 1


async def test_two_users_with_the_same_names_and_numbers_are_kept_apart(store: Store, owner: Connection) -> None:
    start = wanted(T, new=True, owner=NODE, run_id="r", key="k", content="same")
    anns, bobs = await store.starts.accept(ANN, start), await store.starts.accept(BOB, start)
    tenants = await store.starts.accept(Principal("acme", "ann"), start)
    assert not anns.duplicate and not bobs.duplicate and not tenants.duplicate
    assert len({anns.epoch, bobs.epoch, tenants.epoch}) == 3
    assert anns.claim is not None and bobs.claim is not None
    await store.append(anns.claim, 2, piece("ann's"))
    await store.finish(bobs.claim)
    assert [type_ for _, type_, _ in await store.events(ANN)] == ["agent_started", "agent_message"]
    assert [type_ for _, type_, _ in await store.events(BOB)] == ["agent_started", "agent_completed"]
    stopped = await store.starts.stop(ANN, run_id=RunId("r"), run_no=None, thread_id=None, reason="user")
    assert stopped.running == [start.run_no]
    reasons = await owner.fetch("SELECT tenant_id, user_id, stopping FROM agentws.run_queue ORDER BY 1, 2")
    assert [tuple(row) for row in reasons] == [("", "ann", True), ("acme", "ann", False)]


# Repeating


async def test_the_same_key_and_content_is_answered_with_the_first_ones_ids(store: Store, owner: Connection) -> None:
    first = await store.accept(new=True, key="k", owner=NODE)
    before = await rows(owner)
    again = await store.accept(thread="another", new=True, key="k", run_id="another", owner=NODE)
    assert again.duplicate
    assert (again.run_id, again.run_no, again.thread_id) == (first.run_id, first.run_no, first.thread_id)
    assert (again.epoch, again.seq, again.status, again.position) == (first.epoch, first.seq, "running", 0)
    assert again.thread_exists and again.claim is None
    assert await rows(owner) == before


async def test_a_repeat_tells_what_has_become_of_the_run(store: Store) -> None:
    claim = await store.claimed()
    await store.accept()
    await store.accept(key="k")
    repeat = await store.accept(key="k")
    assert (repeat.status, repeat.position, repeat.seq) == ("queued", 2, 2)
    await store.starts.stop(ANN, run_id=repeat.run_id, run_no=None, thread_id=None, reason="user")
    repeat = await store.accept(key="k")
    assert (repeat.status, repeat.position, repeat.seq) == ("stopped", 0, 2)
    assert claim.run_id != repeat.run_id


async def test_the_same_key_with_other_content_is_a_conflict_also_in_a_thread_that_is_not_there(
    store: Store, owner: Connection
) -> None:
    await store.accept(new=True, key="k", content="one")
    before = await rows(owner)
    assert await refusal(store, key="k", content="two") == "idempotency_conflict"
    assert await refusal(store, thread=NOTHING, key="k", content="two") == "idempotency_conflict"
    assert await rows(owner) == before
    assert not (await store.accept(BOB, new=True, key="k", content="two")).duplicate


async def test_two_copies_at_once_are_one_run(store: Store, owner: Connection) -> None:
    async with owner.transaction():
        await owner.execute("LOCK TABLE agentws.start_key IN SHARE MODE")
        both = [asyncio.ensure_future(store.accept(thread=name, new=True, key="k", owner=NODE)) for name in ("u", "v")]
        await until_waiting(owner, 2)
    one, two = await asyncio.gather(*both)
    assert {one.duplicate, two.duplicate} == {False, True}
    assert (one.run_id, one.thread_id, one.epoch) == (two.run_id, two.thread_id, two.epoch)
    assert [one.claim is None, two.claim is None] == [one.duplicate, two.duplicate]
    assert await rows(owner) == [1, 1, 1, 1, 1, 1, 1]


@pytest.mark.parametrize("lost", [1, 2])
@pytest.mark.parametrize("key", [None, "k"])
async def test_a_start_whose_answer_is_lost_is_accepted_once_and_claimed_once(
    far_store: Store, wire: Wire, owner: Connection, key: str | None, lost: int
) -> None:
    start = wanted(T, new=True, owner=NODE, key=key, run_id="mine", context="[1]")
    wire.lose_answers = lost
    accepted = await far_store.starts.accept(ANN, start)
    assert wire.lost == lost
    assert (accepted.run_id, accepted.status, accepted.seq, accepted.position) == ("mine", "running", 0, 0)
    assert not accepted.duplicate
    assert await rows(owner) == [1, 1, 1, 1, 1 if key else 0, 1, 1]
    claim = accepted.claim
    assert claim is not None
    assert (claim.thread_no, claim.fence, claim.ordinal, claim.context) == (start.thread_no, 1, 1, "[1]")
    await far_store.finish(claim)
    assert await far_store.events() == [(1, "agent_started", "mine"), (2, "agent_completed", "mine")]


async def test_a_waiting_start_whose_answer_is_lost_keeps_its_place(far_store: Store, wire: Wire) -> None:
    await far_store.claimed()
    first = await far_store.accept()
    wire.lose_answers = 1
    accepted = await far_store.accept(owner=NODE)
    assert (wire.lost, accepted.status, accepted.position, accepted.seq) == (1, "queued", 2, 2)
    assert accepted.claim is None
    assert [run for _, _, run in await far_store.events()][1:] == [first.run_id, accepted.run_id]


@pytest.mark.parametrize("node", [NODE, OTHER_NODE])
async def test_a_start_whose_answer_is_lost_is_not_claimed_where_it_has_been_taken_meanwhile(
    far_store: Store, store: Store, wire: Wire, node: int
) -> None:
    async def take_over() -> None:
        [ticket] = await store.nodes.take_over(node, orphans=[], limit=9)
        assert ticket.fence == 2

    wire.lose_answers, wire.on_loss = 1, take_over
    accepted = await far_store.accept(new=True, owner=NODE)
    assert (wire.lost, accepted.status, accepted.claim) == (1, "running", None)


async def test_a_start_in_doubt_for_too_long_is_unavailable_and_its_key_finds_it(
    far_store: Store, store: Store, wire: Wire, owner: Connection
) -> None:
    wire.lose_answers = 3
    with pytest.raises(StoreUnavailable):
        await far_store.accept(new=True, key="k")
    repeat = await store.accept(thread="other", new=True, key="k")
    assert (repeat.duplicate, repeat.thread_id, repeat.status) == (True, T, "queued")
    assert await rows(owner) == [1, 1, 1, 1, 1, 1, 1]


# Begin


async def test_beginning_a_claimed_run_starts_it_and_tells_all_that_its_worker_needs(store: Store) -> None:
    accepted = await store.accept(new=True, text="Hi", context='{"a": [1]}', agent="other")
    [ticket] = await store.nodes.claim_waiting(NODE, ["other"], limit=9)
    claim = await store.starts.begin(ticket)
    assert claim is not None
    assert (claim.principal, claim.run_no, claim.run_id) == (ANN, accepted.run_no, accepted.run_id)
    assert (claim.text, claim.context, claim.agent) == ("Hi", '{"a": [1]}', "other")
    assert (claim.fence, claim.attempt, claim.ordinal, claim.seq, claim.lost) == (1, 1, 2, 2, False)
    assert (claim.epoch, claim.accepted_at, claim.stop_reason) == (accepted.epoch, accepted.at, None)
    assert [type_ for _, type_, _ in await store.events()] == ["agent_queued", "agent_started"]
    assert (await store.finish(claim, first=3)).last_seq == 3


async def test_a_run_that_was_begun_is_lost_and_not_started_again(store: Store) -> None:
    await store.append(await store.claimed(), 2, piece("x"))
    [ticket] = await store.nodes.take_over(OTHER_NODE, orphans=[], limit=9)
    claim = await store.starts.begin(ticket)
    assert claim is not None
    assert (claim.lost, claim.fence, claim.ordinal, claim.seq) == (True, 2, 2, 1)
    assert [type_ for _, type_, _ in await store.events()] == ["agent_started", "agent_message"]


async def test_a_ticket_of_an_old_fence_or_of_another_user_begins_nothing(store: Store) -> None:
    await store.accept(new=True)
    await store.accept(BOB, new=True)
    old = {each.principal: each for each in await store.nodes.claim_waiting(NODE, ["demo"], limit=9)}
    new = {each.principal: each for each in await store.nodes.take_over(OTHER_NODE, orphans=[], limit=9)}
    assert await store.starts.begin(old[ANN]) is None
    assert await store.starts.begin(replace(new[ANN], principal=BOB)) is None
    assert await store.starts.begin(new[ANN]) is not None
    assert await store.starts.begin(new[BOB]) is not None
    assert [type_ for _, type_, _ in await store.events(BOB)] == ["agent_queued", "agent_started"]


# What a lost attempt left


async def test_remains_are_the_attempts_pieces_and_tool_events_in_order(store: Store) -> None:
    claim = await store.claimed()
    others = [Draft(EventType.AGENT_THINKING, "{}"), Draft(EventType.AGENT_EVENT, "{}")]
    tools = [Draft(EventType.TOOL_EXECUTING, '{"a":1}'), Draft(EventType.TOOL_COMPLETED, '{"a":2}')]
    await store.append(claim, 2, piece("one"), others[0], tools[0], others[1], tools[1], piece("two"))
    await store.accept()
    await store.append(claim, 8, piece("later"), attempt=2)
    assert await store.starts.remains(claim) == [
        ("agent_message", piece("one").body), ("tool_executing", '{"a":1}'),
        ("tool_completed", '{"a":2}'), ("agent_message", piece("two").body),
    ]  # fmt: skip
    assert await store.starts.remains(replace(claim, attempt=2)) == [("agent_message", piece("later").body)]
    assert await store.starts.remains(replace(claim, principal=BOB)) == []


# Stop


async def stop(store: Store, whose: Principal = ANN, reason: str = "user", **what: Any) -> Stopped:
    return await store.starts.stop(whose, **{"run_id": None, "run_no": None, "thread_id": None, **what}, reason=reason)


async def test_stopping_a_running_run_marks_it_and_the_first_reason_stays(store: Store) -> None:
    claim = await store.claimed()
    for reason in ("first", "second"):
        stopped = await stop(store, run_id=claim.run_id, reason=reason)
        assert (stopped.run_ids, stopped.already_ended, stopped.running) == ([claim.run_id], [], [claim.run_no])
        assert (stopped.thread_id, stopped.epoch, stopped.last_seq) == (T, claim.epoch, 1)
    assert (await store.append(claim, 2, piece("x"))).stop_reason == "first"


async def test_stopping_a_waiting_run_ends_it_here(store: Store, owner: Connection) -> None:
    await store.claimed()
    waiting, behind = await store.accept(text="w"), await store.accept()
    stopped = await stop(store, run_id=waiting.run_id, reason="enough")
    assert (stopped.run_ids, stopped.already_ended, stopped.running) == ([waiting.run_id], [], [])
    assert stopped.last_seq == 4
    [(origin, record)] = await store.records(ANN, T, epoch=waiting.epoch, after_seq=3, limit=9)
    assert (origin.run_id, record.seq, record.type, record.ordinal) == (waiting.run_id, 4, "agent_stopped", 2)
    assert record.body is not None and '"reason" : "enough"' in record.body
    assert record.content is None
    assert await owner.fetchval("SELECT waiting FROM agentws.thread_head") == 1
    assert (await store.accept()).position == 2
    assert [run for _, type_, run in await store.events() if type_ == "agent_queued"][1] == behind.run_id


async def test_stopping_is_idempotent_and_tells_what_had_ended(store: Store) -> None:
    claim = await store.claimed()
    waiting = await store.accept()
    await stop(store, run_id=waiting.run_id)
    again = await stop(store, run_id=waiting.run_id)
    assert (again.run_ids, again.already_ended, again.running) == ([], [waiting.run_id], [])
    await store.finish(claim)
    ended = await stop(store, run_no=claim.run_no)
    assert (ended.run_ids, ended.already_ended, ended.running) == ([], [claim.run_id], [])
    assert len(await store.events()) == 4


async def test_a_run_is_stopped_by_the_number_of_its_request(store: Store) -> None:
    claim = await store.claimed()
    assert (await stop(store, run_no=claim.run_no)).running == [claim.run_no]


async def test_of_the_three_names_the_first_given_counts(store: Store) -> None:
    claim = await store.claimed()
    other = await store.claimed(thread="u")
    await store.accept()
    stopped = await stop(store, run_no=claim.run_no, thread_id="u")
    assert stopped.run_ids == [claim.run_id]
    assert (await stop(store, run_id=other.run_id, run_no=claim.run_no)).run_ids == [other.run_id]


async def test_stopping_a_thread_stops_its_running_and_its_waiting_runs(store: Store) -> None:
    claim = await store.claimed()
    waiting = [(await store.accept()).run_id for _ in range(2)]
    elsewhere = await store.claimed(thread="u")
    stopped = await stop(store, thread_id=T)
    assert (stopped.run_ids, stopped.already_ended) == ([claim.run_id, *waiting], [])
    assert (stopped.running, stopped.last_seq) == ([claim.run_no], 5)
    ended = [run for _, type_, run in await store.events() if type_ == "agent_stopped"]
    assert ended == waiting
    assert (await store.append(elsewhere, 2, piece("x"))).stop_reason is None
    with pytest.raises(Stopping, match="user"):
        await store.finish(claim, owner=NODE)
    assert (await store.finish(claim, owner=NODE, stopped=True)).next is None
    assert [type_ for _, type_, run in await store.events() if run == claim.run_id][1:] == ["agent_stopped"]
    idle = await stop(store, thread_id=T)
    assert (idle.run_ids, idle.already_ended, idle.running) == ([], [], [])


@pytest.mark.parametrize("whose", [BOB, Principal("acme", "ann")])
async def test_what_a_user_does_not_have_cannot_be_stopped(store: Store, owner: Connection, whose: Principal) -> None:
    claim = await store.claimed()
    what: dict[str, dict[str, Any]] = {
        "run_not_found": {"run_id": claim.run_id},
        "thread_not_found": {"thread_id": T},
    }
    for code, named in what.items():
        with pytest.raises(Fault) as refused:
            await stop(store, whose, **named)
        assert refused.value.code == code
    with pytest.raises(Fault, match="run_not_found"):
        await stop(store, whose, run_no=claim.run_no)
    assert await owner.fetchval("SELECT bool_or(stopping) FROM agentws.run_queue") is False


async def test_a_run_that_was_stopped_while_waiting_can_be_neither_begun_nor_written(store: Store) -> None:
    accepted = await store.accept(new=True)
    await stop(store, run_id=accepted.run_id)
    assert await store.nodes.claim_waiting(NODE, ["demo"], limit=9) == []
    claim = await store.claimed(thread="u")
    forged = replace(claim, thread_id=T, run_no=accepted.run_no, fence=0)
    with pytest.raises(Fenced):
        await store.append(forged, 2, piece("x"))
    with pytest.raises(Fenced):
        await store.finish(forged)
    assert [type_ for _, type_, _ in await store.events()] == ["agent_queued", "agent_stopped"]
