"""What a real service sends is valid by the schema, every type of it, and is not when a field is missing or wrong."""

import json
import time
from collections.abc import Iterator
from typing import Any

import asyncpg
import jwt
import pytest
from jsonschema import Draft202012Validator

import agentws
from agentws.app import Service
from agentws.wire.schema import protocol_schema

from .. import sample_agents
from ..conftest import StartService, TestDatabase
from ..peers import Frame, Peer, peer

SCHEMA = protocol_schema()
DEFINITIONS: dict[str, Frame] = SCHEMA["$defs"]
SENT: dict[str, str] = DEFINITIONS["ServerFrame"]["discriminator"]["mapping"]
SERVER = Draft202012Validator({"$ref": "#/$defs/ServerFrame", "$defs": DEFINITIONS})
# The fields that the page marks `?`.
OPTIONAL = {
    *("error.retry_after_ms", "error.details", "agent_completed.payload.usage"),
    *("tool_progress.payload.progress", "tool_progress.payload.message"),
    *(f"{kind}.from_seq" for kind, name in SENT.items() if name.startswith("#/$defs/event.")),
}
SECRET = "an-issuers-secret-of-enough-bytes"


def of_type(kind: str) -> Draft202012Validator:
    return Draft202012Validator({"$ref": SENT[kind], "$defs": DEFINITIONS})


async def busy(run: agentws.Run) -> str:
    """Writes every event that an agent can write."""

    async def work(size: int) -> list[int]:
        await run.progress(0.5)
        await run.progress(1, "done")
        return list(range(size))

    await run.think("Counting")
    await run.call_tool("work", work, size=3)
    await run.emit("app.thing", {"n": [1, None]})
    await run.write("one ")
    return "one two"


async def refused(run: agentws.Run) -> None:
    raise agentws.AgentError("model_unavailable", "Later.", retryable=True)


async def talk(client: Peer) -> None:
    """Asks for every answer in dev auth but `draining` and `subscription_ended`."""
    client.send(type="create_thread", id="c", thread_id="t", title="T", metadata={"a": [1]})
    client.send(type="update_thread", id="u", thread_id="t", title="")
    client.send(type="create_thread", thread_id="other")
    await client.run("hi", agent="busy", thread_id="t")
    for agent in ("busy", "fail", "refused", "badtool", "badresult", "demo"):
        await client.run("2 + 3", agent=agent, thread_id="t")
    first = await client.ask("hold", agent="slow", thread_id="t", idempotency_key="k")
    await client.ask("hold", agent="slow", thread_id="t", idempotency_key="k")
    second = await client.ask("after", agent="echo", thread_id="t")
    client.send(type="list_threads", id="l", limit=1)
    client.send(type="get_thread_history", id="h", thread_id="t", limit=3)
    client.send(type="get_thread_history", thread_id="other")
    client.send(type="stop_agent", id="s", run_id=first["run_id"])
    await client.ended(second["run_id"])
    client.send(type="stop_agent", run_id=first["run_id"])
    client.send(type="switch_thread", id="w", thread_id="t")
    client.send(type="subscribe", id="f", thread_id="t", after_seq=0, epoch="another")
    await client.until(lambda frame: frame["type"] == "caught_up" and frame["id"] == "f")
    client.send(type="unsubscribe", id="n", thread_id="t")
    client.send(type="delete_thread", id="d", thread_id="t")
    client.send(type="ping", id="p", payload={"any": [None]})
    client.send(type="ping")
    client.send(type="heartbeat", id="b")
    await client.until_type("heartbeat_ack")


async def ask_wrongly(client: Peer) -> None:
    """Sends what is refused, each for another reason."""
    client.put({"type": "websocket.receive", "text": "{"})
    client.put({"type": "websocket.receive", "bytes": b"{}"})
    client.send(id="no-type")
    for kind in ("nonsense", "pong", "respond"):
        client.send(type=kind)
    client.send(type="chat", id="v")
    client.send(type="chat", id="m", content="hi", thread_id="a", payload={"thread_id": "b", "content": "hi"})
    client.send(type="chat", id="i", content="hi", user_id="eve")
    client.send(type="chat", id="a", content="hi", agent="nobody")
    client.send(type="subscribe", id="t", thread_id="nowhere")
    client.send(type="stop_agent", id="r", run_id="nothing")
    client.send(type="authenticate", id="last", token="x")
    await client.until(lambda frame: frame.get("id") == "last")


async def frames_in_dev_auth(start: StartService, database: TestDatabase) -> list[Frame]:
    agents = sample_agents.agents | {"busy": busy, "refused": refused}
    service = await start(agents, poll_interval_ms=20, rate_limit_per_s=0)
    async with peer(service) as client:
        await talk(client)
        await ask_wrongly(client)
        await client.run("again", agent="echo", thread_id="other")
        owner = await asyncpg.connect(database.owner_url)
        await owner.execute("UPDATE agentws.thread_head SET epoch = 'other'")
        await owner.close()
        await client.until_type("subscription_ended")
        await service.drain()
        return client.frames


def token(*, lives_s: float) -> str:
    return jwt.encode({"sub": "ada", "exp": time.time() + lives_s}, SECRET, "HS256")


async def frames_with_tokens(start: StartService) -> list[Frame]:
    service: Service = await start(env="staging", auth="jwt", jwt_secret=SECRET)
    async with peer(service, subprotocols=["agentws.v1.json", f"bearer.{token(lives_s=30)}"]) as client:
        await client.until_type("credentials_expiring")
        client.send(type="authenticate", id="a", token=token(lives_s=600))
        client.send(type="authenticate", id="b", token="nonsense")
        await client.until_type("error")
    async with peer(service, subprotocols=[f"jwt.development.{token(lives_s=600)}"]) as original:
        greeting = await original.until_type("handshake_response")
        original.send(type="handshake_acknowledged", id="h", thread_id=greeting["thread_id"])
        await original.until_type("handshake_complete")
        await original.run("hi", agent="tool")
    return client.frames + original.frames


@pytest.fixture
async def frames(start_service: StartService, database: TestDatabase) -> list[Frame]:
    """What a client got, of every type that there is."""
    return [*await frames_in_dev_auth(start_service, database), *await frames_with_tokens(start_service)]


async def test_every_frame_of_a_service_is_valid_and_every_type_is_sent(frames: list[Frame]) -> None:
    for frame in frames:
        of_type(frame["type"]).validate(frame)
        SERVER.validate(frame)
    assert {frame["type"] for frame in frames} == set(SENT)
    assert len({frame["code"] for frame in frames if frame["type"] == "error"}) > 10


def resolved(schema: Frame) -> Frame:
    return DEFINITIONS[schema["$ref"].removeprefix("#/$defs/")] if "$ref" in schema else schema


def fields(value: Any, schema: Frame, at: str) -> Iterator[tuple[str, str]]:
    """The fields of a value, at any depth that the schema tells of, and whether it has them, and requires them."""
    schema = resolved(schema)
    if "anyOf" in schema and value is not None:
        yield from fields(value, schema["anyOf"][0], at)
    for item in value if "items" in schema else ():
        yield from fields(item, schema["items"], at)
    if "properties" in schema:
        for name, each in value.items():
            known = name in schema["properties"]
            yield f"{at}.{name}", "required" if name in schema["required"] else "optional" if known else "unknown"
            yield from fields(each, schema["properties"].get(name, {}), f"{at}.{name}")


async def test_every_field_is_told_and_all_but_those_that_the_page_marks_are_required(frames: list[Frame]) -> None:
    found = {each for frame in frames for each in fields(frame, {"$ref": SENT[frame["type"]]}, frame["type"])}
    assert [name for name, how in found if how == "unknown"] == []
    assert {name for name, how in found if how == "optional"} <= OPTIONAL
    assert {name for name, how in found if how == "required"} & OPTIONAL == set()


def mutations(value: Any, schema: Frame, at: str = "") -> Iterator[tuple[str, Any]]:
    """A value with one thing wrong each: a field that is missing, or of another type, at any depth."""
    schema = resolved(schema)
    if "anyOf" in schema and value is not None:
        yield from mutations(value, schema["anyOf"][0], at)
    if "items" in schema and value:
        for what, changed in mutations(value[0], schema["items"], f"{at}[0]"):
            yield what, [changed, *value[1:]]
    for name, each in schema.get("properties", {}).items():
        if name in schema["required"]:
            yield f"{at}.{name} is missing", {key: held for key, held in value.items() if key != name}
        if name in value and each:
            # Nothing is a list of lists.
            yield f"{at}.{name} is of another type", value | {name: [[]]}
            for what, changed in mutations(value[name], each, f"{at}.{name}"):
                yield what, value | {name: changed}


async def test_a_frame_that_lacks_a_field_or_has_one_of_another_type_is_not_valid(frames: list[Frame]) -> None:
    # Of each type the fullest, so that lists are not empty.
    samples = {frame["type"]: frame for frame in sorted(frames, key=lambda frame: len(json.dumps(frame)))}
    found = 0
    for kind, frame in samples.items():
        for what, changed in mutations(frame, {"$ref": SENT[kind]}):
            found += 1
            assert not of_type(kind).is_valid(changed), (kind, what)
            assert not SERVER.is_valid(changed), (kind, what)
        # A later version's field is none that is wrong.
        SERVER.validate(frame | {"later": 1})
    assert found > 500
