"""A run that has ended is kept in few events, which say the same to whoever reads them, from wherever."""

import asyncio
import itertools
import json
from collections.abc import Sequence
from typing import Any

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentws.core.fold import Group, merge
from agentws.core.framing import first_of, frame
from agentws.core.run import Claim, Draft, Foldable
from agentws.runtime import folder
from agentws.runtime.folder import Folder
from agentws.store.outlines import PgOutlines
from agentws.wire.events import EventType
from agentws.wire.ids import ThreadId, ThreadNo, new_number

from ..conftest import TestDatabase
from ..histories import Event, Reader, Written, courses
from .conftest import ANN, BOB, NODE, Connection, Store, T, until_waiting

MANY = 17


def pieces(count: int, *, start: int = 0) -> list[Draft]:
    return [Draft(EventType.AGENT_MESSAGE, f'{{"text":"x","offset":{start + n}}}') for n in range(count)]


async def ended(store: Store, thread: str = T, *, drafts: Sequence[Draft] = (), owner: int | None = None) -> Claim:
    """A run that has ended, in a new thread."""
    drafts = drafts or pieces(40)
    claim = await store.claimed(thread=thread)
    await store.append(claim, 2, *drafts)
    await store.finish(claim, first=2 + len(drafts), owner=owner)
    return claim


async def read(store: Store, thread: str = T, after: int = 0) -> list[Event]:
    head = await store.journal.read_head(ANN, ThreadId(thread))
    assert head is not None
    return [*await store.records(ANN, ThreadId(thread), epoch=head.epoch, after_seq=after, limit=1000)]


def frames(events: Sequence[Event]) -> list[dict[str, Any]]:
    return [json.loads(frame(*event)) for event in events]


def due(store: Store) -> Folder:
    """A folder for which all runs are due that have ended."""
    return Folder(store.nodes, store.retention, age_s=0)


def of(claim: Claim) -> Foldable:
    return Foldable(principal=claim.principal, thread_id=claim.thread_id, run_no=claim.run_no)


async def spans(owner: Connection) -> list[tuple[int | None, int]]:
    return [tuple(row) for row in await owner.fetch("SELECT from_seq, seq FROM agentws.event ORDER BY user_id, seq")]


async def waiting(owner: Connection) -> int:
    return int(await owner.fetchval("SELECT count(*) FROM agentws.fold_queue"))


async def test_a_finished_answer_of_a_thousand_pieces_is_one_event(store: Store, owner: Connection) -> None:
    await ended(store, drafts=pieces(1000))
    before = [*(await read(store))[:1], *await read(store, after=1000)]
    assert await due(store).fold_due() == 1
    started, answer, completed = await read(store)
    assert (answer[1].from_seq, answer[1].seq, answer[1].ordinal) == (2, 1001, 1001)
    assert json.loads(answer[1].body or "") == {"text": "x" * 1000, "offset": 0}
    assert (answer[1].timestamp, answer[1].attempt) == (before[-2][1].timestamp, 1)
    assert [started, completed] == [before[0], before[-1]]
    assert await waiting(owner) == 0


async def test_a_short_run_stays_as_it_is_and_costs_nothing(store: Store, owner: Connection) -> None:
    await ended(store, drafts=pieces(MANY - 3))
    assert await waiting(owner) == 0
    await ended(store, "u", drafts=pieces(MANY - 2))
    assert await waiting(owner) == 1


async def test_a_run_is_folded_some_time_after_its_end_and_by_one_process_at_a_time(store: Store) -> None:
    claim = await ended(store)
    assert await store.nodes.claim_folds(older_than_s=60, limit=9) == []
    assert await store.nodes.claim_folds(older_than_s=0, limit=9) == [of(claim)]
    assert await store.nodes.claim_folds(older_than_s=60, limit=9) == []
    # Whoever claimed it may have died.
    assert await store.nodes.claim_folds(older_than_s=0, limit=9) == [of(claim)]


async def test_those_that_wait_longest_are_claimed_first(store: Store) -> None:
    claims = [await ended(store, f"t{n}") for n in range(3)]
    assert await store.nodes.claim_folds(older_than_s=0, limit=2) == [of(claims[0]), of(claims[1])]
    assert {run.run_no for run in await store.nodes.claim_folds(older_than_s=0, limit=2)} >= {claims[2].run_no}


async def write(store: Store, thread: str, written: Sequence[Sequence[Written]], joins: Sequence[int]) -> None:
    """Runs of a thread, one after the other; those behind the first come to wait after so many of its events."""
    claim, come = await store.claimed(thread=thread), 1
    for course in written:
        ordinal, left = claim.ordinal + 1, list(course)
        while left or come < len(written):
            if come < len(written) and (not left or len(course) - len(left) >= joins[come - 1]):
                await store.accept(thread=thread)
                come += 1
                continue
            stretch = [each for each in left[:5] if each.attempt == left[0].attempt]
            drafts = [Draft(each.type, each.body) for each in stretch]
            await store.append(claim, ordinal, *drafts, attempt=stretch[0].attempt)
            ordinal, left = ordinal + len(stretch), left[len(stretch) :]
        appended = await store.finish(claim, first=ordinal, owner=NODE)
        if appended.next is None:
            return
        claim = appended.next


async def test_a_reader_holds_the_same_of_every_history(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "PAGE", 7)
    loop = asyncio.get_running_loop()
    names = (f"thread{n}" for n in itertools.count())
    saved: list[int] = []

    async def examine(written: list[list[Written]], joins: list[int], after: int) -> None:
        thread = next(names)
        await write(store, thread, written, joins)
        original = await read(store, thread)
        long = {record.ordinal > MANY - 1 and origin.run_no for origin, record in original}
        await due(store).fold_due()
        folded = await read(store, thread)
        expected = merge(original)
        saved.append(len(original) - len(folded))
        assert [each for each in folded if each[0].run_no in long] == [
            each for each in expected if each[0].run_no in long
        ]
        assert merge(folded) == expected
        assert first_of(folded[0][1]) == 1
        for before, behind in itertools.pairwise([record for _, record in folded]):
            assert first_of(behind) == before.seq + 1
        whole = Reader.of(frames(original))
        assert Reader.of(frames(folded)) == whole
        reader = Reader.of(frames(original[:after]))
        reader.read(frames(await read(store, thread, min(after, len(original)))))
        assert reader == whole

    @settings(database=None, deadline=None, max_examples=40, suppress_health_check=list(HealthCheck))
    @given(
        st.lists(courses(), min_size=1, max_size=3),
        st.lists(st.integers(0, 30), min_size=2, max_size=2),
        st.integers(0, 80),
    )
    def check(written: list[list[Written]], joins: list[int], after: int) -> None:
        asyncio.run_coroutine_threadsafe(examine(written, joins, after), loop).result()

    await asyncio.to_thread(check)
    assert max(saved) > 0


async def test_two_that_fold_one_run_at_once_fold_it_once(store: Store, owner: Connection) -> None:
    claim = await ended(store)
    group = Group(from_seq=2, seq=41, rows=40, body='{"text":"all","offset":0}')
    assert await store.retention.fold(of(claim), [group], last=False)
    assert not await store.retention.fold(of(claim), [group], last=True)
    assert await spans(owner) == [(None, 1), (2, 41), (None, 42)]
    assert await waiting(owner) == 1
    await asyncio.gather(*(due(store).fold(of(claim)) for _ in range(4)))
    assert await spans(owner) == [(None, 1), (2, 41), (None, 42)]
    assert await waiting(owner) == 0


async def test_many_that_fold_many_runs_at_once_lose_nothing(store: Store, owner: Connection) -> None:
    for n in range(8):
        await ended(store, f"t{n}")
    await asyncio.gather(*(due(store).fold_due() for _ in range(4)))
    await due(store).fold_due()
    rows = await owner.fetch("SELECT thread_no, from_seq, seq FROM agentws.event WHERE type = 'agent_message'")
    assert (len(rows), {(row["from_seq"], row["seq"]) for row in rows}) == (8, {(2, 41)})


async def test_one_that_dies_between_two_steps_is_followed_by_another(
    store: Store, owner: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = await ended(store)
    group = Group(from_seq=2, seq=11, rows=10, body=f'{{"text":"{"x" * 10}","offset":0}}')
    assert await store.retention.fold(of(claim), [group], last=False)
    monkeypatch.setattr(folder, "PAGE", 4)
    await due(store).fold_due()
    assert await spans(owner) == [(None, 1), (2, 41), (None, 42)]


@pytest.mark.parametrize("made_anew", [False, True])
async def test_what_was_deleted_meanwhile_is_left_alone(store: Store, owner: Connection, made_anew: bool) -> None:
    claim = await ended(store)
    await store.threads.delete(ANN, T)
    if made_anew:
        await store.threads.create(ANN, T, ThreadNo(new_number()), title=None, metadata=None)
    before = await spans(owner)
    await due(store).fold_due()
    assert (await spans(owner), await waiting(owner)) == (before, 0)
    assert not await store.retention.fold(of(claim), [], last=True)


@pytest.mark.parametrize("call", ["delete", "remove"])
async def test_whoever_removes_events_waits_for_a_fold_and_whoever_writes_does_not(
    store: Store, owner: Connection, database: TestDatabase, call: str
) -> None:
    claim = await ended(store)
    at_work = await store.claimed(new=False)
    folding = await asyncpg.connect(database.owner_url)
    try:
        async with folding.transaction():
            assert await folding.fetchval(
                "SELECT agentws.fold_run('', 'ann', $1, $2, '{2}', '{41}', '{40}', $3, true)",
                T, claim.run_no, ['{"text":"all","offset":0}'],
            )  # fmt: skip
            await store.append(at_work, 2, *pieces(1))
            # Readers neither wait nor see it.
            assert len(await read(store)) == 44
            removing = asyncio.ensure_future(
                store.threads.delete(ANN, T)
                if call == "delete"
                else store.pool.user(ANN, "SELECT agentws.remove_aged($1,$2,$3,'0 s',1000) AS n", T)
            )
            await until_waiting(owner, 1)
        await removing
    finally:
        await folding.close()
    if call == "remove":
        assert await spans(owner) == [(None, 43), (None, 44)]


async def test_an_event_that_is_not_what_its_type_says_keeps_nobody_from_folding(
    store: Store, owner: Connection
) -> None:
    odd = [Draft(EventType.AGENT_MESSAGE, body) for body in ("[]", '{"text":"a"}', '{"text":"\\u0000","offset":20}')]
    await ended(store, drafts=[*pieces(20), *odd, *pieces(20, start=21)])
    await due(store).fold_due()
    assert await spans(owner) == [(None, 1), (2, 21), (None, 22), (None, 23), (24, 44), (None, 45)]


async def test_a_page_that_a_large_event_fills_is_passed(
    store: Store, owner: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder, "_PAGE_BYTES", 1000)
    large = [
        Draft(EventType.AGENT_THINKING, json.dumps({"reasoning": "y" * 2000, "step": n, "offset": 0})) for n in (1, 2)
    ]
    await ended(store, drafts=[*pieces(20), *large, *pieces(100, start=20)])
    async with asyncio.timeout(20):
        await due(store).fold_due()
    assert await spans(owner) == [(None, 1), (2, 21), (None, 22), (None, 23), (24, 123), (None, 124)]


async def test_the_run_of_another_user_by_the_same_names_is_not_touched(store: Store, owner: Connection) -> None:
    claim = await ended(store)
    other = await store.claimed(BOB)
    await store.append(other, 2, *pieces(40))
    await due(store).fold(of(claim))
    assert len(await spans(owner)) == 3 + 41


async def test_a_repeated_end_claims_no_run_of_a_thread_made_anew(store: Store) -> None:
    """What the end claimed is looked for in its own thread: the name may be another thread's by now."""
    claim = await store.claimed()
    await store.finish(claim, owner=NODE)
    await store.threads.delete(ANN, T)
    first = await store.claimed()
    waits = await store.accept()
    began = await store.finish(first, owner=NODE)
    assert began.next is not None
    assert began.next.run_no == waits.run_no
    repeated = await store.finish(claim, owner=NODE)
    assert (repeated.skipped, repeated.next) == (1, None)
    again = await store.finish(first, owner=NODE)
    assert again.next is not None
    assert again.next.run_no == waits.run_no


async def test_an_operator_is_told_how_many_pieces_there_were(store: Store) -> None:
    await ended(store)
    await due(store).fold_due()
    run_id = (await read(store))[0][0].run_id
    outline = await PgOutlines(store.pool).read(tenant_id="", user_id="ann", run_id=run_id)
    assert outline is not None
    assert [(each.type, each.pieces, each.characters) for each in outline.events] == [
        ("agent_started", 1, None),
        ("agent_message", 40, 40),
        ("agent_completed", 1, None),
    ]
