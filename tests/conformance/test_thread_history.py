"""Sections 3 and 4, `get_thread_history`: the messages of a thread in the queue's order, of one snapshot."""

import pytest

from .client import Client, Server, connect, fresh
from .runs import ENDLESS, at_work
from .shapes import Frame
from .threads import history, pages


def told(messages: list[Frame]) -> list[tuple[str, str, str]]:
    return [(message["role"], message["content"], message["status"]) for message in messages]


def only(events: list[Frame], kind: str) -> Frame:
    [event] = [event for event in events if event["type"] == kind]
    return event


async def test_a_thread_without_messages_has_an_empty_history(server: Server) -> None:
    async with connect(server) as client:
        thread = await client.new_thread()
        answer = await history(client, thread["thread_id"])
        assert (answer["messages"], answer["next_before"]) == ([], None)
        assert (answer["last_seq"], answer["resume_after"], answer["epoch"]) == (0, 0, thread["epoch"])


async def test_a_run_that_completed_is_a_question_and_an_answer(server: Server) -> None:
    async with connect(server) as client:
        events = await client.run("quick brown foxes")
        answer = await history(client, events[0]["thread_id"])
        user, assistant = answer["messages"]
        assert (user["role"], user["content"], user["status"]) == ("user", "quick brown foxes", "completed")
        assert user["seq"] == only(events, "agent_started")["seq"]
        assert (assistant["role"], assistant["status"]) == ("assistant", "completed")
        assert (assistant["content"], assistant["seq"]) == (events[-1]["payload"]["response"], events[-1]["seq"])
        assert user["run_id"] == assistant["run_id"] == events[0]["run_id"]
        assert user["message_id"] != assistant["message_id"]
        assert (answer["last_seq"], answer["epoch"]) == (events[-1]["seq"], events[-1]["epoch"])


@pytest.mark.parametrize("text", ["Zoë\u0301 🎈", "two\nlines", "x" * 20_000])
async def test_a_question_is_kept_as_it_was(server: Server, text: str) -> None:
    async with connect(server) as client:
        accepted = await client.start(text)
        assert (await history(client, accepted["thread_id"]))["messages"][0]["content"] == text


async def test_a_run_at_work_has_a_question_and_no_answer_yet(server: Server) -> None:
    async with connect(server) as client:
        accepted = await at_work(client)
        [user] = (await history(client, accepted["thread_id"]))["messages"]
        assert (user["role"], user["status"], user["run_id"]) == ("user", "running", accepted["run_id"])
        assert user["seq"] == accepted["seq"] + 1


async def test_a_run_stopped_at_work_keeps_the_text_it_had(server: Server) -> None:
    async with connect(server) as client:
        accepted = await at_work(client)
        await client.stop(run_id=accepted["run_id"])
        stopped = await client.ended(accepted["run_id"])
        user, assistant = (await history(client, accepted["thread_id"]))["messages"]
        assert user["status"] == assistant["status"] == "stopped"
        assert (assistant["content"], assistant["seq"]) == (stopped["payload"]["response"], stopped["seq"])


async def test_runs_that_wait_are_questions_with_the_number_of_their_agent_queued(server: Server) -> None:
    async with connect(server) as client:
        first = await at_work(client)
        waiting = [await client.start(text) for text in ("one", "two")]
        queued = [await client.event(each["run_id"], "agent_queued") for each in waiting]
        messages = (await history(client, first["thread_id"]))["messages"]
        assert told(messages[1:]) == [("user", "one", "queued"), ("user", "two", "queued")]
        assert told(messages[:1]) == [("user", ENDLESS["content"], "running")]
        assert [message["seq"] for message in messages[1:]] == [event["seq"] for event in queued]


async def test_a_run_that_waited_has_the_number_of_its_agent_started_once_there_is_one(server: Server) -> None:
    async with connect(server) as client:
        first = await at_work(client)
        second = await client.start("what is 6 * 7?")
        await client.stop(run_id=first["run_id"])
        started = await client.event(second["run_id"], "agent_started")
        ended = await client.ended(second["run_id"])
        messages = (await history(client, first["thread_id"]))["messages"]
        of_second = [message for message in messages if message["run_id"] == second["run_id"]]
        assert [message["seq"] for message in of_second] == [started["seq"], ended["seq"]]
        assert [message["role"] for message in messages] == ["user", "assistant"] * 2


async def test_a_run_stopped_while_it_waits_keeps_the_number_of_its_agent_queued(server: Server) -> None:
    async with connect(server) as client:
        first = await at_work(client)
        second = await client.start("never answered")
        queued = await client.event(second["run_id"], "agent_queued")
        await client.stop(run_id=second["run_id"])
        await client.ended(second["run_id"])
        messages = (await history(client, first["thread_id"]))["messages"]
        assert told(messages[1:]) == [("user", "never answered", "stopped")]
        assert messages[1]["seq"] == queued["seq"]


@pytest.mark.needs("agents")
@pytest.mark.parametrize(
    ("agent", "status", "answers"),
    [
        ("echo", "completed", ["hi"]),
        ("fail", "failed", ["partial"]),
        ("unencodable", "failed", []),
        ("silent", "completed", []),
    ],
)
async def test_an_answer_appears_where_the_run_had_one(
    server: Server, agent: str, status: str, answers: list[str]
) -> None:
    async with connect(server) as client:
        events = await client.run("hi", agent=agent)
        messages = (await history(client, events[0]["thread_id"]))["messages"]
        assert told(messages) == [("user", "hi", status), *(("assistant", answer, status) for answer in answers)]
        assert [message["seq"] for message in messages[1:]] == [events[-1]["seq"]] * len(answers)


async def conversation(client: Client, count: int) -> tuple[str, list[str]]:
    """A thread of so many runs, and the contents of its messages."""
    thread_id = (await client.new_thread())["thread_id"]
    contents: list[str] = []
    for number in range(count):
        events = await client.run(f"message {number}", thread_id=thread_id)
        contents += [f"message {number}", events[-1]["payload"]["response"]]
    return thread_id, contents


def contents_of(messages: list[Frame]) -> list[str]:
    return [message["content"] for message in messages]


async def test_messages_come_oldest_first(server: Server) -> None:
    async with connect(server) as client:
        thread_id, contents = await conversation(client, 3)
        answer = await history(client, thread_id)
        assert contents_of(answer["messages"]) == contents
        assert [message["seq"] for message in answer["messages"]] == sorted(
            message["seq"] for message in answer["messages"]
        )


@pytest.mark.parametrize("limit", [1, 3, 4, 8, 200])
async def test_pages_go_back_from_the_latest_messages(server: Server, limit: int) -> None:
    async with connect(server) as client:
        thread_id, contents = await conversation(client, 4)
        asked = {"type": "get_thread_history", "payload": {"thread_id": thread_id, "limit": limit}}
        found = await pages(client, asked, "messages")
        assert [content for page in reversed(found) for content in contents_of(page)] == contents
        assert all(len(page) == limit for page in found[:-1])
        assert len(found[-1]) <= limit
        ids = [message["message_id"] for page in found for message in page]
        assert len(set(ids)) == len(contents)


async def test_a_cursor_leads_to_the_same_messages_after_new_ones_came(server: Server) -> None:
    async with connect(server) as client:
        thread_id, contents = await conversation(client, 3)
        cursor = (await history(client, thread_id, limit=2))["next_before"]
        older = await history(client, thread_id, limit=2, before=cursor)
        await client.run("later", thread_id=thread_id)
        again = await history(client, thread_id, limit=2, before=cursor)
        assert contents_of(older["messages"]) == contents[2:4]
        assert again["messages"] == older["messages"]


async def test_the_numbers_of_a_later_page_are_of_its_own_snapshot(server: Server) -> None:
    async with connect(server) as client:
        thread_id, _ = await conversation(client, 2)
        first = await history(client, thread_id, limit=1)
        events = await client.run("later", thread_id=thread_id)
        second = await history(client, thread_id, limit=1, before=first["next_before"])
        assert second["last_seq"] == events[-1]["seq"] > first["last_seq"]


async def test_every_connection_of_the_user_reads_the_same(server: Server) -> None:
    user = fresh("u")
    async with connect(server, user) as one, connect(server, user) as two:
        thread_id, _ = await conversation(one, 2)
        mine, theirs = await history(one, thread_id), await history(two, thread_id)
        for name in ("messages", "last_seq", "resume_after", "epoch", "next_before"):
            assert mine[name] == theirs[name]


async def test_a_history_subscribes_to_nothing(server: Server) -> None:
    user = fresh("u")
    async with connect(server, user) as one, connect(server, user) as two:
        thread_id, _ = await conversation(one, 1)
        await history(two, thread_id)
        await one.run("unheard", thread_id=thread_id)
        await history(two, thread_id)
        assert two.events(thread_id) == []


async def test_reading_a_history_makes_no_thread_current(server: Server) -> None:
    user = fresh("u")
    async with connect(server, user) as one, connect(server, user) as two:
        thread_id, _ = await conversation(one, 1)
        await history(two, thread_id)
        assert (await two.start("hi"))["thread_id"] != thread_id
