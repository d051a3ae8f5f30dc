"""Section 3, Repeating: one key and one content are one run, however often and from wherever they are sent."""

import asyncio
from typing import Any

import pytest

from .client import Client, Server, connect, fresh
from .runs import ENDLESS
from .shapes import Frame

IDS = ("request_id", "thread_id", "run_id", "seq", "epoch")


def same_ids(one: Frame, two: Frame) -> bool:
    return [one[name] for name in IDS] == [two[name] for name in IDS]


async def starts_told(client: Client, thread_id: str) -> int:
    """How many runs have started in the thread."""
    _, events = await client.replay(thread_id)
    return sum(event["type"] == "agent_started" for event in events)


async def test_a_repeat_is_answered_with_the_first_ones_ids_and_runs_nothing(server: Server) -> None:
    async with connect(server) as client:
        key = fresh("key")
        first = await client.start("hi", idempotency_key=key)
        assert first["duplicate"] is False
        await client.ended(first["run_id"])
        for _ in range(3):
            repeat = await client.start("hi", idempotency_key=key)
            assert repeat["duplicate"] is True
            assert same_ids(first, repeat)
            assert (repeat["status"], repeat["position"]) == ("completed", 0)
        assert await starts_told(client, first["thread_id"]) == 1


async def test_a_repeat_tells_how_its_run_stands(server: Server) -> None:
    async with connect(server) as client:
        slow = await client.start(**ENDLESS, idempotency_key="s")
        await client.event(slow["run_id"], "agent_message")
        assert (await client.start(**ENDLESS, idempotency_key="s"))["status"] == "running"
        await client.start("hi", idempotency_key="q")
        waiting = await client.start("hi", idempotency_key="q")
        assert (waiting["status"], waiting["position"]) == ("queued", 1)
        await client.granted({"type": "stop_agent", "run_id": slow["run_id"]}, "stop_accepted")
        await client.ended(slow["run_id"])
        assert (await client.start(**ENDLESS, idempotency_key="s"))["status"] == "stopped"


async def test_a_repeat_on_another_connection_is_told_the_run(server: Server) -> None:
    user, key = fresh("u"), fresh("key")
    async with connect(server, user) as one, connect(server, user) as two:
        first = await one.start("what is 6 * 7?", idempotency_key=key)
        terminal = await one.ended(first["run_id"])
        repeat = await two.start("what is 6 * 7?", idempotency_key=key)
        assert repeat["duplicate"] is True
        assert same_ids(first, repeat)
        assert await two.ended(first["run_id"]) == terminal
        reader = two.reader(first["thread_id"], after_seq=repeat["seq"], since=repeat)
        assert reader.runs[first["run_id"]].whole


async def test_two_copies_in_flight_on_one_connection_are_one_run(server: Server) -> None:
    async with connect(server) as client:
        frame = {"type": "chat", "content": "hi", "idempotency_key": fresh("key")}
        sent = [await client.post(frame), await client.post(frame)]
        first, second = [await client.answer_to(frame_id) for frame_id in sent]
        assert (first["duplicate"], second["duplicate"]) == (False, True)
        assert same_ids(first, second)
        await client.ended(first["run_id"])
        assert await starts_told(client, first["thread_id"]) == 1


async def test_copies_on_several_connections_at_once_are_one_run(server: Server) -> None:
    user = fresh("u")
    async with connect(server, user) as one, connect(server, user) as two, connect(server, user) as three:
        for _ in range(5):
            options = {"idempotency_key": fresh("key")}
            thread_id = (await one.new_thread())["thread_id"]
            copies = [client.start("hi", thread_id=thread_id, **options) for client in (one, two, three)]
            answers = await asyncio.gather(*copies)
            assert sorted(answer["duplicate"] for answer in answers) == [False, True, True]
            assert all(same_ids(answers[0], answer) for answer in answers)
            for client in (one, two, three):
                await client.ended(answers[0]["run_id"])
            assert await starts_told(one, thread_id) == 1


async def test_copies_at_once_that_make_their_thread_make_one(server: Server) -> None:
    user, key = fresh("u"), fresh("key")
    async with connect(server, user) as one, connect(server, user) as two:
        copies = [client.start("hi", idempotency_key=key) for client in (one, two)]
        first, second = await asyncio.gather(*copies)
        assert first["thread_id"] == second["thread_id"]
        assert sorted([first["duplicate"], second["duplicate"]]) == [False, True]


FIRST: Frame = {"type": "user_message", "message": "hi", "context": {"a": 1, "b": [True, None]}}


@pytest.mark.parametrize(
    "change",
    [
        {"type": "user_input"},
        {"type": "message"},
        {"message": None, "content": "hi"},
        {"message": " ", "text": "hi"},
        {"text": "not the text"},
        {"context": {"b": [True, None], "a": 1}},
        {"if_busy": "queue"},
        {"on_disconnect": "continue"},
        {"subscribe": False},
        {"subscribe": True},
        {"subagents": True},
        {"colour": "red"},
    ],
)
async def test_what_is_not_content_makes_no_other_frame(server: Server, change: Frame) -> None:
    async with connect(server) as client:
        key = fresh("key")
        first = await client.granted(FIRST | {"idempotency_key": key}, "request_accepted")
        repeat = await client.granted(FIRST | {"idempotency_key": key} | change, "request_accepted")
        assert repeat["duplicate"] is True
        assert same_ids(first, repeat)


async def test_flat_or_with_a_payload_is_the_same_content(server: Server) -> None:
    async with connect(server) as client:
        first = await client.granted(FIRST | {"idempotency_key": "k"}, "request_accepted")
        payload = {name: value for name, value in FIRST.items() if name != "type"}
        nested = {"type": "user_message", "idempotency_key": "k", "payload": payload}
        assert same_ids(first, await client.granted(nested, "request_accepted"))


async def test_the_default_agent_named_or_not_is_the_same_content(server: Server) -> None:
    async with connect(server) as client:
        first = await client.start("hi", idempotency_key="k")
        repeat = await client.start("hi", idempotency_key="k", agent="demo")
        assert repeat["duplicate"] is True
        assert same_ids(first, repeat)


@pytest.mark.parametrize(
    "change",
    [
        {"type": "chat"},
        {"type": "start_agent", "user_request": "hi"},
        {"message": "hi "},
        {"message": "other"},
        {"context": {"a": 2, "b": [True, None]}},
        {"context": {"a": 1, "b": [None, True]}},
        {"context": None},
        {"run_id": "another-run"},
        {"thread_id": "another-thread"},
    ],
)
async def test_other_content_under_the_same_key_is_a_conflict(server: Server, change: Frame) -> None:
    async with connect(server) as client:
        key = {"idempotency_key": fresh("key")}
        first = await client.granted(FIRST | key, "request_accepted")
        await client.refused(FIRST | key | change, "idempotency_conflict")
        assert same_ids(first, await client.granted(FIRST | key, "request_accepted"))


@pytest.mark.needs("agents")
async def test_another_agent_is_other_content(server: Server) -> None:
    async with connect(server) as client:
        key = {"idempotency_key": fresh("key")}
        first = await client.granted(FIRST | key | {"agent": "echo"}, "request_accepted")
        for agent in ("demo", "fail", None):
            await client.refused(FIRST | key | {"agent": agent}, "idempotency_conflict")
        assert same_ids(first, await client.granted(FIRST | key | {"agent": "echo"}, "request_accepted"))


@pytest.mark.needs("agents")
async def test_a_repeat_tells_of_a_failure(server: Server) -> None:
    async with connect(server) as client:
        failed = await client.start("hi", agent="fail", idempotency_key="f")
        await client.ended(failed["run_id"])
        assert (await client.start("hi", agent="fail", idempotency_key="f"))["status"] == "failed"


async def test_naming_the_thread_that_the_first_one_made_is_other_content(server: Server) -> None:
    async with connect(server) as client:
        first = await client.start("hi", idempotency_key="k")
        frame = {"type": "user_message", "content": "hi", "idempotency_key": "k"}
        await client.refused(frame | {"thread_id": first["thread_id"]}, "idempotency_conflict")
        await client.refused(frame | {"run_id": first["run_id"]}, "idempotency_conflict")


async def test_a_repeat_with_its_run_id_is_a_repeat_and_no_run_id_conflict(server: Server) -> None:
    async with connect(server) as client:
        options: dict[str, Any] = {"run_id": fresh("run"), "idempotency_key": "k"}
        first = await client.start("hi", **options)
        assert same_ids(first, await client.start("hi", **options))


async def test_a_refused_start_leaves_its_key_free(server: Server) -> None:
    async with connect(server) as client:
        thread_id = fresh("thread")
        frame = {"type": "chat", "content": "hi", "thread_id": thread_id, "idempotency_key": "k"}
        await client.refused(frame, "thread_not_found")
        await client.new_thread(thread_id)
        assert (await client.granted(frame, "request_accepted"))["duplicate"] is False


async def test_the_same_key_of_two_users_is_two_keys(server: Server) -> None:
    key = fresh("key")
    async with connect(server) as one, connect(server) as two:
        first = await one.start("one", idempotency_key=key)
        second = await two.start("two", idempotency_key=key)
        assert (first["duplicate"], second["duplicate"]) == (False, False)
        assert "two" in (await two.ended(second["run_id"]))["payload"]["response"]


async def test_without_a_key_the_same_content_runs_again(server: Server) -> None:
    async with connect(server) as client:
        first, second = await client.start("hi"), await client.start("hi")
        assert first["run_id"] != second["run_id"]
        assert second["duplicate"] is False


async def test_a_repeat_without_a_thread_makes_the_first_ones_thread_current(server: Server) -> None:
    user = fresh("u")
    async with connect(server, user) as one, connect(server, user) as two:
        first = await one.start("hi", idempotency_key="k")
        await two.start("hi", idempotency_key="k")
        assert (await two.start("more"))["thread_id"] == first["thread_id"]


async def test_a_repeat_leaves_a_current_thread_alone(server: Server) -> None:
    user = fresh("u")
    async with connect(server, user) as one, connect(server, user) as two:
        first = await one.start("hi", idempotency_key="k")
        current = (await two.start("mine"))["thread_id"]
        await two.start("hi", idempotency_key="k")
        assert (await two.start("more"))["thread_id"] == current != first["thread_id"]
