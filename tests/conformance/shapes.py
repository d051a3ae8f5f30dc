"""The rows of sections 3 and 4 as tables: `check_frame` fails on a server frame that lacks a field of its row or types
it otherwise. Fields and types that the page does not name are let through."""

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

__all__ = [
    "ANSWERS",
    "BODIES",
    "CLIENT_ID",
    "CRITICAL",
    "EVENTS",
    "RETRYABLE",
    "SERVER_TYPES",
    "TERMINAL",
    "Frame",
    "check_body",
    "check_frame",
]

Frame: TypeAlias = dict[str, Any]
Check: TypeAlias = Callable[[object], bool]
Row: TypeAlias = Mapping[str, Check]

CLIENT_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


def anything(_: object) -> bool:
    return True


def nothing(value: object) -> bool:
    return value is None


def text(value: object) -> bool:
    return isinstance(value, str)


def filled(value: object) -> bool:
    return isinstance(value, str) and value != ""


def client_id(value: object) -> bool:
    return isinstance(value, str) and CLIENT_ID.fullmatch(value) is not None


def moment(value: object) -> bool:
    return isinstance(value, str) and MOMENT.fullmatch(value) is not None


def flag(value: object) -> bool:
    return isinstance(value, bool)


def number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= 0


def count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def ordinal(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def fraction(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


def mapping(value: object) -> bool:
    return isinstance(value, dict)


def or_null(check: Check) -> Check:
    return lambda value: value is None or check(value)


def one_of(*allowed: str) -> Check:
    return lambda value: value in allowed


def list_of(check: Check) -> Check:
    return lambda value: isinstance(value, list) and all(check(item) for item in value)


def record(row: Row) -> Check:
    return lambda value: isinstance(value, dict) and not faults(value, row)


def faults(frame: Mapping[str, Any], row: Row) -> list[str]:
    """What is wrong with `frame` by `row`; a name ending in `?` may be left out, but is not null where it is there."""
    found: list[str] = []
    for name, check in row.items():
        field = name.removesuffix("?")
        if field not in frame:
            if field == name:
                found.append(f"{field} is missing")
        elif not check(frame[field]):
            found.append(f"{field} is {frame[field]!r}")
    return found


STATUS = one_of("queued", "running", "interrupted", "completed", "failed", "stopped")

THREAD: Row = {
    "thread_id": client_id,
    "title": or_null(text),
    "metadata": or_null(mapping),
    "created_at": moment,
    "updated_at": moment,
    "epoch": filled,
    "last_seq": count,
    "running_run_id": or_null(client_id),
}

MESSAGE: Row = {
    "message_id": filled,
    "role": one_of("user", "assistant"),
    "content": text,
    "run_id": client_id,
    "status": STATUS,
    "seq": count,
    "created_at": moment,
}

ANSWERS: Mapping[str, Row] = {
    "request_accepted": {
        "request_id": filled,
        "thread_id": client_id,
        "epoch": filled,
        "run_id": client_id,
        "seq": count,
        "duplicate": flag,
        "status": STATUS,
        "position": count,
    },
    "stop_accepted": {"run_ids": list_of(client_id), "already_ended": list_of(client_id)},
    "subscribed": {
        "thread_id": client_id,
        "epoch": filled,
        "first_seq": count,
        "last_seq": count,
        "after_seq": count,
        "recovered": flag,
    },
    "caught_up": {"thread_id": client_id, "seq": count},
    "unsubscribed": {"thread_id": client_id},
    "thread_created": {"thread": record(THREAD)},
    "thread_updated": {"thread": record(THREAD)},
    "thread_switched": {"thread": record(THREAD), "resume_after": count},
    "thread_deleted": {"thread_id": client_id},
    "thread_list": {"threads": list_of(record(THREAD)), "next_before": or_null(filled)},
    "thread_history": {
        "thread_id": client_id,
        "epoch": filled,
        "last_seq": count,
        "resume_after": count,
        "messages": list_of(record(MESSAGE)),
        "next_before": or_null(filled),
    },
    "authenticated": {"user_id": filled, "expires_at": or_null(moment)},
    "handshake_complete": {"thread_id": client_id},
    "pong": {"payload": anything},
    "heartbeat_ack": {"status": one_of("healthy")},
}
ANSWER: Row = {"id": or_null(client_id), "timestamp": moment}

UNASKED: Mapping[str, Row] = {
    "connection_established": {
        "connection_id": filled,
        "user_id": filled,
        "expires_at": or_null(moment),
        "protocol": one_of("agentws.v1"),
        "server_version": filled,
        "heartbeat_interval_s": number,
        "limits": mapping,
    },
    "credentials_expiring": {"expires_at": moment},
    "draining": {"retry_after_ms": count},
    "handshake_response": {
        "thread_id": client_id,
        "run_id": nothing,
        "request_id": filled,
        "session_token": filled,
        "timestamp": moment,
        "message": filled,
    },
    "subscription_ended": {"thread_id": client_id, "reason": filled},
}

# What is told beside the WebSocket only.
BODIES: Mapping[str, Row] = {
    "me": {"user_id": filled, "tenant_id": text, "expires_at": or_null(moment)},
    "ticket": {"ticket": filled, "expires_at": or_null(moment), "websocket_url": filled},
    "events": {**ANSWERS["subscribed"], "events": list_of(mapping)},
    "thread": THREAD,
    "thread_list": ANSWERS["thread_list"],
    "thread_history": ANSWERS["thread_history"],
}

EVENT: Row = {
    "event_id": filled,
    "seq": ordinal,
    "from_seq?": ordinal,
    "epoch": filled,
    "timestamp": moment,
    "user_id": filled,
    "thread_id": client_id,
    "run_id": client_id,
    "request_id": filled,
    "agent_name": filled,
    "attempt": ordinal,
    "payload": mapping,
}

EVENTS: Mapping[str, Row] = {
    "agent_queued": {"position": ordinal},
    "agent_started": {"status": one_of("started"), "message": text},
    "agent_thinking": {"reasoning": text, "step": ordinal, "offset": count},
    "tool_executing": {"execution_id": filled, "tool_name": filled, "parameters": anything},
    "tool_completed": {
        "execution_id": filled,
        "tool_name": filled,
        "success": flag,
        "outcome": one_of("done", "failed", "stopped", "unknown"),
        "result": anything,
        "error": or_null(record({"code": filled, "message": filled})),
        "duration_ms": number,
    },
    "tool_progress": {"execution_id": filled, "progress?": fraction, "message?": text},
    "agent_message": {"text": text, "offset": count},
    "agent_event": {"name": filled, "value": anything},
    "agent_completed": {"response": text, "status": one_of("completed"), "duration_ms": number, "usage?": anything},
    "agent_error": {
        "code": filled,
        "message": filled,
        "retryable": flag,
        "response": or_null(text),
        "duration_ms": number,
    },
    "agent_stopped": {
        "status": one_of("stopped"),
        "reason": filled,
        "response": or_null(text),
        "duration_ms": number,
    },
}
TOOL_EVENT: Row = {"tool_name": filled}
TERMINAL = frozenset({"agent_completed", "agent_error", "agent_stopped"})
CRITICAL = ("agent_started", "agent_thinking", "tool_executing", "tool_completed", "agent_completed")

ERROR: Row = {
    "id": or_null(client_id),
    "code": filled,
    "message": filled,
    "retryable": flag,
    "retry_after_ms?": count,
    "details?": mapping,
}

FINAL_CODES = [
    *("invalid_json", "not_an_object", "missing_type", "unknown_type", "reserved_type", "unsupported_frame"),
    *("not_implemented", "validation_error", "ambiguous_thread", "thread_not_found", "run_not_found"),
    *("agent_not_found", "run_id_conflict", "idempotency_conflict", "identity_mismatch", "unauthorized"),
    *("forbidden_origin", "token_expired"),
]
LIMIT_CODES = [
    *("rate_limited", "overloaded", "too_many_runs", "too_many_subscriptions", "too_many_threads", "draining"),
]
RETRYABLE: Mapping[str, bool] = (
    dict.fromkeys(FINAL_CODES, False)
    | dict.fromkeys(LIMIT_CODES, True)
    | dict.fromkeys(["thread_busy", "database_unavailable", "internal_error"], True)
)

SERVER_TYPES = (
    *ANSWERS,
    *UNASKED,
    *EVENTS,
    "agent_interrupted",
    "error",
)


def _event_faults(frame: Frame) -> list[str]:
    kind: str = frame["type"]
    found = faults(frame, EVENT)
    if found:
        return found
    payload: Frame = frame["payload"]
    found = faults(payload, EVENTS[kind])
    if frame.get("from_seq", 1) > frame["seq"]:
        found.append("from_seq is beyond seq")
    if kind.startswith("tool_"):
        found += faults(frame, TOOL_EVENT)
    if kind == "tool_completed" and not found:
        if "results" not in frame:
            found.append("results is missing")
        if payload["success"] is not (payload["outcome"] == "done"):
            found.append("success and outcome contradict each other")
        if payload["success"] is not (payload["error"] is None):
            found.append("success and error contradict each other")
    return found


def _error_faults(frame: Frame) -> list[str]:
    found = faults(frame, ERROR)
    code = frame.get("code")
    if not found and RETRYABLE.get(str(code), frame["retryable"]) is not frame["retryable"]:
        found.append("retryable is not what the table of codes says")
    if code in LIMIT_CODES and "retry_after_ms" not in frame:
        found.append("retry_after_ms is missing")
    return found


def check_body(kind: str, body: Frame) -> None:
    """Fails where a body that is no frame is not as its row says; the events in it are checked too."""
    found = faults(body, BODIES[kind])
    assert not found, f"{kind}: {'; '.join(found)} in {body}"
    for event in body.get("events", []):
        check_frame(event)


def check_frame(frame: Frame) -> None:
    """Fails where a frame of a known type is not as its row says."""
    kind = frame.get("type")
    assert isinstance(kind, str), f"a frame without a type: {frame}"
    if kind in ANSWERS:
        found = faults(frame, ANSWER) + faults(frame, ANSWERS[kind])
    elif kind in UNASKED:
        found = faults(frame, UNASKED[kind])
    elif kind in EVENTS:
        found = _event_faults(frame)
    elif kind == "error":
        found = _error_faults(frame)
    else:
        found = []
    assert not found, f"{kind}: {'; '.join(found)} in {frame}"
