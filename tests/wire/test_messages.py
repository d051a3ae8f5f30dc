"""The structs of the wire against the tables of sections 3 and 4."""

from typing import Any, get_args

import msgspec
import pytest

from agentws.wire.codec import Head, Rejected, decode, parse
from agentws.wire.errors import Fault
from agentws.wire.ids import cursor_of
from agentws.wire.messages import (
    ALIASES,
    PLANNED,
    RESERVED,
    Authenticate,
    ClientMessage,
    CreateThread,
    DeleteThread,
    GetThreadHistory,
    HandshakeAcknowledged,
    ListThreads,
    Start,
    StopAgent,
    Subscribe,
    SwitchThread,
    Unsubscribe,
    UpdateThread,
)

TYPES = {
    "start_agent": ["execute_agent"],
    "user_message": ["user", "user_input", "chat_message", "message"],
    **dict.fromkeys(["chat", "stop_agent", "subscribe", "unsubscribe", "create_thread", "update_thread"], ()),
    **dict.fromkeys(["list_threads", "subscribe_threads", "switch_thread", "get_thread_history", "delete_thread"], ()),
    **dict.fromkeys(["respond", "authenticate", "ping", "heartbeat"], ()),
}

SERVER_TYPES = {
    *("request_accepted", "stop_accepted", "subscribed", "caught_up", "unsubscribed", "thread_created"),
    *("thread_updated", "thread_switched", "thread_deleted", "thread_list", "thread_history", "authenticated"),
    *("pong", "heartbeat_ack", "connection_established", "credentials_expiring", "draining", "subscription_ended"),
    *("handshake_response", "handshake_complete", "error", "agent_queued", "agent_started", "agent_thinking"),
    *("tool_executing", "tool_completed", "tool_progress", "agent_message", "agent_event", "agent_interrupted"),
    *("agent_completed", "agent_error", "agent_stopped"),
}

OPTIONS: dict[str, Any] = {
    "agent": "demo",
    "thread_id": "t",
    "run_id": "r",
    "idempotency_key": "k",
    "context": {"a": [None]},
    "if_busy": "interrupt",
    "on_disconnect": "stop",
    "subscribe": False,
    "subagents": True,
}

CURSOR = cursor_of(7, 9)

PAYLOADS: dict[str, tuple[type[msgspec.Struct], dict[str, Any]]] = {
    "start_agent": (Start, {"user_request": "hi", **OPTIONS}),
    "user_message": (Start, {"message": "hi", "content": "ho", "text": "hm", **OPTIONS}),
    "chat": (Start, {"message": "hi", "content": "ho", "text": "hm", **OPTIONS}),
    "stop_agent": (StopAgent, {"run_id": "r", "request_id": "q", "thread_id": "t", "reason": "enough"}),
    "subscribe": (Subscribe, {"thread_id": "t", "after_seq": 7, "epoch": "e", "subagents": True}),
    "unsubscribe": (Unsubscribe, {"thread_id": "t"}),
    "create_thread": (CreateThread, {"thread_id": "t", "title": "T", "metadata": {"a": 1}}),
    "update_thread": (UpdateThread, {"thread_id": "t", "title": "", "metadata": {}}),
    "list_threads": (ListThreads, {"limit": 200, "before": CURSOR}),
    "switch_thread": (SwitchThread, {"thread_id": "t", "after_seq": 0, "epoch": "e", "subagents": True}),
    "get_thread_history": (GetThreadHistory, {"thread_id": "t", "limit": 1, "before": CURSOR}),
    "delete_thread": (DeleteThread, {"thread_id": "t"}),
    "authenticate": (Authenticate, {"token": "x.y.z"}),
    "handshake_acknowledged": (HandshakeAcknowledged, {"thread_id": "t"}),
}

FIELDS = [(kind, name) for kind, (_, fields) in PAYLOADS.items() for name in fields]
WRONG: dict[str, Any] = {
    **{"context": [], "metadata": "m", "after_seq": "7", "limit": "7", "subscribe": 1, "subagents": "true"},
}


def decoded(frame: dict[str, Any]) -> ClientMessage:
    head = parse(msgspec.json.encode(frame).decode(), original=True)
    assert isinstance(head, Head)
    return decode(head, "u")


@pytest.mark.parametrize("kind", TYPES)
def test_a_client_type_of_the_page_is_served_or_not_implemented(kind: str) -> None:
    head = parse(f'{{"type":"{kind}","id":"i"}}')
    if kind in PLANNED:
        assert isinstance(head, Rejected)
        assert (head.fault.code, head.id) == ("not_implemented", "i")
    else:
        assert isinstance(head, Head)
        assert (head.type, head.id, head.deprecated) == (kind, "i", False)


def test_planned_types_are_client_types_of_the_page() -> None:
    assert set(TYPES) >= PLANNED


@pytest.mark.parametrize("kind", sorted(SERVER_TYPES))
def test_the_type_of_a_server_frame_is_reserved(kind: str) -> None:
    head = parse(f'{{"type":"{kind}","id":"i"}}')
    assert isinstance(head, Rejected)
    assert (head.fault.code, head.id) == ("reserved_type", "i")


def test_the_server_types_are_those_of_the_page() -> None:
    assert SERVER_TYPES == RESERVED


def test_the_aliases_are_those_of_the_page() -> None:
    assert {alias: kind for kind, aliases in TYPES.items() for alias in aliases} == ALIASES


@pytest.mark.parametrize(("alias", "kind"), ALIASES.items())
def test_an_alias_is_decoded_as_the_type_it_stands_for(alias: str, kind: str) -> None:
    head = parse(f'{{"type":"{alias}"}}')
    assert isinstance(head, Head)
    assert (head.type, head.deprecated) == (kind, True)


def test_every_field_of_every_client_struct_is_in_the_tables_of_this_file() -> None:
    told: dict[type[msgspec.Struct], set[str]] = {}
    for struct, fields in PAYLOADS.values():
        told.setdefault(struct, set()).update(fields)
    for struct in get_args(ClientMessage):
        if struct in told:
            assert set(struct.__struct_fields__) - {"type", "id", "user_id"} == told[struct]
        else:
            assert set(struct.__struct_fields__) - {"payload"} == {"type", "id", "user_id"}


@pytest.mark.parametrize("nested", [False, True], ids=["flat", "payload"])
@pytest.mark.parametrize("kind", PAYLOADS)
def test_every_field_is_decoded(kind: str, nested: bool) -> None:
    struct, fields = PAYLOADS[kind]
    frame = {"type": kind, "id": "i", **({"payload": fields} if nested else fields)}
    message = decoded(frame)
    assert type(message) is struct
    assert (message.type, message.id) == (kind, "i")
    # `text` is what the codec found to be the user's text.
    expected = fields | ({"text": "hi"} if struct is Start else {})
    assert {name: getattr(message, name) for name in expected} == expected


@pytest.mark.parametrize(("kind", "field"), FIELDS)
def test_a_field_of_a_wrong_type_is_named(kind: str, field: str) -> None:
    _, fields = PAYLOADS[kind]
    with pytest.raises(Fault) as caught:
        decoded({"type": kind, "payload": fields | {field: WRONG.get(field, 5)}})
    assert (caught.value.code, caught.value.details) == ("validation_error", {"field": field})


def outcome(frame: dict[str, Any]) -> object:
    try:
        return decoded(frame)
    except Fault as fault:
        return fault.code, fault.details


@pytest.mark.parametrize(("kind", "field"), FIELDS)
def test_a_field_that_is_null_counts_as_absent(kind: str, field: str) -> None:
    _, fields = PAYLOADS[kind]
    without = {name: value for name, value in fields.items() if name != field}
    for frame in ({**fields, field: None}, {"payload": {**fields, field: None}}):
        assert outcome({"type": kind, **frame}) == outcome({"type": kind, **without})


def test_absent_options_have_the_defaults_of_the_page() -> None:
    message = decoded({"type": "chat", "content": "hi"})
    assert isinstance(message, Start)
    assert (message.if_busy, message.on_disconnect) == ("queue", "continue")
    assert (message.subscribe, message.subagents, message.agent, message.context) == (True, False, None, None)
    followed = decoded({"type": "subscribe", "thread_id": "t"})
    assert isinstance(followed, Subscribe)
    assert (followed.after_seq, followed.epoch, followed.subagents) == (0, None, False)
    assert (decoded({"type": "list_threads"}), decoded({"type": "get_thread_history", "thread_id": "t"})) == (
        ListThreads(type="list_threads", limit=50, before=None),
        GetThreadHistory(type="get_thread_history", thread_id="t", limit=50, before=None),
    )
    assert decoded({"type": "switch_thread", "thread_id": "t"}) == SwitchThread(
        type="switch_thread", thread_id="t", after_seq=None, epoch=None, subagents=False
    )


def test_the_handshake_s_type_is_of_the_original_dialect_alone() -> None:
    head = parse('{"type":"handshake_acknowledged","id":"i"}')
    assert isinstance(head, Rejected)
    assert (head.fault.code, head.id) == ("unknown_type", "i")
