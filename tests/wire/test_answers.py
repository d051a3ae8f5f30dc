"""The structs of what the server sends against the tables of section 4."""

from typing import Any, get_args

import msgspec
import pytest

from agentws.wire.answers import (
    Authenticated,
    CaughtUp,
    ConnectionEstablished,
    CredentialsExpiring,
    DrainingNotice,
    Error,
    HandshakeComplete,
    HandshakeResponse,
    HeartbeatAck,
    HistoryMessage,
    Pong,
    RequestAccepted,
    ServerMessage,
    StopAccepted,
    Subscribed,
    SubscriptionEnded,
    Thread,
    ThreadCreated,
    ThreadDeleted,
    ThreadHistory,
    ThreadList,
    ThreadSwitched,
    ThreadUpdated,
    Unsubscribed,
)
from agentws.wire.codec import encode

ANSWER: dict[str, Any] = {"id": "i", "timestamp": "2024-05-06T07:08:09.123Z"}
NOW: dict[str, Any] = {"timestamp": "2024-05-06T07:08:09.123Z"}
THREAD: dict[str, Any] = {
    "thread_id": "t",
    "title": None,
    "metadata": None,
    "created_at": "c",
    "updated_at": "u",
    "epoch": "e",
    "last_seq": 0,
    "running_run_id": None,
}
ACCEPTED: dict[str, Any] = {
    "request_id": "q",
    "thread_id": "t",
    "epoch": "e",
    "run_id": "r",
    "seq": 0,
    "duplicate": False,
    "status": "running",
    "position": 0,
}
NUMBERS: dict[str, Any] = {"epoch": "e", "first_seq": 1, "last_seq": 0, "after_seq": 0, "recovered": True}
ESTABLISHED: dict[str, Any] = {
    "connection_id": "c",
    "user_id": "u",
    "expires_at": None,
    "protocol": "agentws.v1",
    "server_version": "0",
    "heartbeat_interval_s": 10.0,
    "limits": {},
}
HISTORY: dict[str, Any] = {"thread_id": "t", "epoch": "e", "last_seq": 2, "resume_after": 0}
MESSAGE: dict[str, Any] = {
    "message_id": "m",
    "role": "user",
    "content": "hi",
    "run_id": "r",
    "status": "queued",
    "seq": 1,
    "created_at": "c",
}
HANDSHAKE: dict[str, Any] = {
    "thread_id": "t",
    "run_id": None,
    "request_id": "q",
    "session_token": "s",
    "message": "m",
}
REFUSED: dict[str, Any] = {"id": None, "code": "draining", "message": "m", "retryable": True}

FRAMES: list[tuple[str, ServerMessage, dict[str, Any]]] = [
    ("request_accepted", RequestAccepted(**ANSWER, **ACCEPTED), ANSWER | ACCEPTED),
    (
        "stop_accepted",
        StopAccepted(**ANSWER, run_ids=["r"], already_ended=[]),
        ANSWER | {"run_ids": ["r"], "already_ended": []},
    ),
    ("subscribed", Subscribed(**ANSWER, thread_id="t", **NUMBERS), ANSWER | {"thread_id": "t"} | NUMBERS),
    ("caught_up", CaughtUp(**ANSWER, thread_id="t", seq=3), ANSWER | {"thread_id": "t", "seq": 3}),
    ("unsubscribed", Unsubscribed(**ANSWER, thread_id="t"), ANSWER | {"thread_id": "t"}),
    ("thread_created", ThreadCreated(**ANSWER, thread=Thread(**THREAD)), ANSWER | {"thread": THREAD}),
    ("thread_updated", ThreadUpdated(**ANSWER, thread=Thread(**THREAD)), ANSWER | {"thread": THREAD}),
    (
        "thread_switched",
        ThreadSwitched(**ANSWER, thread=Thread(**THREAD), resume_after=3),
        ANSWER | {"thread": THREAD, "resume_after": 3},
    ),
    ("thread_deleted", ThreadDeleted(**ANSWER, thread_id="t"), ANSWER | {"thread_id": "t"}),
    (
        "thread_list",
        ThreadList(**ANSWER, threads=[Thread(**THREAD)], next_before=None),
        ANSWER | {"threads": [THREAD], "next_before": None},
    ),
    (
        "thread_history",
        ThreadHistory(**ANSWER, **HISTORY, messages=[HistoryMessage(**MESSAGE)], next_before="c"),
        ANSWER | HISTORY | {"messages": [MESSAGE], "next_before": "c"},
    ),
    (
        "authenticated",
        Authenticated(**ANSWER, user_id="u", expires_at=None),
        ANSWER | {"user_id": "u", "expires_at": None},
    ),
    ("handshake_complete", HandshakeComplete(**ANSWER, thread_id="t"), ANSWER | {"thread_id": "t"}),
    ("handshake_response", HandshakeResponse(**NOW, **HANDSHAKE), NOW | HANDSHAKE),
    ("pong", Pong(**ANSWER, payload=None), ANSWER | {"payload": None}),
    ("heartbeat_ack", HeartbeatAck(**ANSWER), ANSWER | {"status": "healthy"}),
    ("error", Error(**REFUSED), REFUSED),
    (
        "error",
        Error(**REFUSED, retry_after_ms=5, details={"field": "id"}),
        REFUSED | {"retry_after_ms": 5, "details": {"field": "id"}},
    ),
    ("connection_established", ConnectionEstablished(**NOW, **ESTABLISHED), NOW | ESTABLISHED),
    ("credentials_expiring", CredentialsExpiring(**NOW, expires_at="e"), NOW | {"expires_at": "e"}),
    ("draining", DrainingNotice(**NOW, retry_after_ms=5), NOW | {"retry_after_ms": 5}),
    (
        "subscription_ended",
        SubscriptionEnded(**NOW, thread_id="t", reason="revoked"),
        NOW | {"thread_id": "t", "reason": "revoked"},
    ),
]


@pytest.mark.parametrize(("kind", "frame", "fields"), FRAMES, ids=[kind for kind, _, _ in FRAMES])
def test_a_server_frame_has_exactly_the_fields_of_its_row(
    kind: str, frame: ServerMessage, fields: dict[str, Any]
) -> None:
    assert msgspec.json.decode(encode(frame)) == {"type": kind, **fields}


def test_every_server_frame_is_in_the_table_of_this_file() -> None:
    assert {type(frame) for _, frame, _ in FRAMES} == set(get_args(ServerMessage))


def test_an_answer_to_a_frame_without_id_says_null() -> None:
    frame = Unsubscribed(id=None, timestamp="now", thread_id="t")
    assert msgspec.json.decode(encode(frame))["id"] is None


def test_the_metadata_of_a_thread_goes_out_as_it_came() -> None:
    thread = Thread(**THREAD | {"metadata": msgspec.Raw(b'{"a":[1.0,null]}')})
    assert msgspec.json.decode(encode(thread))["metadata"] == {"a": [1.0, None]}
