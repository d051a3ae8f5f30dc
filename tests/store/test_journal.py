"""The journal numbers a thread's events densely, writes each once, and takes none from who does not hold the run."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from agentws.core.context import Principal
from agentws.core.run import Appended, Claim, Draft, Ending
from agentws.ports import End, Fenced, Head, StoreUnavailable, ThreadKey
from agentws.wire.codec import timestamp
from agentws.wire.events import TERMINAL, EventType
from agentws.wire.ids import ThreadId

from .conftest import ANN, BOB, NODE, OTHER_NODE, Connection, Store, T, Wire, piece, until_waiting

ERROR = Draft(EventType.AGENT_ERROR, '{"code":"agent_failed","duration_ms":1}')
FAILED = Ending(status="failed", response=None, error_code="agent_failed")


async def fail(store: Store, claim: Claim, first: int) -> Appended:
    return await store.journal.append(claim, first, [ERROR], attempt=1, ending=FAILED, next_owner=None, agents=())


async def types(store: Store, whose: Principal = ANN) -> list[str]:
    return [type_ for _, type_, _ in await store.events(whose)]


async def bodies(store: Store, claim: Claim) -> list[str | None]:
    rows = await store.records(claim.principal, claim.thread_id, epoch=claim.epoch, after_seq=0, limit=1000)
    return [record.body for _, record in rows]


# Append


async def test_numbers_are_dense_under_concurrency_and_each_call_is_told_its_own(store: Store) -> None:
    claim = await store.claimed()

    async def write() -> list[int]:
        told = []
        for ordinal in range(2, 42, 2):
            appended = await store.append(claim, ordinal, piece(str(ordinal)), piece(str(ordinal + 1)))
            told += [appended.last_seq - 1, appended.last_seq]
        return told

    async def queue() -> int:
        accepted = await store.accept()
        await store.starts.stop(ANN, run_id=accepted.run_id, run_no=None, thread_id=None, reason="user")
        return accepted.seq + 1

    told, queued = await asyncio.gather(write(), asyncio.gather(*(queue() for _ in range(20))))
    events = await store.events()
    assert [seq for seq, _, _ in events] == list(range(1, 82))
    assert [seq for seq, type_, _ in events if type_ == "agent_message"] == told
    assert [seq for seq, type_, _ in events if type_ == "agent_queued"] == sorted(queued)
    assert (await bodies(store, claim))[told[0] - 1 : told[0] + 1] == [piece("2").body, piece("3").body]


async def test_threads_are_numbered_apart(store: Store) -> None:
    claims = [await store.claimed(whose, name) for whose in (ANN, BOB) for name in ("t", "u")]
    await asyncio.gather(*(store.append(claim, 2, piece("x"), piece("y")) for claim in claims))
    for claim in claims:
        events = await store.events(claim.principal, claim.thread_id)
        assert [(seq, run) for seq, _, run in events] == [(seq, claim.run_id) for seq in (1, 2, 3)]


async def test_an_append_tells_the_number_and_the_time_that_a_reader_sees(store: Store) -> None:
    claim = await store.claimed()
    appended = await store.append(claim, 2, piece("one"), piece("two"))
    assert (appended.last_seq, appended.skipped, appended.stop_reason, appended.next) == (3, 0, None, None)
    rows = await store.records(ANN, T, epoch=claim.epoch, after_seq=1, limit=9)
    assert [(record.seq, record.ordinal, record.attempt) for _, record in rows] == [(2, 2, 1), (3, 3, 1)]
    assert {record.timestamp for _, record in rows} == {timestamp(appended.at)}
    assert [(origin.run_no, origin.agent) for origin, _ in rows] == [(claim.run_no, "demo")] * 2


async def test_an_append_that_is_repeated_is_written_once(store: Store) -> None:
    claim = await store.claimed()
    await store.append(claim, 2, piece("one"), piece("two"))
    again = await store.append(claim, 2, piece("one"), piece("two"))
    assert (again.skipped, again.last_seq) == (2, 3)
    assert await bodies(store, claim) == [None, piece("one").body, piece("two").body]
    assert (await store.append(claim, 4, piece("three"))).last_seq == 4


async def test_of_an_append_that_overlaps_only_what_is_new_is_written(store: Store) -> None:
    claim = await store.claimed()
    await store.append(claim, 2, piece("one"), piece("two"))
    more = await store.append(claim, 2, piece("one"), piece("two"), piece("three"))
    assert (more.skipped, more.last_seq) == (2, 4)
    ending = Ending(status="failed", response=None)
    drafts = [piece("three"), ERROR]
    ended = await store.journal.append(claim, 4, drafts, attempt=1, ending=ending, next_owner=None, agents=())
    assert (ended.skipped, ended.last_seq) == (1, 5)
    assert await bodies(store, claim) == [None, *(piece(text).body for text in ("one", "two", "three")), ERROR.body]


async def test_two_copies_of_an_append_at_once_are_written_once(store: Store, owner: Connection) -> None:
    claim = await store.claimed()
    async with owner.transaction():
        await owner.execute("SELECT FROM agentws.thread_head FOR UPDATE")
        both = [asyncio.ensure_future(store.append(claim, 2, piece("one"), piece("two"))) for _ in range(2)]
        await until_waiting(owner, 2)
    assert sorted(each.skipped for each in await asyncio.gather(*both)) == [0, 2]
    assert await types(store) == ["agent_started", "agent_message", "agent_message"]


async def test_an_append_that_leaves_a_hole_is_refused(store: Store) -> None:
    claim = await store.claimed()
    with pytest.raises(Fenced):
        await store.append(claim, 3, piece("two"))
    with pytest.raises(Fenced):
        await store.finish(claim, first=3)
    assert (await store.append(claim, 2, piece("one"))).last_seq == 2


async def test_who_has_an_old_fence_writes_and_ends_nothing(store: Store) -> None:
    claim = await store.claimed()
    [ticket] = await store.nodes.take_over(OTHER_NODE, orphans=[], limit=9)
    with pytest.raises(Fenced):
        await store.append(claim, 2, piece("late"))
    with pytest.raises(Fenced):
        await store.finish(claim)
    new = await store.starts.begin(ticket)
    assert new is not None
    assert (await store.append(new, 2, piece("new"))).last_seq == 2
    assert (await store.finish(new, first=3)).last_seq == 3
    assert await bodies(store, claim) == [None, piece("new").body, '{"duration_ms":1}']


async def test_another_principal_writes_and_reads_nothing_with_a_claim(store: Store) -> None:
    claim = await store.claimed()
    await store.claimed(BOB)
    for whose in (BOB, Principal("acme", "ann")):
        forged = replace(claim, principal=whose)
        with pytest.raises(Fenced):
            await store.append(forged, 2, piece("x"))
        with pytest.raises(Fenced):
            await store.finish(forged)
        assert await store.journal.read_messages(forged, before=None, limit=9) == []
    assert await types(store) == await types(store, BOB) == ["agent_started"]


async def test_after_its_end_a_run_takes_nothing(store: Store) -> None:
    claim = await store.claimed()
    await store.finish(claim)
    with pytest.raises(Fenced):
        await store.append(claim, 3, piece("late"))
    with pytest.raises(Fenced):
        await store.append(claim, 2, piece("late"))
    with pytest.raises(Fenced):
        await store.finish(claim, first=3)
    with pytest.raises(Fenced):
        await fail(store, claim, 2)
    assert await types(store) == ["agent_started", "agent_completed"]


async def test_of_two_endings_at_once_one_is_written(store: Store, owner: Connection) -> None:
    claim = await store.claimed()
    async with owner.transaction():
        await owner.execute("SELECT FROM agentws.thread_head FOR UPDATE")
        both = [asyncio.ensure_future(store.finish(claim)), asyncio.ensure_future(fail(store, claim, 2))]
        await until_waiting(owner, 2)
    answers = await asyncio.gather(*both, return_exceptions=True)
    assert sorted(type(answer).__name__ for answer in answers) == ["Appended", "Fenced"]
    assert len([type_ for type_ in await types(store) if type_ in TERMINAL]) == 1
    assert await owner.fetchval("SELECT count(*) FROM agentws.run_queue") == 0


async def test_an_ending_that_is_repeated_is_told_its_number(store: Store) -> None:
    claim = await store.claimed()
    first = await store.finish(claim)
    await store.claimed(new=False)
    again = await store.finish(claim)
    assert (first.skipped, again.skipped, again.last_seq) == (0, 1, first.last_seq)
    assert await types(store) == ["agent_started", "agent_completed", "agent_started"]


async def test_an_append_whose_answer_is_lost_is_written_once_when_repeated(far_store: Store, wire: Wire) -> None:
    claim = await far_store.claimed()
    for first in (2, 4):
        wire.lose_answers = 1
        with pytest.raises(StoreUnavailable):
            await far_store.append(claim, first, piece("one"), piece("two"))
        again = await far_store.append(claim, first, piece("one"), piece("two"))
        assert (again.skipped, again.last_seq) == (2, first + 1)
    assert wire.lost == 2
    assert [seq for seq, _, _ in await far_store.events()] == [1, 2, 3, 4, 5]
    assert (await far_store.finish(claim, first=6)).last_seq == 6


async def test_an_ending_whose_answer_is_lost_is_written_once_when_repeated(
    far_store: Store, wire: Wire, owner: Connection
) -> None:
    claim = await far_store.claimed()
    waiting = await far_store.accept()
    wire.lose_answers = 1
    with pytest.raises(StoreUnavailable):
        await far_store.finish(claim, owner=NODE)
    again = await far_store.finish(claim, owner=NODE)
    assert (wire.lost, again.skipped, again.last_seq) == (1, 1, 3)
    assert await types(far_store) == ["agent_started", "agent_queued", "agent_completed", "agent_started"]
    assert await owner.fetchval("SELECT array_agg(content ORDER BY turn, role) FROM agentws.message") == [
        "hello", "answer", "hello",
    ]  # fmt: skip
    assert await owner.fetchval("SELECT owner FROM agentws.run_queue WHERE run_no = $1", waiting.run_no) == NODE


# What an ending does


async def test_the_response_is_the_assistants_message_unless_there_is_none(store: Store, owner: Connection) -> None:
    for turn, (response, kept) in enumerate([("Four", "Four"), ("", None), (None, None)]):
        claim = await store.claimed(new=turn == 0)
        ended = await store.finish(claim, response=response)
        [(_, record)] = await store.records(ANN, T, epoch=claim.epoch, after_seq=ended.last_seq - 1, limit=9)
        assert (record.type, record.content) == (EventType.AGENT_COMPLETED, kept)
    assert await owner.fetchval("SELECT count(*) FROM agentws.message WHERE role = 1") == 1


async def test_an_ended_run_keeps_how_it_ended(store: Store, owner: Connection) -> None:
    claim = await store.claimed()
    await fail(store, claim, 2)
    row = await owner.fetchrow(
        "SELECT status, error_code, fence, ordinal, ended_seq, ended_at IS NOT NULL FROM agentws.run"
    )
    assert row is not None
    assert tuple(row) == ("failed", "agent_failed", 1, 2, 2, True)
    assert await owner.fetchval("SELECT running_run_no FROM agentws.thread_head") is None


async def test_an_ending_claims_the_threads_next_run(store: Store, owner: Connection) -> None:
    claim = await store.claimed()
    waiting = [await store.accept(text=str(number), context='{"n":1}') for number in range(2)]
    ended = await store.finish(claim, owner=OTHER_NODE)
    assert (ended.last_seq, ended.next is not None) == (4, True)
    assert ended.next is not None
    assert (ended.next.run_id, ended.next.principal, ended.next.text) == (waiting[0].run_id, ANN, "0")
    assert (ended.next.fence, ended.next.ordinal, ended.next.seq, ended.next.lost) == (1, 2, 5, False)
    assert ended.next.context == '{"n":1}'
    assert (await types(store))[3:] == ["agent_completed", "agent_started"]
    row = await owner.fetchrow("SELECT running_run_no, waiting FROM agentws.thread_head")
    assert row is not None
    assert tuple(row) == (waiting[0].run_no, 1)
    assert (await store.finish(ended.next, first=3)).last_seq == 6


@pytest.mark.parametrize(("owner_node", "agents"), [(None, ["demo"]), (NODE, ["other"]), (NODE, [])])
async def test_an_ending_claims_nothing_for_nobody_nor_for_who_has_not_the_agent(
    store: Store, owner_node: int | None, agents: list[str]
) -> None:
    claim = await store.claimed()
    await store.accept(agent="demo")
    await store.accept(agent="other")
    assert (await store.finish(claim, owner=owner_node, agents=agents)).next is None
    [ticket] = await store.nodes.claim_waiting(NODE, ["demo"], limit=9)
    assert ticket.principal == ANN


async def test_a_later_attempt_is_told_with_its_events(store: Store) -> None:
    claim = await store.claimed()
    await store.append(claim, 2, piece("one"))
    started = Draft(EventType.AGENT_STARTED, None)
    await store.append(claim, 3, started, piece("two"), attempt=2)
    rows = await store.records(ANN, T, epoch=claim.epoch, after_seq=0, limit=9)
    assert [(record.attempt, record.ordinal, record.content) for _, record in rows] == [
        (1, 1, "hello"), (1, 2, None), (2, 3, "hello"), (2, 4, None),
    ]  # fmt: skip
    [ticket] = await store.nodes.take_over(OTHER_NODE, orphans=[], limit=9)
    again = await store.starts.begin(ticket)
    assert again is not None
    assert (again.attempt, again.ordinal, again.seq) == (2, 4, 1)


# Reading


async def test_events_are_read_in_pages_in_order(store: Store) -> None:
    claim = await store.claimed()
    await store.append(claim, 2, *(piece(str(number)) for number in range(9)))

    async def page(after_seq: int, limit: int) -> list[int]:
        rows = await store.records(ANN, T, epoch=claim.epoch, after_seq=after_seq, limit=limit)
        return [record.seq for _, record in rows]

    assert await page(0, 4) == [1, 2, 3, 4]
    assert await page(4, 4) == [5, 6, 7, 8]
    assert await page(8, 4) == [9, 10]
    assert await page(10, 4) == []


async def test_nothing_is_read_of_another_epoch_thread_or_user(store: Store) -> None:
    claim = await store.claimed()
    for whose, thread, epoch in [(ANN, T, "other"), (ANN, ThreadId("u"), claim.epoch), (BOB, T, claim.epoch)]:
        assert await store.records(whose, thread, epoch=epoch, after_seq=0, limit=9) == []
    assert await store.journal.read_head(BOB, T) is None
    assert await store.journal.read_head(ANN, ThreadId("u")) is None
    assert await store.journal.read_head(ANN, T) == Head(epoch=claim.epoch, first_seq=1, last_seq=1)


async def test_the_ends_of_many_threads_are_read_at_once(store: Store) -> None:
    claims = [await store.claimed(whose, name) for whose in (ANN, BOB) for name in ("t", "u")]
    await store.append(claims[3], 2, piece("x"))
    keys = [(ThreadKey(claim.principal, claim.thread_id), claim.epoch) for claim in claims]
    missing = (ThreadKey(Principal("acme", "ann"), T), claims[0].epoch)
    assert await store.journal.read_ends([missing, *reversed(keys)]) == {
        key: End(epoch=claim.epoch, last_seq=2 if claim is claims[3] else 1)
        for key, claim in zip(keys, claims, strict=True)
    }
    assert await store.journal.read_ends([]) == {}


async def test_who_follows_in_an_epoch_that_is_over_is_told_the_threads_own(store: Store) -> None:
    claim = await store.claimed()
    followed = [(ThreadKey(ANN, T), epoch) for epoch in ("other", claim.epoch)]
    now = End(epoch=claim.epoch, last_seq=1)
    assert await store.journal.read_ends(followed) == dict.fromkeys(followed, now)


async def test_messages_are_in_the_order_of_the_queue_and_paged_back(store: Store) -> None:
    claim = await store.claimed(text="u1")
    await store.accept(text="u2")
    await store.accept(text="u3")
    second = (await store.finish(claim, response="a1", owner=NODE)).next
    assert second is not None
    third = (await store.finish(second, first=3, response="a2", owner=NODE)).next
    assert third is not None
    await store.accept(text="u4")

    async def told(of: Claim, **how: Any) -> list[str]:
        messages = await store.journal.read_messages(of, **{"before": None, "limit": 9, **how})
        assert [message.role[0] == message.content[0] for message in messages].count(False) == 0
        return [message.content for message in messages]

    assert await told(third) == ["u1", "a1", "u2", "a2"]
    assert await told(third, limit=3) == ["a1", "u2", "a2"]
    newest = (await store.journal.read_messages(third, before=None, limit=3))[0]
    assert newest.run_id == claim.run_id
    assert await told(third, before=newest) == ["u1"]
    assert await told(second) == ["u1", "a1"]
    assert await told(claim) == []


async def test_a_page_ends_with_the_event_that_makes_it_long_enough(store: Store) -> None:
    claim = await store.claimed()
    await store.append(claim, 2, *(piece("x" * 1000) for _ in range(5)))

    async def read(after: int, most_bytes: int) -> tuple[list[int], bool]:
        page = await store.journal.read_events(
            ANN, T, epoch=claim.epoch, after_seq=after, limit=9, most_bytes=most_bytes
        )
        return [record.seq for _, record in page.events], page.more

    assert await read(0, 1500) == ([1, 2, 3], True)
    assert await read(3, 1) == ([4], True)
    assert await read(4, 1_000_000) == ([5, 6], False)
    assert await read(6, 1) == ([], False)
