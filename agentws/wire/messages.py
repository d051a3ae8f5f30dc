"""What clients send and what they are answered: one struct a frame, decoded and encoded by msgspec.

The structs of client frames hold types only; what the protocol asks of values is checked in its order by `codec`.
"""

from typing import Any

import msgspec

__all__ = [
    "ALIASES",
    "PLANNED",
    "RESERVED",
    "CaughtUp",
    "ClientMessage",
    "ConnectionEstablished",
    "CreateThread",
    "DrainingNotice",
    "Error",
    "Heartbeat",
    "HeartbeatAck",
    "Ping",
    "Pong",
    "RequestAccepted",
    "ServerMessage",
    "Start",
    "StopAccepted",
    "StopAgent",
    "Subscribe",
    "Subscribed",
    "SubscriptionEnded",
    "Thread",
    "ThreadCreated",
    "Unsubscribe",
    "Unsubscribed",
]

ALIASES = {
    "execute_agent": "start_agent",
    "user": "user_message",
    "user_input": "user_message",
    "chat_message": "user_message",
    "message": "user_message",
}
"""Deprecated type → the type it stands for."""


class _Client(msgspec.Struct, frozen=True, kw_only=True):
    """`type` and `id` as they came; `type` after aliases."""

    type: str
    id: str | None = None
    user_id: str | None = None


class Start(_Client, frozen=True, kw_only=True):
    """`start_agent`, `user_message` and `chat`: a run is asked for. `text` is filled in by the codec."""

    user_request: str | None = None
    message: str | None = None
    content: str | None = None
    text: str | None = None
    agent: str | None = None
    thread_id: str | None = None
    run_id: str | None = None
    idempotency_key: str | None = None
    context: dict[str, Any] | None = None
    if_busy: str = "queue"
    on_disconnect: str = "continue"
    subscribe: bool = True
    subagents: bool = False


class StopAgent(_Client, frozen=True, kw_only=True):
    run_id: str | None = None
    request_id: str | None = None
    thread_id: str | None = None
    reason: str | None = None


class Subscribe(_Client, frozen=True, kw_only=True):
    thread_id: str | None = None
    after_seq: int = 0
    epoch: str | None = None
    subagents: bool = False


class Unsubscribe(_Client, frozen=True, kw_only=True):
    thread_id: str | None = None


class CreateThread(_Client, frozen=True, kw_only=True):
    thread_id: str | None = None
    title: str | None = None
    metadata: dict[str, Any] | None = None


class Ping(_Client, frozen=True, kw_only=True):
    """`payload` is any JSON value, given back as it came."""

    payload: Any = None


class Heartbeat(_Client, frozen=True, kw_only=True):
    pass


ClientMessage = Start | StopAgent | Subscribe | Unsubscribe | CreateThread | Ping | Heartbeat


class _Answer(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    """A direct answer: `id` is that of the frame it answers, `timestamp` the server's time."""

    id: str | None
    timestamp: str


class RequestAccepted(_Answer, frozen=True, kw_only=True, tag="request_accepted"):
    request_id: str
    thread_id: str
    epoch: str
    run_id: str
    seq: int
    duplicate: bool
    status: str
    position: int


class StopAccepted(_Answer, frozen=True, kw_only=True, tag="stop_accepted"):
    run_ids: list[str]
    already_ended: list[str]


class Subscribed(_Answer, frozen=True, kw_only=True, tag="subscribed"):
    thread_id: str
    epoch: str
    first_seq: int
    last_seq: int
    after_seq: int
    recovered: bool


class CaughtUp(_Answer, frozen=True, kw_only=True, tag="caught_up"):
    thread_id: str
    seq: int


class Unsubscribed(_Answer, frozen=True, kw_only=True, tag="unsubscribed"):
    thread_id: str


class Thread(msgspec.Struct, frozen=True, kw_only=True):
    thread_id: str
    title: str | None
    metadata: msgspec.Raw | None
    created_at: str
    updated_at: str
    epoch: str
    last_seq: int
    running_run_id: str | None


class ThreadCreated(_Answer, frozen=True, kw_only=True, tag="thread_created"):
    thread: Thread


class Pong(_Answer, frozen=True, kw_only=True, tag="pong"):
    payload: Any


class HeartbeatAck(_Answer, frozen=True, kw_only=True, tag="heartbeat_ack"):
    status: str = "healthy"


class Error(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="error"):
    id: str | None
    code: str
    message: str
    retryable: bool
    retry_after_ms: int | msgspec.UnsetType = msgspec.UNSET
    details: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET


class ConnectionEstablished(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="connection_established"):
    timestamp: str
    connection_id: str
    user_id: str
    expires_at: str | None
    protocol: str
    server_version: str
    heartbeat_interval_s: float
    limits: dict[str, int]


class DrainingNotice(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="draining"):
    timestamp: str
    retry_after_ms: int


class SubscriptionEnded(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="subscription_ended"):
    timestamp: str
    thread_id: str
    reason: str


ServerMessage = (
    RequestAccepted
    | StopAccepted
    | Subscribed
    | CaughtUp
    | Unsubscribed
    | ThreadCreated
    | Pong
    | HeartbeatAck
    | Error
    | ConnectionEstablished
    | DrainingNotice
    | SubscriptionEnded
)

PLANNED = frozenset(
    {
        "update_thread",
        "list_threads",
        "subscribe_threads",
        "switch_thread",
        "get_thread_history",
        "delete_thread",
        "respond",
        "authenticate",
    }
)
"""Client types whose names are taken and whose features do not exist yet: answered `not_implemented`."""

RESERVED = frozenset(
    {
        "request_accepted",
        "stop_accepted",
        "subscribed",
        "caught_up",
        "unsubscribed",
        "thread_created",
        "thread_updated",
        "thread_switched",
        "thread_deleted",
        "thread_list",
        "thread_history",
        "authenticated",
        "pong",
        "heartbeat_ack",
        "connection_established",
        "credentials_expiring",
        "draining",
        "subscription_ended",
        "handshake_response",
        "handshake_complete",
        "error",
        "agent_queued",
        "agent_started",
        "agent_thinking",
        "tool_executing",
        "tool_completed",
        "tool_progress",
        "agent_message",
        "agent_event",
        "agent_interrupted",
        "agent_completed",
        "agent_error",
        "agent_stopped",
    }
)
"""Types that the server alone sends."""
