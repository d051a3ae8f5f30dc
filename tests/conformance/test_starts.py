"""Section 3, the frames that start a run: their names, their text, their options, their thread, and the order in which
they are checked."""

import json

import pytest

from .client import Client, Server, connect, fresh
from .runs import ENDLESS
from .shapes import Frame

TEXT_TYPES = ["user_message", "user", "user_input", "chat_message", "message", "chat"]
TEXT_FIELDS = ["message", "content", "text"]


async def understood(client: Client, frame: Frame) -> str:
    """The text of this start, as its `agent_started` tells it."""
    accepted = await client.granted(frame, "request_accepted")
    message = (await client.event(accepted["run_id"], "agent_started"))["payload"]["message"]
    assert isinstance(message, str)
    return message


@pytest.mark.parametrize("kind", TEXT_TYPES)
@pytest.mark.parametrize("field", TEXT_FIELDS)
async def test_every_name_of_a_message_takes_every_text_field(server: Server, kind: str, field: str) -> None:
    async with connect(server) as client:
        assert await understood(client, {"type": kind, "payload": {field: "nested"}}) == "nested"
        assert await understood(client, {"type": kind, field: "flat"}) == "flat"


@pytest.mark.parametrize("kind", ["start_agent", "execute_agent"])
async def test_every_name_of_start_agent_takes_a_user_request(server: Server, kind: str) -> None:
    async with connect(server) as client:
        assert await understood(client, {"type": kind, "payload": {"user_request": "nested"}}) == "nested"
        assert await understood(client, {"type": kind, "user_request": "flat"}) == "flat"


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"message": "a", "content": "b", "text": "c"}, "a"),
        ({"content": "b", "text": "c"}, "b"),
        ({"text": "c", "content": "b", "message": "a"}, "a"),
        ({"message": "", "content": "b"}, "b"),
        ({"message": " \t\n", "content": "", "text": "c"}, "c"),
        ({"message": None, "content": "b"}, "b"),
        ({"message": None, "content": None, "text": "c"}, "c"),
    ],
)
async def test_the_first_text_that_is_not_blank_is_the_text(server: Server, fields: Frame, text: str) -> None:
    async with connect(server) as client:
        assert await understood(client, {"type": "user_message", "payload": fields}) == text


@pytest.mark.parametrize("kind", TEXT_TYPES)
@pytest.mark.parametrize(
    "fields", [{}, {"message": ""}, {"content": " \n\t "}, {"message": None, "text": ""}, {"user_request": "hi"}]
)
async def test_a_message_without_text_names_content(server: Server, kind: str, fields: Frame) -> None:
    async with connect(server) as client:
        await client.refused({"type": kind, "payload": fields}, "validation_error", field="content")
        await client.refused({"type": kind, **fields}, "validation_error", field="content")
        await client.still_serves()


@pytest.mark.parametrize("kind", ["start_agent", "execute_agent"])
@pytest.mark.parametrize(
    "fields",
    [{}, {"user_request": ""}, {"user_request": " \n"}, {"user_request": None}, {"content": "hi", "message": "hi"}],
)
async def test_a_start_agent_without_text_names_user_request(server: Server, kind: str, fields: Frame) -> None:
    async with connect(server) as client:
        await client.refused({"type": kind, "payload": fields}, "validation_error", field="user_request")
        await client.still_serves()


@pytest.mark.parametrize("bad", [5, 0, True, False, [], ["hi"], {}, {"text": "hi"}])
@pytest.mark.parametrize("field", TEXT_FIELDS)
async def test_a_text_field_of_a_wrong_type_is_named_beside_a_good_one(server: Server, field: str, bad: object) -> None:
    async with connect(server) as client:
        others = {other: "a good text" for other in TEXT_FIELDS if other != field}
        await client.refused({"type": "chat", field: bad}, "validation_error", field=field)
        await client.refused({"type": "chat", "payload": {**others, field: bad}}, "validation_error", field=field)
        await client.still_serves()


@pytest.mark.parametrize("bad", [5, False, [], {}])
async def test_a_user_request_of_a_wrong_type_is_named(server: Server, bad: object) -> None:
    async with connect(server) as client:
        frame = {"type": "start_agent", "user_request": bad}
        await client.refused(frame, "validation_error", field="user_request")


@pytest.mark.parametrize(
    "text", ["Zoë\u0301 🎈👩‍👩‍👧", "two\nlines", '"quoted" \\ <b>', "x" * 20_000, "\u202eolleh", "0"]
)
async def test_the_text_is_told_as_it_was(server: Server, text: str) -> None:
    async with connect(server) as client:
        events = await client.run(text)
        assert events[0]["payload"]["message"] == text


@pytest.mark.needs("agents")
async def test_the_agent_is_given_the_text_as_it_was(server: Server) -> None:
    text = "Zoë\u0301 🎈👩\u200d👩\u200d👧 \n\t <b> \\ "
    async with connect(server) as client:
        assert (await client.run(text, agent="echo"))[-1]["payload"]["response"] == text


WRONG_OPTIONS: dict[str, list[object]] = {
    "agent": [5, True, [], {}],
    "context": ["text", 5, False, []],
    "if_busy": ["sometimes", "", 5, False, []],
    "on_disconnect": ["explode", "", 5, True, {}],
    "subscribe": ["yes", 1, 0, []],
    "subagents": ["no", 1, 0, {}],
}


@pytest.mark.parametrize(
    ("field", "bad"), [(field, bad) for field, all_bad in WRONG_OPTIONS.items() for bad in all_bad]
)
async def test_an_option_of_a_wrong_type_is_named(server: Server, field: str, bad: object) -> None:
    async with connect(server) as client:
        frame = {"type": "user_message", "payload": {"content": "hi", field: bad}}
        await client.refused(frame, "validation_error", field=field)
        await client.still_serves()


async def test_an_option_that_is_null_counts_as_absent(server: Server) -> None:
    async with connect(server) as client:
        names = ["agent", "thread_id", "run_id", "idempotency_key", "context", "if_busy", "on_disconnect"]
        events = await client.run("hi", **dict.fromkeys([*names, "subscribe", "subagents", "user_id"]))
        assert (events[0]["agent_name"], events[-1]["type"]) == ("demo", "agent_completed")


async def test_the_defaults_may_be_written_out(server: Server) -> None:
    async with connect(server) as client:
        written = {"if_busy": "queue", "on_disconnect": "continue", "subscribe": True, "subagents": False}
        events = await client.run("hi", agent="demo", context={}, **written)
        assert events[-1]["type"] == "agent_completed"


@pytest.mark.needs("agents")
async def test_the_run_knows_whose_it_is_and_what_the_client_said(server: Server) -> None:
    async with connect(server) as client:
        context = {"page": "/inbox", "deep": [{"n": 1.5, "none": None}], "user_id": "data", "thread_id": "data"}
        accepted = await client.start("hi", agent="context", context=context)
        told = json.loads((await client.ended(accepted["run_id"]))["payload"]["response"])
        assert told == {
            "tenant_id": "",
            "user_id": client.user_id,
            "thread_id": accepted["thread_id"],
            "run_id": accepted["run_id"],
            "request_id": accepted["request_id"],
            "connection_id": client.established["connection_id"],
            "attempt": 1,
            "depth": 0,
            "client": context,
        }


async def test_an_unknown_agent_is_refused_and_nothing_runs(server: Server) -> None:
    async with connect(server) as client:
        thread_id, run_id = (await client.new_thread())["thread_id"], fresh("run")
        start = {"content": "hi", "thread_id": thread_id, "run_id": run_id}
        await client.refused({"type": "chat", **start, "agent": "no-such-agent"}, "agent_not_found")
        await client.run(**start)


async def test_a_thread_that_the_user_lacks_is_not_found_and_no_other_is_used(server: Server) -> None:
    async with connect(server) as client:
        current = (await client.start("hi"))["thread_id"]
        run_id, unknown = fresh("run"), fresh("thread")
        frame = {"type": "chat", "content": "lost", "thread_id": unknown, "run_id": run_id}
        await client.refused(frame, "thread_not_found")
        await client.refused({"type": "subscribe", "thread_id": unknown}, "thread_not_found")
        accepted = await client.start("found", run_id=run_id)
        assert accepted["thread_id"] == current
        _, events = await client.replay(current)
        assert "lost" not in [event["payload"].get("message") for event in events]


async def test_the_first_start_makes_a_thread_that_becomes_current(server: Server) -> None:
    user = fresh("u")
    async with connect(server, user) as client, connect(server, user) as other:
        first = await client.start("one")
        assert (await client.start("two"))["thread_id"] == first["thread_id"]
        assert (await other.start("three"))["thread_id"] != first["thread_id"]


async def test_two_first_messages_sent_together_share_their_thread(server: Server) -> None:
    async with connect(server) as client:
        frame = {"type": "user_message", "content": "hi"}
        sent = [await client.post(frame), await client.post(frame), await client.post(frame | {"type": "chat"})]
        threads = [(await client.answer_to(frame_id))["thread_id"] for frame_id in sent]
        assert len(set(threads)) == 1


async def test_a_named_thread_does_not_become_current(server: Server) -> None:
    async with connect(server) as client:
        made = (await client.new_thread())["thread_id"]
        await client.run("hi", thread_id=made)
        current = (await client.start("hi"))["thread_id"]
        assert current != made
        await client.run("hi", thread_id=made)
        assert (await client.start("hi"))["thread_id"] == current


async def test_a_refused_start_leaves_no_current_thread(server: Server) -> None:
    async with connect(server) as client:
        made = (await client.new_thread())["thread_id"]
        await client.refused({"type": "chat", "thread_id": made, "content": " "}, "validation_error")
        await client.refused({"type": "chat", "thread_id": fresh("t"), "content": "hi"}, "thread_not_found")
        assert (await client.start("hi"))["thread_id"] != made


async def test_each_accepted_start_has_ids_of_its_own(server: Server) -> None:
    async with connect(server) as client:
        accepted = [await client.start("hi") for _ in range(4)]
        for name in ("request_id", "run_id"):
            assert len({answer[name] for answer in accepted}) == 4


async def test_a_run_id_is_kept_verbatim(server: Server) -> None:
    async with connect(server) as client:
        for run_id in (fresh("Run.:-_"), fresh("R") + "x" * 94):
            accepted = await client.start("hi", run_id=run_id)
            assert accepted["run_id"] == run_id
            assert (await client.ended(run_id))["run_id"] == run_id


async def test_a_run_id_that_the_user_has_is_a_conflict(server: Server) -> None:
    async with connect(server) as client:
        run_id = fresh("run")
        again = {"type": "chat", "content": "again", "run_id": run_id}
        accepted = await client.start(**ENDLESS, run_id=run_id)
        await client.refused(again, "run_id_conflict")
        await client.granted({"type": "stop_agent", "run_id": run_id}, "stop_accepted")
        await client.ended(run_id)
        await client.refused(again, "run_id_conflict")
        other = (await client.new_thread())["thread_id"]
        await client.refused(again | {"thread_id": other}, "run_id_conflict")
        _, events = await client.replay(accepted["thread_id"])
        assert [event["type"] for event in events].count("agent_started") == 1


async def test_two_users_may_use_the_same_run_id(server: Server) -> None:
    run_id = fresh("run")
    async with connect(server) as one, connect(server) as two:
        assert "one" in (await one.run("one", run_id=run_id))[-1]["payload"]["response"]
        assert "two" in (await two.run("two", run_id=run_id))[-1]["payload"]["response"]


LADDER: list[tuple[Frame, str, str | None]] = [
    ({"type": "user_message"}, "unknown_type", None),
    ({"id": "good"}, "validation_error", "id"),
    ({"context": {}}, "validation_error", "context"),
    ({"user_id": None}, "identity_mismatch", None),
    ({"top_thread": None}, "ambiguous_thread", None),
    ({"content": "hi"}, "validation_error", "content"),
    ({"agent": "demo"}, "agent_not_found", None),
    ({"idempotency_key": None}, "idempotency_conflict", None),
    ({"thread_id": None}, "thread_not_found", None),
    ({"run_id": None}, "run_id_conflict", None),
]


async def test_the_checks_of_a_start_are_made_in_the_order_of_the_page(server: Server) -> None:
    """A frame with every fault at once: each refusal is mended, and the next check answers."""
    async with connect(server) as client:
        key, run_id = fresh("key"), fresh("run")
        await client.run("first", idempotency_key=key, run_id=run_id)
        frame: Frame = {"type": "nonsense", "id": "not an id", "context": "no object", "user_id": fresh("other")}
        frame |= {"top_thread": fresh("t"), "content": " ", "agent": "no-such-agent", "idempotency_key": key}
        frame |= {"thread_id": fresh("t"), "run_id": run_id}
        for mended, code, field in LADDER:
            await client.send(shaped(frame))
            refusal = await client.next(lambda answer: answer["type"] == "error", code)
            assert (refusal["code"], refusal.get("details", {}).get("field")) == (code, field), frame
            frame |= mended
        await client.send(shaped(frame))
        accepted = await client.answer_to("good")
        assert (accepted["type"], accepted["duplicate"]) == ("request_accepted", False)


def shaped(fields: Frame) -> Frame:
    """`type` and `id` at the top, `top_thread` as the other `thread_id` there, all else in the payload."""
    payload = {name: value for name, value in fields.items() if name not in {"type", "id", "top_thread"}}
    return {"type": fields["type"], "id": fields["id"], "thread_id": fields["top_thread"], "payload": payload}
