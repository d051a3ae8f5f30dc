"""Section 3, the frame itself: its type, its id, where its fields are read, and whose it is."""

import pytest

from .client import Client, Server, connect, fresh
from .shapes import SERVER_TYPES, Frame

GOOD_IDS = ["a", "7", "-", "x" * 128, "AZaz09._:-", "..", "null"]
BAD_IDS = ["", " ", "a b", "x" * 129, "ü", "a/b", "a\n", "\ta", "a\u200b", 5, 0, 1.5, True, False, [], {}, ["a"]]


@pytest.mark.parametrize("frame", [{}, {"payload": {}}, {"type": None}])
async def test_a_frame_without_a_type_is_missing_type(server: Server, frame: Frame) -> None:
    async with connect(server) as client:
        await client.refused(frame, "missing_type")
        await client.still_serves()


@pytest.mark.parametrize("kind", [5, True, [], {}, ["ping"]])
async def test_a_type_that_is_no_text_is_refused(server: Server, kind: object) -> None:
    async with connect(server) as client:
        await client.send({"type": kind})
        refusal = await client.answer_to(None)
        assert refusal["code"] in {"missing_type", "unknown_type", "validation_error"}
        await client.still_serves()


@pytest.mark.parametrize("kind", ["nonsense", "", "PING", "ping ", "__init__", "handshake_acknowledged"])
async def test_a_type_that_nobody_knows_is_unknown_type(server: Server, kind: str) -> None:
    async with connect(server) as client:
        await client.refused({"type": kind, "thread_id": "t"}, "unknown_type")
        await client.still_serves()


@pytest.mark.parametrize("kind", SERVER_TYPES)
async def test_the_type_of_a_server_frame_is_reserved(server: Server, kind: str) -> None:
    async with connect(server) as client:
        await client.refused({"type": kind, "payload": {}}, "reserved_type")
        await client.still_serves()


@pytest.mark.parametrize("frame_id", GOOD_IDS)
async def test_an_answer_carries_the_id_of_its_frame(server: Server, frame_id: str) -> None:
    async with connect(server) as client:
        for frame in [{"type": "heartbeat"}, {"type": "create_thread"}, {"type": "user_message", "content": "hi"}]:
            await client.send(frame | {"id": frame_id})
            assert (await client.answer_to(frame_id))["type"] != "error"
        await client.send({"type": "nonsense", "id": frame_id})
        assert (await client.answer_to(frame_id))["code"] == "unknown_type"


async def test_an_answer_to_a_frame_without_id_has_id_null(server: Server) -> None:
    async with connect(server) as client:
        for nothing in ({}, {"id": None}):
            await client.send({"type": "create_thread", **nothing})
            assert (await client.answer_to(None))["type"] == "thread_created"
            await client.send({"type": "nonsense", **nothing})
            assert (await client.answer_to(None))["code"] == "unknown_type"


async def test_the_same_id_may_be_used_again(server: Server) -> None:
    async with connect(server) as client:
        for word in ("one", "two"):
            await client.send({"type": "ping", "id": "again", "payload": word})
            assert (await client.answer_to("again"))["payload"] == word


@pytest.mark.parametrize("bad", BAD_IDS)
@pytest.mark.parametrize("frame", [{"type": "ping"}, {"type": "user_message", "content": "hi"}])
async def test_an_id_of_the_wrong_form_is_refused_with_id_null(server: Server, frame: Frame, bad: object) -> None:
    async with connect(server) as client:
        await client.send(frame | {"id": bad})
        refusal = await client.answer_to(None)
        assert (refusal["type"], refusal["code"]) == ("error", "validation_error")
        assert refusal["details"]["field"] == "id"
        await client.still_serves()
        assert sum(logged["type"] == "request_accepted" for logged in client.log) == 1


@pytest.mark.parametrize("bad", BAD_IDS)
@pytest.mark.parametrize("field", ["thread_id", "run_id", "idempotency_key"])
async def test_a_clients_id_of_the_wrong_form_names_its_field(server: Server, field: str, bad: object) -> None:
    async with connect(server) as client:
        await client.refused({"type": "chat", "content": "hi", field: bad}, "validation_error", field=field)
        await client.refused(
            {"type": "chat", "payload": {"content": "hi", field: bad}}, "validation_error", field=field
        )
        await client.still_serves()


@pytest.mark.parametrize("payload", ["text", "", 5, 0, True, False, [], [{"content": "hi"}]])
@pytest.mark.parametrize("kind", ["user_message", "start_agent", "stop_agent", "subscribe", "create_thread"])
async def test_a_payload_that_is_no_object_is_refused(server: Server, kind: str, payload: object) -> None:
    async with connect(server) as client:
        frame = {"type": kind, "content": "hi", "user_request": "hi", "payload": payload}
        await client.refused(frame, "validation_error")
        await client.still_serves()


@pytest.mark.parametrize("nothing", [{}, {"payload": None}])
async def test_without_payload_the_top_level_fields_are_the_payload(server: Server, nothing: Frame) -> None:
    async with connect(server) as client:
        run_id = fresh("run")
        frame = {"type": "user_message", "content": "flat", "run_id": run_id, "context": {"a": 1}}
        accepted = await client.granted(frame | nothing, "request_accepted")
        assert accepted["run_id"] == run_id
        ended = await client.ended(run_id)
        assert "flat" in ended["payload"]["response"]


async def test_beside_a_payload_the_text_at_the_top_is_not_read(server: Server) -> None:
    async with connect(server) as client:
        for payload in ({}, {"agent": "demo"}):
            frame = {"type": "user_message", "content": "top", "payload": payload}
            await client.refused(frame, "validation_error", field="content")
        await client.still_serves()


async def test_beside_a_payload_the_options_at_the_top_are_not_read(server: Server) -> None:
    async with connect(server) as client:
        frame = {
            "type": "user_message",
            "agent": "no-such-agent",
            "message": "from the top",
            "if_busy": 5,
            "context": "nonsense",
            "payload": {"content": "from the payload", "agent": "demo"},
        }
        accepted = await client.granted(frame, "request_accepted")
        ended = await client.ended(accepted["run_id"])
        assert (ended["agent_name"], "from the payload" in ended["payload"]["response"]) == ("demo", True)


async def test_beside_a_payload_the_ids_at_the_top_are_read(server: Server) -> None:
    async with connect(server) as client:
        thread_id, run_id, key = (await client.new_thread())["thread_id"], fresh("run"), fresh("key")
        frame = {
            "type": "user_message",
            "thread_id": thread_id,
            "user_id": client.user_id,
            "run_id": run_id,
            "idempotency_key": key,
            "payload": {"content": "hi"},
        }
        accepted = await client.granted(frame, "request_accepted")
        assert (accepted["thread_id"], accepted["run_id"]) == (thread_id, run_id)
        assert (await client.granted(frame, "request_accepted"))["duplicate"] is True
        await client.ended(run_id)


async def test_the_same_value_at_the_top_and_in_the_payload_is_one(server: Server) -> None:
    async with connect(server) as client:
        ids = {
            "thread_id": (await client.new_thread())["thread_id"],
            "user_id": client.user_id,
            "run_id": fresh("run"),
            "idempotency_key": fresh("key"),
        }
        frame = {"type": "user_message", **ids, "payload": {"content": "hi", **ids}}
        accepted = await client.granted(frame, "request_accepted")
        assert (accepted["thread_id"], accepted["run_id"]) == (ids["thread_id"], ids["run_id"])
        await client.ended(accepted["run_id"])


async def test_null_on_one_side_leaves_the_value_of_the_other(server: Server) -> None:
    async with connect(server) as client:
        thread_id = (await client.new_thread())["thread_id"]
        for top, inner in [(thread_id, None), (None, thread_id)]:
            frame = {"type": "chat", "thread_id": top, "payload": {"content": "hi", "thread_id": inner}}
            assert (await client.granted(frame, "request_accepted"))["thread_id"] == thread_id


@pytest.mark.parametrize("kind", ["user_message", "chat", "start_agent", "subscribe", "unsubscribe", "create_thread"])
async def test_two_different_threads_are_ambiguous(server: Server, kind: str) -> None:
    async with connect(server) as client:
        one, two = (await client.new_thread())["thread_id"], (await client.new_thread())["thread_id"]
        payload = {"content": "hi", "user_request": "hi", "thread_id": two}
        await client.refused({"type": kind, "thread_id": one, "payload": payload}, "ambiguous_thread")
        _, events = await client.replay(one)
        assert events == []
        _, events = await client.replay(two)
        assert events == []


@pytest.mark.parametrize("field", ["run_id", "idempotency_key"])
async def test_two_different_values_of_another_id_are_refused(server: Server, field: str) -> None:
    async with connect(server) as client:
        frame = {"type": "chat", field: "one", "payload": {"content": "hi", field: "two"}}
        await client.refused(frame, "validation_error", field=field)
        await client.still_serves()


async def assert_nothing_ran(client: Client, thread_id: str, run_id: str) -> None:
    """The refused start left neither an event nor its run id."""
    _, events = await client.replay(thread_id)
    assert events == []
    await client.run("free", thread_id=thread_id, run_id=run_id)


@pytest.mark.parametrize("inside", [False, True], ids=["at the top", "in the payload"])
@pytest.mark.parametrize("nested", [False, True], ids=["flat", "with payload"])
async def test_another_users_id_is_identity_mismatch_and_nothing_runs(
    server: Server, nested: bool, inside: bool
) -> None:
    async with connect(server) as client, connect(server) as victim:
        thread_id, run_id = (await client.new_thread())["thread_id"], fresh("run")
        fields: Frame = {"content": "hi", "thread_id": thread_id, "run_id": run_id}
        claim = {"user_id": victim.user_id}
        if not nested:
            frame = {"type": "user_message", **fields, **claim}
        elif inside:
            frame = {"type": "user_message", "payload": fields | claim}
        else:
            frame = {"type": "user_message", "payload": fields, **claim}
        await client.refused(frame, "identity_mismatch")
        await assert_nothing_ran(client, thread_id, run_id)


@pytest.mark.parametrize("kind", ["stop_agent", "subscribe", "unsubscribe", "create_thread"])
async def test_another_users_id_is_refused_on_every_frame(server: Server, kind: str) -> None:
    async with connect(server) as client:
        thread_id = (await client.new_thread())["thread_id"]
        await client.refused({"type": kind, "thread_id": thread_id, "user_id": fresh("other")}, "identity_mismatch")
        await client.still_serves()


async def test_a_user_id_of_a_wrong_type_names_its_field(server: Server) -> None:
    async with connect(server) as client:
        await client.refused({"type": "chat", "content": "hi", "user_id": 5}, "validation_error", field="user_id")


async def test_a_user_id_inside_context_and_metadata_is_data(server: Server) -> None:
    async with connect(server) as client:
        data = {"user_id": fresh("someone else")}
        events = await client.run("hi", context=data)
        assert events[-1]["type"] == "agent_completed"
        frame = {"type": "create_thread", "payload": {"metadata": data}}
        assert (await client.granted(frame, "thread_created"))["thread"]["metadata"] == data


async def test_answers_come_in_the_order_of_their_frames(server: Server) -> None:
    async with connect(server) as client:
        known = (await client.new_thread())["thread_id"]
        sent = [
            await client.post(frame)
            for frame in [
                {"type": "create_thread"},
                {"type": "user_message", "content": "one", "thread_id": known},
                {"type": "nonsense"},
                {"type": "subscribe", "thread_id": "no-such-thread"},
                {"type": "chat"},
                {"type": "unsubscribe", "thread_id": known},
                {"type": "stop_agent", "run_id": "no-such-run"},
                {"type": "user_message", "content": "two", "thread_id": known},
                {"type": "create_thread"},
            ]
        ]
        await client.answer_to(sent[-1])
        assert [frame["id"] for frame in client.log if frame.get("id") in sent] == sent


async def test_unknown_fields_are_ignored(server: Server) -> None:
    async with connect(server) as client:
        payload = {"content": "hi", "colour": ["red"], "user_request": "no text of this type"}
        frame = {"type": "user_message", "version": 7, "payload": payload}
        accepted = await client.granted(frame, "request_accepted")
        assert "hi" in (await client.ended(accepted["run_id"]))["payload"]["response"]
