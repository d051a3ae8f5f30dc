"""A connection's side of the protocol: what each kind of frame is answered, and what is handed on."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import UNSET

from agentws.core.context import Principal
from agentws.core.session import Command, Handled, Reply, Session, error_frame
from agentws.wire.answers import Error, HandshakeComplete, HeartbeatAck, Pong
from agentws.wire.errors import CATALOGUE, Fault, Refusal
from agentws.wire.ids import ConnectionId, ThreadId, ThreadNo
from agentws.wire.messages import ALIASES, CreateThread, Start, StopAgent, Subscribe, Unsubscribe

NOW = "2024-05-06T07:08:09.123Z"

COMMANDS: list[tuple[dict[str, Any], Handled]] = [
    (
        {"type": "chat", "id": "i", "content": "hi"},
        Start(type="chat", id="i", content="hi", text="hi"),
    ),
    (
        {"type": "message", "payload": {"text": "hi"}},
        Start(type="user_message", text="hi"),
    ),
    (
        {"type": "execute_agent", "user_request": "hi"},
        Start(type="start_agent", user_request="hi", text="hi"),
    ),
    ({"type": "stop_agent", "run_id": "r"}, StopAgent(type="stop_agent", run_id="r")),
    (
        {"type": "subscribe", "thread_id": "t", "after_seq": 3, "epoch": "e"},
        Subscribe(type="subscribe", thread_id="t", after_seq=3, epoch="e"),
    ),
    ({"type": "unsubscribe", "thread_id": "t"}, Unsubscribe(type="unsubscribe", thread_id="t")),
    (
        {"type": "create_thread", "user_id": "me", "title": "T"},
        CreateThread(type="create_thread", user_id="me", title="T"),
    ),
]


def session(*, current: str | None = None) -> Session:
    made = Session(Principal("acme", "me"), ConnectionId("conn-1"))
    if current is not None:
        made.make_current(ThreadId(current))
    return made


def replied(text: str) -> object:
    step = session().receive_text(text, NOW)
    assert isinstance(step, Reply)
    return step.frame


def test_a_new_session_has_no_current_thread() -> None:
    fresh = Session(Principal("acme", "me"), ConnectionId("conn-1"))
    assert (fresh.principal, fresh.connection_id) == (Principal("acme", "me"), "conn-1")
    assert fresh.current_thread is None


@pytest.mark.parametrize("current", [None, "t0"])
@pytest.mark.parametrize(("frame", "message"), COMMANDS)
def test_what_concerns_others_is_handed_on(frame: dict[str, Any], message: Handled, current: str | None) -> None:
    state = session(current=current)
    assert state.receive_text(json.dumps(frame), NOW) == Command(message=message, deprecated=frame["type"] in ALIASES)
    # Only the dispatcher knows which thread a command makes current.
    assert state.current_thread == current


@pytest.mark.parametrize("frame_id", ["i", None])
def test_a_ping_is_answered_here(frame_id: str | None) -> None:
    text = json.dumps({"type": "ping", "id": frame_id, "payload": [1]})
    assert replied(text) == Pong(id=frame_id, timestamp=NOW, payload=[1])


@pytest.mark.parametrize("frame_id", ["i", None])
def test_a_heartbeat_is_answered_here(frame_id: str | None) -> None:
    text = json.dumps({"type": "heartbeat", "id": frame_id})
    assert replied(text) == HeartbeatAck(id=frame_id, timestamp=NOW)


@pytest.mark.parametrize(
    ("text", "frame_id", "code"),
    [
        ("{", None, "invalid_json"),
        ("[]", None, "not_an_object"),
        ('{"id":"i"}', "i", "missing_type"),
        ('{"id":"i","type":"nonsense"}', "i", "unknown_type"),
        ('{"id":"i","type":"agent_started"}', "i", "reserved_type"),
        ('{"id":"i","type":"respond"}', "i", "not_implemented"),
        ('{"id":"a b","type":"chat","content":"hi"}', None, "validation_error"),
        ('{"id":"i","type":"chat"}', "i", "validation_error"),
        ('{"id":"i","type":"chat","content":"hi","user_id":"other"}', "i", "identity_mismatch"),
        ('{"id":"i","type":"chat","thread_id":"a","payload":{"thread_id":"b"}}', "i", "ambiguous_thread"),
    ],
)
def test_a_bad_frame_is_answered_with_its_id(text: str, frame_id: str | None, code: str) -> None:
    frame = replied(text)
    assert isinstance(frame, Error)
    assert (frame.id, frame.code) == (frame_id, code)


def test_the_user_is_checked_against_the_connections_own() -> None:
    frame = '{"type":"create_thread","user_id":"me"}'
    assert isinstance(session().receive_text(frame, NOW), Command)
    other = Session(Principal("acme", "other"), ConnectionId("conn-2"))
    assert isinstance(other.receive_text(frame, NOW), Reply)


def test_a_binary_frame_is_not_supported() -> None:
    step = session().receive_bytes()
    assert isinstance(step.frame, Error)
    assert (step.frame.id, step.frame.code) == (None, "unsupported_frame")


@settings(database=None, deadline=None)
@given(st.text() | st.text('{}[]",:\\u0 typeingch'))
def test_nothing_that_is_sent_makes_it_raise(text: str) -> None:
    assert isinstance(session().receive_text(text, NOW), Reply | Command)


@pytest.mark.parametrize("code", CATALOGUE)
def test_an_error_frame_tells_what_the_catalogue_says(code: str) -> None:
    entry = CATALOGUE[code]
    assert error_frame(Fault(code), frame_id="i") == Error(
        id="i", code=code, message=entry.text, retryable=entry.retryable, retry_after_ms=UNSET, details=UNSET
    )


def test_an_error_frame_tells_the_field_and_the_faults_own_text() -> None:
    frame = error_frame(Fault("validation_error", "content", text="No text."), frame_id=None)
    assert (frame.id, frame.message, frame.details) == (None, "No text.", {"field": "content"})


@pytest.mark.parametrize("retry_after_ms", [0, 250])
def test_an_error_frame_tells_when_to_come_back(retry_after_ms: int) -> None:
    frame = error_frame(Refusal("draining", retry_after_ms=retry_after_ms), frame_id="i")
    assert (frame.retryable, frame.retry_after_ms) == (True, retry_after_ms)


# The rate limit


LIMITED = Refusal("rate_limited", retry_after_ms=250)


@pytest.mark.parametrize("frame", [*(frame for frame, _ in COMMANDS), {"type": "ping"}, {"type": "heartbeat"}])
def test_a_frame_beyond_the_limit_is_refused_whatever_it_asks_for(frame: dict[str, Any]) -> None:
    step = session().receive_text(json.dumps(frame | {"id": "i"}), NOW, LIMITED)
    assert isinstance(step, Reply)
    assert isinstance(step.frame, Error)
    assert (step.frame.id, step.frame.code, step.frame.retry_after_ms) == ("i", "rate_limited", 250)
    assert (step.is_limited, step.is_error) == (True, True)
    assert (step.type, step.deprecated) == (ALIASES.get(frame["type"], frame["type"]), frame["type"] in ALIASES)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("{", "invalid_json"),
        ("[]", "not_an_object"),
        ('{"id":"i"}', "missing_type"),
        ('{"type":"nonsense"}', "unknown_type"),
        ('{"type":"agent_started"}', "reserved_type"),
        ('{"type":"respond"}', "not_implemented"),
        # What comes after the limit in the order of checks.
        ('{"type":"chat","id":"a b"}', "rate_limited"),
        ('{"type":"chat","content":5}', "rate_limited"),
        ('{"type":"chat","content":"hi","user_id":"other"}', "rate_limited"),
        ('{"type":"chat","thread_id":"a","payload":{"thread_id":"b"}}', "rate_limited"),
    ],
)
def test_the_frame_and_its_type_are_checked_before_the_limit_and_all_else_after_it(text: str, code: str) -> None:
    step = session().receive_text(text, NOW, LIMITED)
    assert isinstance(step, Reply)
    assert isinstance(step.frame, Error)
    assert (step.frame.code, step.is_limited) == (code, code == "rate_limited")


def test_an_answer_is_no_error_and_not_limited() -> None:
    step = session().receive_text('{"type":"ping"}', NOW)
    assert isinstance(step, Reply)
    assert (step.is_error, step.is_limited, step.type) == (False, False, "ping")


# The original dialect


RESERVED = ThreadId("thr-1")
ACKNOWLEDGED = '{"type":"handshake_acknowledged","id":"i","thread_id":"thr-1"}'


def original() -> Session:
    return Session(Principal("acme", "me"), ConnectionId("conn-1"), (RESERVED, ThreadNo(7)))


def test_the_reserved_thread_is_the_current_one_and_its_acknowledgement_is_answered() -> None:
    made = original()
    assert (made.current_thread, made.reserved) == (RESERVED, (RESERVED, 7))
    complete = Reply(frame=HandshakeComplete(id="i", timestamp=NOW, thread_id=RESERVED), type="handshake_acknowledged")
    for _ in range(2):
        assert made.receive_text(ACKNOWLEDGED, NOW) == complete


@pytest.mark.parametrize(("fields", "code"), [({"thread_id": "thr-2"}, "thread_not_found"), ({}, "validation_error")])
def test_no_other_thread_is_acknowledged(fields: dict[str, str], code: str) -> None:
    step = original().receive_text(json.dumps({"type": "handshake_acknowledged", **fields}), NOW)
    assert isinstance(step, Reply)
    assert isinstance(step.frame, Error)
    assert step.frame.code == code


def test_outside_the_dialect_the_acknowledgement_is_unknown() -> None:
    step = session().receive_text(ACKNOWLEDGED, NOW)
    assert isinstance(step, Reply)
    assert isinstance(step.frame, Error)
    assert (step.frame.id, step.frame.code) == ("i", "unknown_type")


def test_once_made_it_is_not_reserved_any_more_and_still_acknowledged() -> None:
    made = original()
    made.make_current(RESERVED)
    assert (made.current_thread, made.reserved) == (RESERVED, None)
    step = made.receive_text(ACKNOWLEDGED, NOW)
    assert isinstance(step, Reply)
    assert isinstance(step.frame, HandshakeComplete)


def test_another_current_thread_leaves_it_reserved() -> None:
    made = original()
    made.make_current(ThreadId("t"))
    assert (made.current_thread, made.reserved) == ("t", (RESERVED, 7))


def test_a_deleted_thread_is_neither_current_nor_reserved() -> None:
    made = original()
    made.forget(ThreadId("t"))
    assert (made.current_thread, made.reserved) == (RESERVED, (RESERVED, 7))
    made.forget(RESERVED)
    assert (made.current_thread, made.reserved) == (None, None)
    made.make_current(ThreadId("t"))
    made.forget(ThreadId("u"))
    assert made.current_thread == "t"
