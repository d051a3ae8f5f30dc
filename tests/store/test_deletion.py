"""A deleted thread's runs have ended and its name is free at once; who follows it still reads to its end."""

import asyncio
import json
from typing import Any

import pytest

from agentws.core.context import Principal
from agentws.core.framing import Record
from agentws.core.run import Deleted, Draft
from agentws.ports import End, Fenced, ThreadKey
from agentws.wire.events import EventType
from agentws.wire.ids import ThreadId

from .conftest import ANN, BOB, NODE, Connection, Store, T, contents, number, piece, refusal_of, until_waiting


async def delete(store: Store, whose: Principal = ANN, thread: str = T) -> Deleted:
    return await store.threads.delete(whose, ThreadId(thread))


async def read(store: Store, epoch: str, whose: Principal = ANN) -> list[tuple[str, Record]]:
    """The events of a thread's incarnation, with their runs."""
    events = await store.records(whose, T, epoch=epoch, after_seq=0, limit=1000)
    assert [record.seq for _, record in events] == list(range(1, len(events) + 1))
    return [(origin.run_id, record) for origin, record in events]


def executing(execution_id: str) -> Draft:
    body = {"execution_id": execution_id, "tool_name": "search", "parameters": {}}
    return Draft(EventType.TOOL_EXECUTING, json.dumps(body))


def completed(execution_id: str) -> Draft:
    body = {"execution_id": execution_id, "tool_name": "search", "success": True, "outcome": "done", "result": 1}
    return Draft(EventType.TOOL_COMPLETED, json.dumps({**body, "error": None, "duration_ms": 1}))


def payload(record: Record) -> Any:
    assert record.body is not None
    return json.loads(record.body)


# What is gone


async def test_an_idle_thread_is_gone_and_told_where_it_ended(store: Store) -> None:
    claim = await store.claimed()
    await store.finish(claim)
    assert await delete(store) == Deleted(epoch=claim.epoch, last_seq=2, running=[], ended=[])
    for call in (
        store.threads.read(ANN, T),
        store.threads.update(ANN, T, title="x", metadata=None),
        store.threads.history(ANN, T, frame_id=None, limit=9, before=None),
        store.accept(owner=NODE),
        store.starts.stop(ANN, run_id=None, run_no=None, thread_id=T, reason="user"),
        delete(store),
    ):
        assert await refusal_of(call) == "thread_not_found"
    assert await store.journal.read_head(ANN, T) is None
    assert (await store.threads.list_page(ANN, frame_id=None, limit=9, before=None)).threads == []


async def test_a_thread_without_runs_is_deleted_too(store: Store) -> None:
    thread = await store.threads.create(ANN, T, number(), title="T", metadata=None)
    assert await delete(store) == Deleted(epoch=thread.epoch, last_seq=0, running=[], ended=[])


@pytest.mark.parametrize("whose", [BOB, Principal("acme", "ann")])
async def test_nobody_deletes_anothers_thread(store: Store, owner: Connection, whose: Principal) -> None:
    await store.claimed()
    before = await contents(owner)
    assert await refusal_of(delete(store, whose)) == "thread_not_found"
    assert await contents(owner) == before
    await store.claimed(whose)
    await delete(store, whose)
    assert (await store.threads.read(ANN, T)).thread.running_run_id is not None


# Its runs


async def test_a_run_at_work_ends_with_the_text_that_it_had(store: Store) -> None:
    claim = await store.claimed(kind="chat")
    await store.append(claim, 2, piece("so "), Draft(EventType.AGENT_EVENT, '{"text":"no"}'), piece("far"))
    deleted = await delete(store)
    assert (deleted.running, deleted.ended, deleted.last_seq) == ([claim.run_no], [(claim.run_no, "chat")], 5)
    run_id, last = (await read(store, claim.epoch))[-1]
    assert (run_id, last.type, last.ordinal, last.attempt) == (claim.run_id, "agent_stopped", 5, 1)
    assert (last.content, payload(last)["reason"]) == ("so far", "thread_deleted")
    assert payload(last)["duration_ms"] >= 0


async def test_a_run_that_had_written_nothing_ends_without_a_text(store: Store, owner: Connection) -> None:
    claim = await store.claimed()
    await delete(store)
    assert (await read(store, claim.epoch))[-1][1].content is None
    assert await owner.fetchval("SELECT count(*) FROM agentws.message WHERE role = 1") == 0


async def test_its_open_tools_are_closed_first_in_their_order(store: Store) -> None:
    claim = await store.claimed()
    await store.append(claim, 2, executing("a"), executing("b"), completed("a"), executing("c"))
    await delete(store)
    events = [record for _, record in await read(store, claim.epoch)]
    assert [record.type for record in events[5:]] == ["tool_completed", "tool_completed", "agent_stopped"]
    assert [record.ordinal for record in events] == list(range(1, 9))
    for record, execution_id in zip(events[5:], "bc", strict=False):
        told = payload(record)
        assert told.pop("duration_ms") >= 0
        error = told.pop("error")
        assert (error["code"], set(error)) == ("tool_stopped", {"code", "message"})
        assert told == {
            "execution_id": execution_id, "tool_name": "search", "success": False, "outcome": "unknown", "result": None,
        }  # fmt: skip


async def test_what_an_earlier_attempt_left_is_neither_its_text_nor_closed_again(store: Store) -> None:
    claim = await store.claimed()
    await store.append(claim, 2, piece("old"), executing("a"))
    await store.append(claim, 4, completed("a"), Draft(EventType.AGENT_STARTED, None), piece("new"), attempt=2)
    await delete(store)
    events = [record for _, record in await read(store, claim.epoch)]
    assert [record.type for record in events[6:]] == ["agent_stopped"]
    assert (events[6].content, events[6].attempt) == ("new", 2)


async def test_nothing_more_is_written_of_it(store: Store, owner: Connection) -> None:
    claim = await store.claimed()
    await delete(store)
    before = await contents(owner)
    for stopped in (False, True):
        with pytest.raises(Fenced):
            await store.finish(claim, stopped=stopped, owner=NODE)
    with pytest.raises(Fenced):
        await store.append(claim, 2, piece("x"))
    assert await contents(owner) == before
    assert await store.nodes.take_over(NODE, orphans=[], limit=9) == []
    assert await owner.fetchval("SELECT count(*) FROM agentws.run_queue") == 0
    # Nor in a thread of the same name.
    await store.claimed()
    with pytest.raises(Fenced):
        await store.append(claim, 2, piece("x"))


async def test_waiting_runs_end_in_their_turn_after_the_one_at_work(store: Store) -> None:
    claim = await store.claimed(kind="start_agent")
    waiting = [await store.accept(kind=kind) for kind in ("chat", "user_message")]
    interrupting = await store.accept(if_busy="interrupt", kind="start_agent")
    deleted = await delete(store)
    assert deleted.running == [claim.run_no]
    assert deleted.ended == [
        (claim.run_no, "start_agent"), (interrupting.run_no, "start_agent"),
        (waiting[0].run_no, "chat"), (waiting[1].run_no, "user_message"),
    ]  # fmt: skip
    events = await read(store, claim.epoch)
    assert deleted.last_seq == len(events) == 8
    order = [claim.run_id, interrupting.run_id, *(each.run_id for each in waiting)]
    assert [(run, record.type) for run, record in events[4:]] == [(run, "agent_stopped") for run in order]
    for _, record in events[4:]:
        assert (payload(record)["reason"], record.content) == ("thread_deleted", None)


async def test_a_run_that_was_claimed_and_not_begun_ends_and_is_never_begun(store: Store) -> None:
    accepted = await store.accept(new=True)
    [ticket] = await store.nodes.claim_waiting(NODE, ["demo"], limit=9)
    deleted = await delete(store)
    assert deleted.running == [accepted.run_no]
    assert await store.starts.begin(ticket) is None
    events = await read(store, accepted.epoch)
    assert [record.type for _, record in events] == ["agent_queued", "agent_stopped"]
    assert payload(events[1][1])["duration_ms"] >= 0


@pytest.mark.parametrize("anew", [False, True])
async def test_its_runs_are_not_found_by_a_stop_also_where_its_name_was_made_anew(store: Store, anew: bool) -> None:
    claim = await store.claimed()
    waiting = await store.accept()
    await delete(store)
    if anew:
        await store.claimed()
    for run_id, run_no in ((claim.run_id, None), (None, waiting.run_no)):
        stopping = store.starts.stop(ANN, run_id=run_id, run_no=run_no, thread_id=None, reason="user")
        assert await refusal_of(stopping) == "run_not_found"
    assert not anew or [kind for _, kind, _ in await store.events()] == ["agent_started"]


async def test_a_repeat_of_its_start_is_answered_without_it(store: Store) -> None:
    first = await store.accept(new=True, key="k", owner=NODE)
    await delete(store)
    for _ in range(2):
        repeat = await store.accept(key="k")
        assert (repeat.duplicate, repeat.run_id, repeat.epoch, repeat.seq) == (True, first.run_id, first.epoch, 0)
        assert (repeat.status, repeat.position, repeat.thread_exists) == ("stopped", 0, False)
        # The same once its name was made anew.
        await store.threads.create(ANN, T, number(), title=None, metadata=None)


# Its name, and its followers


async def test_its_name_is_made_anew_beside_it(store: Store) -> None:
    claim = await store.claimed(text="old")
    deleted = await delete(store)
    anew = await store.claimed(text="new")
    assert anew.epoch != claim.epoch
    assert (anew.seq, anew.thread_no != claim.thread_no) == (1, True)
    assert [record.type for _, record in await read(store, anew.epoch)] == ["agent_started"]
    assert [record.content for _, record in await read(store, claim.epoch)] == ["old", None]
    history = await store.threads.history(ANN, T, frame_id=None, limit=9, before=None)
    assert [message.content for message in history.messages] == ["new"]
    assert await store.journal.read_messages(anew, before=None, limit=9) == []
    key, again = (ThreadKey(ANN, T), claim.epoch), (ThreadKey(ANN, T), anew.epoch)
    assert await store.journal.read_ends([key, again]) == {
        key: End(epoch=claim.epoch, last_seq=deleted.last_seq, deleted=True),
        again: End(epoch=anew.epoch, last_seq=1),
    }


async def test_a_name_can_be_deleted_again_and_again(store: Store) -> None:
    ends = []
    for _ in range(3):
        await store.claimed()
        ends.append(await delete(store))
    assert len({deleted.epoch for deleted in ends}) == 3
    for deleted in ends:
        assert [record.type for _, record in await read(store, deleted.epoch)] == ["agent_started", "agent_stopped"]


async def test_followers_of_a_deleted_thread_are_told_its_end_by_its_epoch(store: Store) -> None:
    claim = await store.claimed()
    deleted = await delete(store)
    followed = [(ThreadKey(ANN, T), epoch) for epoch in (claim.epoch, "another")]
    assert await store.journal.read_ends(followed) == {
        followed[0]: End(epoch=claim.epoch, last_seq=deleted.last_seq, deleted=True)
    }
    assert await read(store, claim.epoch, BOB) == []
    assert await read(store, "another") == []


# At the same time


async def both_behind_the_lock(owner: Connection, *calls: Any) -> list[Any]:
    """Begins calls one after the other while the thread is locked; their answers."""
    begun = []
    async with owner.transaction():
        await owner.execute("SELECT FROM agentws.thread_head FOR UPDATE")
        for call in calls:
            begun.append(asyncio.ensure_future(call))
            await until_waiting(owner, len(begun))
    return await asyncio.gather(*begun, return_exceptions=True)


async def test_of_two_who_delete_at_once_one_does(store: Store, owner: Connection) -> None:
    await store.claimed()
    answers = await both_behind_the_lock(owner, delete(store), delete(store))
    assert sorted(type(answer).__name__ for answer in answers) == ["Deleted", "Fault"]
    assert await owner.fetchval("SELECT count(*) FROM agentws.deleted_thread") == 1


@pytest.mark.parametrize("deletes_first", [True, False])
async def test_an_append_is_before_the_end_or_not_written(store: Store, owner: Connection, deletes_first: bool) -> None:
    claim = await store.claimed()
    calls = [delete(store), store.append(claim, 2, piece("x"))]
    await both_behind_the_lock(owner, *(calls if deletes_first else reversed(calls)))
    kinds = [record.type for _, record in await read(store, claim.epoch)]
    assert kinds == ["agent_started", *([] if deletes_first else ["agent_message"]), "agent_stopped"]


@pytest.mark.parametrize("deletes_first", [True, False])
async def test_a_run_ends_once(store: Store, owner: Connection, deletes_first: bool) -> None:
    claim = await store.claimed()
    await store.accept()
    calls = [delete(store), store.finish(claim, owner=NODE)]
    answers = await both_behind_the_lock(owner, *(calls if deletes_first else reversed(calls)))
    events = await read(store, claim.epoch)
    ended = [run for run, record in events if record.type in ("agent_stopped", "agent_completed")]
    assert len(ended) == len(set(ended)) == 2
    assert [isinstance(answer, Fenced) for answer in answers] == [False, deletes_first]


@pytest.mark.parametrize("if_busy", ["queue", "reject", "interrupt"])
async def test_a_start_behind_it_finds_no_thread(store: Store, owner: Connection, if_busy: str) -> None:
    claim = await store.claimed()
    [_, refused] = await both_behind_the_lock(owner, delete(store), store.accept(if_busy=if_busy, owner=NODE))
    assert refused.code == "thread_not_found"
    assert len(await read(store, claim.epoch)) == 2


async def test_a_start_before_it_ends_with_it(store: Store, owner: Connection) -> None:
    claim = await store.claimed()
    [accepted, deleted] = await both_behind_the_lock(owner, store.accept(), delete(store))
    assert (accepted.status, deleted.last_seq) == ("queued", 4)
    assert [record.type for run, record in await read(store, claim.epoch) if run == accepted.run_id] == [
        "agent_queued", "agent_stopped",
    ]  # fmt: skip


async def test_a_claim_behind_it_gets_nothing(store: Store, owner: Connection) -> None:
    accepted = await store.accept(new=True)
    async with owner.transaction():
        await owner.execute("LOCK TABLE agentws.deleted_thread IN EXCLUSIVE MODE")
        deleting = asyncio.ensure_future(delete(store))
        await until_waiting(owner, 1)
        assert await store.nodes.claim_waiting(NODE, ["demo"], limit=9) == []
    assert (await deleting).ended == [(accepted.run_no, "user_message")]
    assert len(await read(store, accepted.epoch)) == 2
