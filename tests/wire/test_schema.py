"""The JSON Schema of the protocol: it has every frame, and says of client frames what the codec says."""

import json
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from agentws.wire.answers import ServerMessage
from agentws.wire.codec import BESIDE_PAYLOAD, TYPES, Head, Rejected, decode, parse
from agentws.wire.errors import CATALOGUE, Fault
from agentws.wire.events import EventType
from agentws.wire.messages import ALIASES, PLANNED, RESERVED, ClientMessage
from agentws.wire.schema import _IN_CLIENT_FRAMES, _IN_SERVER_FRAMES, protocol_schema

Frame = dict[str, Any]

SCHEMA = protocol_schema()
DEFINITIONS: dict[str, Frame] = SCHEMA["$defs"]
ANY = Draft202012Validator(SCHEMA)


def validator(name: str) -> Draft202012Validator:
    return Draft202012Validator({"$ref": f"#/$defs/{name}", "$defs": DEFINITIONS})


CLIENT, SERVER = validator("ClientFrame"), validator("ServerFrame")


def test_it_is_a_schema_of_its_draft() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$schema"] == Draft202012Validator.META_SCHEMA["$id"]


def test_it_is_the_same_each_time_and_the_callers_own() -> None:
    first = protocol_schema()
    assert json.dumps(first) == json.dumps(SCHEMA)
    for definition in first["$defs"].values():
        definition.get("properties", {}).clear()
        definition.get("enum", []).clear()
    first["x-errors"].clear()
    assert protocol_schema() == SCHEMA


def references(schema: object) -> set[str]:
    match schema:
        case dict():
            own = {schema["$ref"]} if isinstance(schema.get("$ref"), str) else set()
            return own.union(*(references(each) for each in schema.values()))
        case list():
            return set().union(*(references(each) for each in schema))
    return set()


def test_what_is_referred_to_is_there_and_nothing_else() -> None:
    assert references(SCHEMA) == {f"#/$defs/{name}" for name in DEFINITIONS}


def test_every_struct_of_the_unions_and_every_event_has_a_definition_of_its_type() -> None:
    assert set(get_args(ClientMessage)) == set(TYPES.values())
    answers = {str(struct.__struct_config__.tag) for struct in get_args(ServerMessage)}
    assert len(answers) == len(get_args(ServerMessage))
    frames = {name for name in DEFINITIONS if name.startswith(("client.", "server.", "event."))}
    assert frames == {
        *(f"client.{kind}" for kind in TYPES),
        *(f"server.{kind}" for kind in answers),
        *(f"event.{kind}" for kind in EventType),
    }


def types_of(name: str) -> list[str]:
    kind = DEFINITIONS[name]["properties"]["type"]
    return [kind["const"]] if "const" in kind else list(kind["enum"])


@pytest.mark.parametrize(("union", "sides"), [("ClientFrame", "client."), ("ServerFrame", ("server.", "event."))])
def test_a_union_has_every_frame_of_its_side_and_finds_it_by_type(union: str, sides: str | tuple[str, ...]) -> None:
    names = [name for name in DEFINITIONS if name.startswith(sides)]
    frames = DEFINITIONS[union]
    assert sorted(each["$ref"] for each in frames["oneOf"]) == sorted(f"#/$defs/{name}" for name in names)
    assert frames["discriminator"]["propertyName"] == "type"
    assert frames["discriminator"]["mapping"] == {kind: f"#/$defs/{name}" for name in names for kind in types_of(name)}


@pytest.mark.parametrize("kind", TYPES)
def test_the_deprecated_names_of_a_type_are_marked(kind: str) -> None:
    aliases = [alias for alias, name in ALIASES.items() if name == kind]
    assert types_of(f"client.{kind}") == [kind, *aliases]
    assert DEFINITIONS[f"client.{kind}"]["properties"]["type"].get("x-deprecated", []) == aliases


def test_every_frame_says_what_it_is() -> None:
    frames = {name: each for name, each in DEFINITIONS.items() if name.startswith(("client.", "server.", "event."))}
    assert [name for name, each in frames.items() if each["title"] != name.partition(".")[2]] == []
    assert [name for name, each in frames.items() if not each.get("description")] == []


def test_the_catalogue_of_errors_is_in_it() -> None:
    assert SCHEMA["x-errors"] == {
        code: {"text": entry.text, "retryable": entry.retryable, "status": entry.status}
        for code, entry in CATALOGUE.items()
    }
    assert DEFINITIONS["server.error"]["properties"]["code"]["examples"] == list(CATALOGUE)


def test_names_that_are_taken_and_not_served_are_told() -> None:
    assert SCHEMA["x-reserved"] == ["agent_interrupted", "respond", "subscribe_threads"]
    served = {
        kind for union in ("ClientFrame", "ServerFrame") for kind in DEFINITIONS[union]["discriminator"]["mapping"]
    }
    assert served | set(SCHEMA["x-reserved"]) == {*TYPES, *ALIASES, *PLANNED, *RESERVED}


def test_what_is_asked_of_a_field_is_asked_of_one_that_there_is() -> None:
    fields = {name for each in DEFINITIONS.values() for name in each.get("properties", {})}
    asked = {name.rpartition(".")[2] for name in (*_IN_CLIENT_FRAMES, *_IN_SERVER_FRAMES)}
    assert asked <= fields


HI: Frame = {"content": "hi"}

VALID: list[Frame] = [
    {"type": "start_agent", "user_request": "hi"},
    {"type": "execute_agent", "payload": {"user_request": "hi"}},
    {"type": "start_agent", "payload": {"user_request": "hi", "message": 5}},
    *({"type": kind, "payload": HI} for kind in ("user_message", "user", "user_input", "chat_message", "message")),
    *({"type": "chat", name: "hi"} for name in ("message", "content", "text")),
    {"type": "chat", "message": " ", "content": None, "text": "hi"},
    {"type": "chat", "id": "a", "thread_id": "t", "run_id": "r", "idempotency_key": "k", "payload": HI},
    {"type": "chat", "content": 5, "if_busy": "no", "subscribe": 1, "payload": HI},
    {"type": "chat", "id": None, "payload": {**HI, "id": "a", "agent": None, "context": None, "if_busy": None}},
    {"type": "chat", **HI, "context": {"user_id": 5}, "if_busy": "interrupt", "on_disconnect": "stop"},
    {"type": "chat", **HI, "payload": None, "subscribe": False, "subagents": True, "colour": 5},
    *({"type": "stop_agent", name: "x"} for name in ("run_id", "request_id", "thread_id")),
    {"type": "stop_agent", "thread_id": "t", "payload": {}},
    {"type": "stop_agent", "payload": {"request_id": "q", "reason": "x" * 1000}},
    {"type": "subscribe", "thread_id": "t"},
    {"type": "subscribe", "thread_id": "t", "payload": {"after_seq": 0, "epoch": "e", "thread_id": None}},
    {"type": "unsubscribe", "payload": {"thread_id": "x" * 128}},
    {"type": "create_thread"},
    {"type": "create_thread", "title": "", "metadata": {"user_id": "other"}},
    {"type": "update_thread", "thread_id": "t", "title": None},
    {"type": "list_threads", "limit": 200, "before": "c"},
    {"type": "list_threads", "payload": {"limit": 1}},
    {"type": "switch_thread", "thread_id": "t", "after_seq": 2**63 - 1},
    {"type": "get_thread_history", "thread_id": "a.b_c:d-9"},
    {"type": "delete_thread", "thread_id": "t"},
    {"type": "authenticate", "payload": {"token": "t"}},
    {"type": "handshake_acknowledged", "thread_id": "t"},
    {"type": "ping", "payload": [1, None]},
    {"type": "ping", "thread_id": 5, "payload": "x"},
    {"type": "heartbeat", "payload": {}},
]

INVALID: list[Frame] = [
    {},
    {"type": None},
    {"type": "nonsense"},
    {"type": "request_accepted"},
    {"type": "subscribe_threads"},
    *({"type": kind} for kind in ("start_agent", "user_message", "chat", "stop_agent", "authenticate")),
    *({"type": kind} for kind in ("subscribe", "unsubscribe", "update_thread", "switch_thread", "delete_thread")),
    *({"type": kind} for kind in ("get_thread_history", "handshake_acknowledged")),
    {"type": "start_agent", "content": "hi"},
    {"type": "start_agent", "user_request": " \n"},
    {"type": "start_agent", "user_request": "hi", "payload": {}},
    {"type": "start_agent", "payload": {"user_request": None}},
    {"type": "chat", "user_request": "hi"},
    {"type": "chat", "message": "", "content": " "},
    {"type": "chat", "content": "hi", "text": 5},
    {"type": "chat", **HI, "payload": []},
    {"type": "chat", **HI, "payload": "x"},
    *({"type": "chat", **HI, name: "a b"} for name in ("id", "thread_id", "run_id", "idempotency_key")),
    *({"type": "chat", name: 5, "payload": HI} for name in ("id", "thread_id", "run_id", "idempotency_key", "user_id")),
    {"type": "chat", **HI, "thread_id": "x" * 129},
    {"type": "chat", **HI, "thread_id": ""},
    {"type": "chat", **HI, "user_id": 5},
    {"type": "chat", **HI, "context": []},
    {"type": "chat", **HI, "if_busy": "never"},
    {"type": "chat", **HI, "on_disconnect": "queue"},
    {"type": "chat", **HI, "subscribe": "yes"},
    {"type": "chat", "payload": {**HI, "type": "ping"}},
    {"type": "stop_agent", "request_id": "q", "payload": {}},
    {"type": "stop_agent", "run_id": "r", "reason": "x" * 1001},
    {"type": "subscribe", "thread_id": None},
    {"type": "subscribe", "thread_id": "t", "after_seq": -1},
    {"type": "subscribe", "thread_id": "t", "after_seq": "1"},
    {"type": "subscribe", "run_id": 5, "payload": {"thread_id": "t"}},
    {"type": "create_thread", "metadata": "m"},
    *({"type": "list_threads", "limit": limit} for limit in (0, 201, "50", 1.5)),
    {"type": "get_thread_history", "thread_id": "t", "before": 5},
    {"type": "authenticate", "token": ""},
    {"type": "ping", "id": "a b"},
    {"type": "heartbeat", "payload": []},
]


@pytest.mark.parametrize("frame", VALID, ids=json.dumps)
def test_a_frame_of_section_3_is_valid(frame: Frame) -> None:
    CLIENT.validate(frame)
    validator(f"client.{ALIASES.get(frame['type'], frame['type'])}").validate(frame)
    ANY.validate(frame)
    assert not SERVER.is_valid(frame)


@pytest.mark.parametrize("frame", INVALID, ids=json.dumps)
def test_a_frame_that_section_3_refuses_is_not_valid(frame: Frame) -> None:
    assert not CLIENT.is_valid(frame)
    assert not is_taken(frame)


def is_taken(frame: Frame) -> bool:
    head = parse(json.dumps(frame), original=True)
    if isinstance(head, Rejected):
        return False
    assert isinstance(head, Head)
    try:
        decode(head, "me")
    except Fault:
        return False
    return True


CURSOR = "0" * 32
IDS = ["a", "a b", "", "x" * 128, "x" * 129, 5, None]
TEXTS = ["hi", " \n", "", None, 5]
FLAGS = [True, False, None, 1, "true"]
# No 1.0 among the numbers: the codec refuses it for an integer, and to JSON Schema it is one.
FIELDS: dict[str, list[Any]] = {
    "user_request": TEXTS,
    "message": TEXTS,
    "content": TEXTS,
    "text": TEXTS,
    "agent": ["demo", None, 5],
    "request_id": IDS,
    "context": [{}, {"user_id": 5}, [], None, "x"],
    "if_busy": ["queue", "reject", "interrupt", "stop", None, 5],
    "on_disconnect": ["continue", "stop", "queue", None],
    "subscribe": FLAGS,
    "subagents": FLAGS,
    "after_seq": [0, 7, 2**63 - 1, -1, 1.5, "7", True, None],
    "epoch": ["e", "", None, 5],
    "reason": ["x" * 1000, "x" * 1001, "", None, 5],
    "title": ["T", "", None, 5],
    "metadata": [{}, [], None],
    "limit": [1, 200, 0, 201, 1.5, "50", False, None],
    # Another text is no cursor of ours; that is the server's knowledge, not the schema's.
    "before": [CURSOR, None, 5],
    "token": ["t", "", None, 5],
    "colour": [[1]],
}
# One value for both levels: that two differ cannot be said in a schema.
BESIDE: dict[str, list[Any]] = {name: IDS for name in BESIDE_PAYLOAD if name not in ("type", "user_id")}
BESIDE["user_id"] = ["me", None, 5]


def some(fields: dict[str, list[Any]]) -> st.SearchStrategy[Frame]:
    values = {name: st.sampled_from(given) for name, given in fields.items()}
    return st.fixed_dictionaries({}, optional=values)


@st.composite
def client_frames(draw: st.DrawFn) -> Frame:
    """Frames of known types, flat or with a payload, with good values and bad ones."""
    kind = draw(st.sampled_from([*TYPES, *ALIASES]))
    fields = draw(some(FIELDS))
    if kind != "ping" and draw(st.booleans()):
        fields |= {"user_request": "hi", "content": "hi", "thread_id": "t", "token": "t"}
    beside = draw(some(BESIDE))
    form = draw(st.sampled_from(["flat", "null", "payload", "no object"]))
    if form in ("flat", "null"):
        return {**fields, **beside, "type": kind} | ({"payload": None} if form == "null" else {})
    if form == "no object":
        return {**fields, **beside, "type": kind, "payload": draw(st.sampled_from([[], "x", 5, False]))}
    payload = dict(fields)
    top = draw(some(FIELDS))
    # What the payload names already has one value at both levels.
    beside |= {name: fields[name] for name in BESIDE if name in fields}
    for name, value in beside.items():
        place = draw(st.sampled_from(["top", "payload", "both"]))
        payload.pop(name, None)
        if place != "payload":
            top[name] = value
        if place != "top":
            payload[name] = value
    payload |= draw(some({"type": [kind, None, "nonsense", 5]}))
    return {**top, "type": kind, "payload": payload}


@settings(database=None, deadline=None, max_examples=200)
@given(client_frames())
def test_a_client_frame_is_valid_exactly_where_the_codec_takes_it(frame: Frame) -> None:
    assert CLIENT.is_valid(frame) == is_taken(frame), frame
