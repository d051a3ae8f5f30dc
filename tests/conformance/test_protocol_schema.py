"""Section 6, `GET /api/protocol.json`: a JSON Schema by which every frame of the page is valid, and a frame that lacks
a field of its row is not."""

from typing import Any

import jsonschema.validators
import pytest
from jsonschema.protocols import Validator

from .api import anonymous, calling
from .client import Server, connect, fresh
from .runs import QUESTION, at_work
from .shapes import ANSWERS, EVENTS, SERVER_TYPES, Frame
from .threads import delete, history, listed, switch, update

CLIENT_FRAMES: list[Frame] = [
    {"type": "start_agent", "payload": {"user_request": "hi"}},
    {"type": "user_message", "id": "1", "thread_id": "t", "payload": {"content": "hi", "run_id": "r"}},
    {"type": "chat", "payload": {"message": "hi", "context": {"a": [1]}, "if_busy": "reject", "subscribe": False}},
    {"type": "stop_agent", "payload": {"run_id": "r", "reason": "enough"}},
    {"type": "subscribe", "payload": {"thread_id": "t", "after_seq": 3, "epoch": "e", "subagents": True}},
    {"type": "unsubscribe", "payload": {"thread_id": "t"}},
    {"type": "create_thread", "payload": {"thread_id": "t", "title": "a", "metadata": {"a": 1}}},
    {"type": "update_thread", "payload": {"thread_id": "t", "title": ""}},
    {"type": "list_threads", "payload": {"limit": 5, "before": "cursor"}},
    {"type": "switch_thread", "payload": {"thread_id": "t", "after_seq": 0}},
    {"type": "get_thread_history", "payload": {"thread_id": "t", "limit": 200}},
    {"type": "delete_thread", "payload": {"thread_id": "t"}},
    {"type": "authenticate", "payload": {"token": "a.b.c"}},
    {"type": "ping", "payload": [1, None]},
    {"type": "heartbeat"},
]
CLIENT_TYPES = [str(frame["type"]) for frame in CLIENT_FRAMES]


async def schema_of(server: Server) -> Validator:
    async with anonymous(server) as http:
        response = await http.get("/api/protocol.json")
    assert response.status_code == 200
    assert response.headers["Content-Type"].startswith(("application/json", "application/schema+json"))
    schema: dict[str, Any] = response.json()
    kind = jsonschema.validators.validator_for(schema)
    kind.check_schema(schema)
    validator: Validator = kind(schema)
    return validator


def assert_valid(validator: Validator, frames: list[Frame]) -> None:
    for frame in frames:
        faults = [fault.message[:200] for fault in validator.iter_errors(frame)]
        assert not faults, f"{frame} is not as the schema says: {faults}"


def names_in(value: object) -> set[str]:
    """Every text that stands anywhere in the schema."""
    match value:
        case str():
            return {value}
        case dict():
            return set().union(*map(names_in, value.values()), value)
        case list():
            return set().union(*map(names_in, value))
    return set()


async def many_frames(server: Server) -> list[Frame]:
    """What a server sends to a user who does a bit of everything."""
    user = fresh("u")
    async with connect(server, user) as client, connect(server, user) as other:
        await client.new_thread()
        accepted = await at_work(client)
        thread_id = accepted["thread_id"]
        waiting = await client.start(QUESTION)
        await other.replay(thread_id)
        await client.stop(run_id=accepted["run_id"])
        await client.ended(waiting["run_id"])
        await client.run("hi")
        await update(client, thread_id, title="new", metadata={"a": 1})
        await listed(client, limit=1)
        await history(client, thread_id, limit=1)
        await switch(client, thread_id)
        for frame in ({"type": "heartbeat"}, {"type": "ping", "a": 1}, {"type": "unsubscribe", "thread_id": thread_id}):
            await client.ask(frame)
        for frame in ({}, {"type": "nonsense"}, {"type": "chat"}, {"type": "chat", "thread_id": fresh("t")}):
            assert (await client.ask(frame))["type"] == "error"
        await delete(client, thread_id)
        await other.still_serves()
        return [*client.log, *other.log]


async def test_it_is_a_schema_and_served_to_everyone(server: Server) -> None:
    await schema_of(server)


async def test_frames_as_the_server_sends_them_are_valid(server: Server) -> None:
    frames = await many_frames(server)
    told = {frame["type"] for frame in frames}
    assert {*ANSWERS} - told == {"authenticated", "handshake_complete"}
    assert_valid(await schema_of(server), frames)


@pytest.mark.needs("agents")
@pytest.mark.parametrize("agent", ["tool", "fail", "badtool", "timeout", "notify", "thinker", "stream"])
async def test_events_of_every_kind_are_valid(server: Server, agent: str) -> None:
    async with connect(server) as client:
        events = await client.run("9", agent=agent)
        _, replayed = await client.replay(events[0]["thread_id"])
        assert_valid(await schema_of(server), events + replayed)


async def test_what_http_answers_is_valid(server: Server) -> None:
    async with calling(server) as api:
        accepted = await api.start({"type": "chat", "content": "hi"}, key=fresh("key"))
        refused = await api.refused("GET", f"/api/threads/{fresh('t')}", "thread_not_found")
        stopped = await api.granted("POST", f"/api/runs/{accepted['run_id']}/stop", 202)
        assert_valid(await schema_of(server), [accepted, refused, stopped])


@pytest.mark.parametrize("frame", CLIENT_FRAMES, ids=CLIENT_TYPES)
async def test_frames_as_a_client_sends_them_are_valid(server: Server, frame: Frame) -> None:
    assert_valid(await schema_of(server), [frame])


async def test_a_frame_that_lacks_a_field_of_its_row_is_not_valid(server: Server) -> None:
    async with connect(server) as client:
        accepted = await client.start("hi")
        ended = await client.ended(accepted["run_id"])
        refusal = await client.refused({"type": "chat"}, "validation_error")
    validator = await schema_of(server)
    for frame, fields in [
        (accepted, ["run_id", "thread_id", "seq", "duplicate"]),
        (ended, ["seq", "run_id", "payload", "epoch"]),
        (refusal, ["code", "message", "retryable"]),
    ]:
        for field in fields:
            lacking = {name: value for name, value in frame.items() if name != field}
            assert not validator.is_valid(lacking), f"{field} may be missing in {frame['type']}"
    assert not validator.is_valid(accepted | {"seq": "zero"})
    assert not validator.is_valid({"type": "authenticate", "payload": {"token": 5}})


async def test_it_names_every_type_and_every_code_of_the_page(server: Server) -> None:
    names = names_in((await schema_of(server)).schema)
    reserved = {"subscribe_threads", "respond", "handshake_acknowledged"}
    assert {*SERVER_TYPES, *CLIENT_TYPES, *EVENTS, *reserved} <= names
