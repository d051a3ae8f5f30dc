"""A page of a thread's messages is one snapshot with the thread's numbers, and pages join."""

import asyncio

import pytest

from agentws.wire.answers import ThreadHistory
from agentws.wire.codec import timestamp
from agentws.wire.errors import Fault
from agentws.wire.ids import ThreadId, cursor_of

from .conftest import ANN, BOB, NODE, Connection, Store, T, number, piece, refusal_of, until_waiting

MOST = (1 << 63) - 1


async def history(store: Store, *, limit: int = 50, before: str | None = None) -> ThreadHistory:
    return await store.threads.history(ANN, T, frame_id="i", limit=limit, before=before)


async def talk(store: Store, turns: int) -> None:
    """Runs that have ended: q0, a0, q1, a1 …"""
    for turn in range(turns):
        accepted = await store.accept(new=not turn, text=f"q{turn}", owner=NODE)
        assert accepted.claim is not None
        await store.finish(accepted.claim, response=f"a{turn}")


async def test_messages_are_told_with_their_runs_state_and_number(store: Store) -> None:
    first = await store.claimed(text="one")
    await store.append(first, 2, piece("x"))
    waiting = await store.accept(text="two")
    second = (await store.finish(first, first=3, response="answer", owner=NODE)).next
    assert second is not None
    last = await store.accept(text="three")
    told = await history(store)
    assert (told.id, told.thread_id, told.epoch) == ("i", T, first.epoch)
    assert (told.last_seq, told.resume_after, told.next_before) == (6, 2, None)
    assert [(each.role, each.content, each.run_id, each.status, each.seq) for each in told.messages] == [
        ("user", "one", first.run_id, "completed", 1),
        ("assistant", "answer", first.run_id, "completed", 4),
        ("user", "two", waiting.run_id, "running", 5),
        ("user", "three", last.run_id, "queued", 6),
    ]
    assert len({each.message_id for each in told.messages}) == 4
    assert told.messages[0].created_at == timestamp(first.accepted_at)
    assert [each.message_id for each in (await history(store)).messages] == [each.message_id for each in told.messages]


async def test_a_run_that_was_stopped_while_it_waited_has_the_number_of_its_queueing(store: Store) -> None:
    await store.claimed()
    waiting = await store.accept(text="two")
    await store.starts.stop(ANN, run_id=waiting.run_id, run_no=None, thread_id=None, reason="user")
    message = (await history(store)).messages[-1]
    assert (message.content, message.status, message.seq) == ("two", "stopped", 2)


async def test_a_run_without_an_answer_has_no_message_of_the_assistant(store: Store) -> None:
    for response in (None, ""):
        accepted = await store.accept(new=response is None, owner=NODE)
        assert accepted.claim is not None
        await store.finish(accepted.claim, response=response)
    assert [message.role for message in (await history(store)).messages] == ["user", "user"]


async def test_an_empty_thread_has_an_empty_history(store: Store) -> None:
    thread = await store.threads.create(ANN, T, number(), title=None, metadata=None)
    told = await history(store)
    assert (told.messages, told.next_before, told.last_seq, told.resume_after) == ([], None, 0, 0)
    assert told.epoch == thread.epoch


async def test_a_thread_that_is_not_the_users_has_none(store: Store) -> None:
    await store.claimed(BOB)
    assert await refusal_of(history(store)) == "thread_not_found"


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 10, 11, 200])
async def test_pages_join_to_the_whole_and_the_last_says_so(store: Store, limit: int) -> None:
    await talk(store, 5)
    pages = [await history(store, limit=limit)]
    while (before := pages[-1].next_before) is not None:
        pages.append(await history(store, limit=limit, before=before))
    assert [len(page.messages) for page in pages[:-1]] == [limit] * (len(pages) - 1)
    assert 0 < len(pages[-1].messages) <= limit
    told = [message.content for page in reversed(pages) for message in page.messages]
    assert told == [f"{kind}{turn}" for turn in range(5) for kind in "qa"]


async def test_what_comes_meanwhile_moves_no_page(store: Store) -> None:
    await talk(store, 3)
    first = await history(store, limit=2)
    running = await store.accept(owner=NODE)
    await store.accept(if_busy="interrupt")
    second = await history(store, limit=2, before=first.next_before)
    assert [message.content for message in second.messages] == ["q1", "a1"]
    assert second.resume_after == running.seq


@pytest.mark.parametrize("place", [(MOST, MOST), (0, MOST), (1 << 40, 1 << 40)])
async def test_a_cursor_of_another_list_is_refused(store: Store, place: tuple[int, int]) -> None:
    await talk(store, 1)
    with pytest.raises(Fault) as raised:
        await history(store, before=cursor_of(*place))
    assert (raised.value.code, raised.value.details) == ("validation_error", {"field": "before"})


async def test_nothing_comes_before_the_first_message(store: Store) -> None:
    await talk(store, 1)
    assert (await history(store, before=cursor_of(0, 0))).messages == []


async def test_an_interruption_stands_before_those_that_wait(store: Store) -> None:
    await store.claimed(text="r")
    await store.accept(text="a")
    await store.accept(text="i", if_busy="interrupt")
    assert [message.content for message in (await history(store)).messages] == ["r", "i", "a"]


async def test_numbers_and_messages_are_of_one_moment(store: Store, owner: Connection) -> None:
    """What is committed between the reading of the numbers and that of the messages is in neither."""
    claim = await store.claimed(text="before")
    async with owner.transaction():
        await owner.execute("LOCK TABLE agentws.message IN ACCESS EXCLUSIVE MODE")
        reading = asyncio.ensure_future(history(store))
        await until_waiting(owner, 1)
        await owner.execute("UPDATE agentws.thread_head SET last_seq = 9, running_run_no = NULL")
        await owner.execute("DELETE FROM agentws.run_queue")
        await owner.execute("UPDATE agentws.run SET status = 'completed', ended_seq = 9")
        await owner.execute(
            "INSERT INTO agentws.message (user_id, thread_no, turn, role, message_no, run_no, content)"
            " SELECT user_id, thread_no, turn, 1, message_no + 1, run_no, 'after' FROM agentws.message"
        )
    told = await reading
    assert (told.last_seq, told.resume_after) == (1, 0)
    assert [(message.content, message.status) for message in told.messages] == [("before", "running")]
    later = await history(store)
    assert (later.last_seq, later.resume_after) == (9, 9)
    assert [message.content for message in later.messages] == ["before", "after"]
    assert later.messages[0].run_id == claim.run_id


async def test_a_history_read_while_runs_come_and_go_is_always_whole(store: Store) -> None:
    """A subscription from `resume_after` on brings the rest: nothing of an ended run, everything of the others."""
    await talk(store, 1)
    done = asyncio.Event()

    async def write() -> None:
        await talk_on(store, 30)
        done.set()

    async def look() -> int:
        looks = 0
        while not done.is_set() or not looks:
            check(await history(store, limit=200))
            looks += 1
        return looks

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(write())
        looking = [tasks.create_task(look()) for _ in range(2)]
    assert min(task.result() for task in looking) >= 1
    check(await history(store, limit=200))


async def talk_on(store: Store, turns: int) -> None:
    for turn in range(turns):
        accepted = await store.accept(text=f"more{turn}", owner=NODE)
        assert accepted.claim is not None
        await store.append(accepted.claim, 2, piece("x"))
        await store.finish(accepted.claim, first=3, response="y")


def check(told: ThreadHistory) -> None:
    ended = [message for message in told.messages if message.status == "completed"]
    at_work = [message for message in told.messages if message.status == "running"]
    assert len(ended) % 2 == 0
    assert len(ended) + len(at_work) == len(told.messages)
    assert all(message.seq <= told.resume_after for message in ended)
    assert [message.seq for message in at_work] == (
        [] if told.resume_after == told.last_seq else [told.resume_after + 1]
    )


async def test_the_thread_of_a_history_is_named(store: Store) -> None:
    await store.claimed(thread="u")
    told = await store.threads.history(ANN, ThreadId("u"), frame_id=None, limit=9, before=None)
    assert (told.id, told.thread_id) == (None, "u")
