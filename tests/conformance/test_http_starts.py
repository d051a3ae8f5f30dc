"""Section 6, runs started and stopped beside the WebSocket: the same frames, answers and codes, with their statuses."""

import json
from typing import Any

import pytest

from .api import calling
from .client import Server, connect, fresh
from .runs import ENDLESS, at_work
from .shapes import Frame
from .threads import history, listed

START: Frame = {"type": "user_message", "payload": {"content": "what is 6 * 7?"}}


def in_thread(thread_id: str) -> str:
    return f"/api/threads/{thread_id}/runs"


async def test_a_start_is_202_and_its_run_is_told_to_who_subscribes(server: Server) -> None:
    async with connect(server) as client, calling(server, client.user_id) as api:
        accepted = await api.start(START)
        assert (accepted["duplicate"], accepted["position"], accepted["seq"]) == (False, 0, 0)
        subscribed, _ = await client.replay(accepted["thread_id"])
        ended = await client.ended(accepted["run_id"])
        assert (ended["type"], "42" in ended["payload"]["response"]) == ("agent_completed", True)
        reader = client.reader(accepted["thread_id"], after_seq=0, since=subscribed)
        assert reader.runs[accepted["run_id"]].whole
        assert ended["request_id"] == accepted["request_id"]


@pytest.mark.parametrize(
    "frame",
    [
        {"type": "start_agent", "payload": {"user_request": "hi"}},
        {"type": "execute_agent", "user_request": "hi"},
        {"type": "chat", "content": "hi"},
        {"type": "user_input", "payload": {"text": "hi"}},
        {"type": "message", "message": "hi"},
        {"type": "user_message", "payload": {"message": " ", "content": "hi"}},
    ],
    ids=lambda frame: str(frame["type"]),
)
async def test_every_start_frame_may_be_the_body(server: Server, frame: Frame) -> None:
    async with connect(server) as client, calling(server, client.user_id) as api:
        accepted = await api.start(frame)
        messages = (await history(client, accepted["thread_id"]))["messages"]
        assert (messages[0]["content"], messages[0]["run_id"]) == ("hi", accepted["run_id"])


async def test_the_answer_carries_the_id_of_the_frame(server: Server) -> None:
    async with calling(server) as api:
        assert (await api.start(START | {"id": "mine"}))["id"] == "mine"
        assert (await api.start(START))["id"] is None


async def test_starts_without_a_thread_make_one_each(server: Server) -> None:
    async with connect(server) as client, calling(server, client.user_id) as api:
        made = [(await api.start(START))["thread_id"] for _ in range(3)]
        assert len(set(made)) == 3
        assert {thread["thread_id"] for thread in (await listed(client))["threads"]} == set(made)


async def test_a_start_goes_into_the_thread_of_its_path_or_of_its_frame(server: Server) -> None:
    async with connect(server) as client, calling(server, client.user_id) as api:
        thread_id = (await client.new_thread())["thread_id"]
        for path, frame in [
            (in_thread(thread_id), START),
            ("/api/runs", START | {"thread_id": thread_id}),
            ("/api/runs", {"type": "chat", "payload": {"content": "hi", "thread_id": thread_id}}),
            (in_thread(thread_id), START | {"thread_id": thread_id}),
        ]:
            assert (await api.start(frame, path=path))["thread_id"] == thread_id


async def test_another_thread_in_the_frame_than_in_the_path_is_ambiguous(server: Server) -> None:
    async with connect(server) as client, calling(server, client.user_id) as api:
        one, two = [(await client.new_thread())["thread_id"] for _ in range(2)]
        for frame in (START | {"thread_id": two}, {"type": "chat", "payload": {"content": "hi", "thread_id": two}}):
            await api.refused("POST", in_thread(one), "ambiguous_thread", json=frame)


async def test_the_options_of_a_start_are_taken(server: Server) -> None:
    async with connect(server) as client, calling(server, client.user_id) as api:
        run_id = fresh("run")
        payload = {"content": "hi", "agent": "demo", "run_id": run_id, "context": {"a": 1}, "if_busy": "reject"}
        accepted = await api.start({"type": "chat", "payload": {**payload, "subscribe": False, "subagents": True}})
        assert accepted["run_id"] == run_id
        _, events = await client.replay(accepted["thread_id"])
        assert events[0]["agent_name"] == "demo"


@pytest.mark.needs("agents")
async def test_the_run_has_no_connection(server: Server) -> None:
    async with connect(server) as client, calling(server, client.user_id) as api:
        accepted = await api.start({"type": "chat", "content": "hi", "agent": "context", "context": {"a": 1}})
        await client.replay(accepted["thread_id"])
        told = json.loads((await client.ended(accepted["run_id"]))["payload"]["response"])
        assert (told["connection_id"], told["user_id"], told["client"]) == (None, client.user_id, {"a": 1})


async def test_a_start_in_a_busy_thread_waits(server: Server) -> None:
    async with connect(server) as client, calling(server, client.user_id) as api:
        first = await at_work(client)
        accepted = await api.start(START, path=in_thread(first["thread_id"]))
        assert (accepted["status"], accepted["position"]) == ("queued", 1)
        await client.stop(run_id=first["run_id"])
        assert (await client.ended(accepted["run_id"]))["type"] == "agent_completed"


async def test_a_repeat_is_200_with_the_first_ones_ids(server: Server) -> None:
    async with calling(server) as api:
        key = fresh("key")
        first = await api.start(START, key=key)
        for _ in range(2):
            repeat = await api.start(START, key=key, status=200)
            assert repeat["duplicate"] is True
            for name in ("request_id", "run_id", "thread_id"):
                assert repeat[name] == first[name]
        assert len((await api.get("/api/threads"))["threads"]) == 1


async def test_the_key_of_the_header_is_the_key_of_the_frame(server: Server) -> None:
    async with connect(server) as client, calling(server, client.user_id) as api:
        key = fresh("key")
        first = await api.start(START, key=key)
        repeat = await client.granted(START | {"idempotency_key": key}, "request_accepted")
        assert (repeat["duplicate"], repeat["run_id"]) == (True, first["run_id"])
        assert (await api.start(START | {"idempotency_key": key}, status=200))["run_id"] == first["run_id"]
        assert (await api.start(START | {"idempotency_key": key}, key=key, status=200))["run_id"] == first["run_id"]


async def test_the_thread_of_the_path_is_the_thread_as_sent(server: Server) -> None:
    async with connect(server) as client, calling(server, client.user_id) as api:
        thread_id, key = (await client.new_thread())["thread_id"], fresh("key")
        first = await api.start(START, path=in_thread(thread_id), key=key)
        frame = START | {"thread_id": thread_id, "idempotency_key": key}
        assert (await client.granted(frame, "request_accepted"))["run_id"] == first["run_id"]
        await api.refused("POST", "/api/runs", "idempotency_conflict", json=START, headers={"Idempotency-Key": key})


async def test_two_different_keys_are_refused(server: Server) -> None:
    async with calling(server) as api:
        body, headers = START | {"idempotency_key": "one"}, {"Idempotency-Key": "two"}
        await api.refused("POST", "/api/runs", "validation_error", field="idempotency_key", json=body, headers=headers)


@pytest.mark.parametrize("key", ["a b", "x" * 129, "a/b", "ä".encode().decode("latin-1")])
async def test_a_key_of_the_wrong_form_is_named(server: Server, key: str) -> None:
    async with calling(server) as api:
        headers = {"Idempotency-Key": key.encode("latin-1")}
        await api.refused("POST", "/api/runs", "validation_error", field="idempotency_key", json=START, headers=headers)


async def test_conflicts_are_409(server: Server) -> None:
    async with connect(server) as client, calling(server, client.user_id) as api:
        first = await at_work(client)
        path, key = in_thread(first["thread_id"]), {"Idempotency-Key": fresh("key")}
        await api.start(START, key=key["Idempotency-Key"])
        other = {"type": "chat", "content": "other"}
        await api.refused("POST", "/api/runs", "idempotency_conflict", json=other, headers=key)
        await api.refused("POST", path, "run_id_conflict", json=other | {"run_id": first["run_id"]})
        await api.refused("POST", path, "thread_busy", json=other | {"if_busy": "reject"})


async def test_what_is_not_there_is_404(server: Server) -> None:
    async with calling(server) as api:
        await api.refused("POST", in_thread(fresh("t")), "thread_not_found", json=START)
        await api.refused("POST", "/api/runs", "thread_not_found", json=START | {"thread_id": fresh("t")})
        nobody = {"type": "chat", "content": "hi", "agent": "no-such-agent"}
        await api.refused("POST", "/api/runs", "agent_not_found", json=nobody)
        await api.refused("POST", f"/api/runs/{fresh('run')}/stop", "run_not_found")
        assert (await api.get("/api/threads"))["threads"] == []


async def test_another_users_id_is_403_and_nothing_runs(server: Server) -> None:
    async with calling(server) as api:
        for body in (START | {"user_id": fresh("u")}, {"type": "chat", "content": "hi", "user_id": fresh("u")}):
            await api.refused("POST", "/api/runs", "identity_mismatch", json=body)
        assert (await api.get("/api/threads"))["threads"] == []
        await api.start(START | {"user_id": api.user_id})


@pytest.mark.parametrize(
    ("options", "reason"), [({}, "user"), ({"json": {}}, "user"), ({"json": {"reason": "enough"}}, "enough")]
)
async def test_a_run_is_stopped_with_202_and_the_reason_of_the_body(
    server: Server, options: dict[str, Any], reason: str
) -> None:
    async with connect(server) as client, calling(server, client.user_id) as api:
        accepted = await at_work(client)
        path = f"/api/runs/{accepted['run_id']}/stop"
        answer = await api.granted("POST", path, 202, **options)
        assert answer["type"] == "stop_accepted"
        assert (answer["run_ids"], answer["already_ended"]) == ([accepted["run_id"]], [])
        assert (await client.ended(accepted["run_id"]))["payload"]["reason"] == reason
        answer = await api.granted("POST", path, 202, **options)
        assert (answer["run_ids"], answer["already_ended"]) == ([], [accepted["run_id"]])


async def test_a_run_started_over_http_may_be_stopped_on_the_websocket(server: Server) -> None:
    async with connect(server) as client, calling(server, client.user_id) as api:
        accepted = await api.start({"type": "user_message", "payload": dict(ENDLESS)})
        await client.replay(accepted["thread_id"])
        await client.event(accepted["run_id"], "agent_message")
        await client.stop(request_id=accepted["request_id"])
        assert (await client.ended(accepted["run_id"]))["type"] == "agent_stopped"
