"""What clients are answered and told, beside run events: one struct a frame, encoded by msgspec."""

from collections.abc import Sequence
from typing import Any, Literal

import msgspec

__all__ = [
    "Authenticated",
    "CaughtUp",
    "ConnectionEstablished",
    "CredentialsExpiring",
    "DrainingNotice",
    "Error",
    "HandshakeComplete",
    "HandshakeResponse",
    "HeartbeatAck",
    "HistoryMessage",
    "Pong",
    "RequestAccepted",
    "RunStatus",
    "ServerMessage",
    "StopAccepted",
    "Subscribed",
    "SubscriptionEnded",
    "Thread",
    "ThreadCreated",
    "ThreadDeleted",
    "ThreadHistory",
    "ThreadList",
    "ThreadSwitched",
    "ThreadUpdated",
    "Unsubscribed",
]


RunStatus = Literal["queued", "running", "interrupted", "completed", "failed", "stopped"]
"""Where a run is; `failed` ended in `agent_error`."""


class _Answer(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    """A direct answer: `id` is that of the frame it answers, `timestamp` the server's time."""

    id: str | None
    timestamp: str


class RequestAccepted(_Answer, frozen=True, kw_only=True, tag="request_accepted"):
    """The run is committed; its events come after this one, from `seq` + 1 on."""

    request_id: str
    thread_id: str
    epoch: str
    run_id: str
    seq: int
    duplicate: bool
    status: RunStatus
    position: int


class StopAccepted(_Answer, frozen=True, kw_only=True, tag="stop_accepted"):
    """`run_ids` are stopping now, `already_ended` had ended before."""

    run_ids: list[str]
    already_ended: list[str]


class Subscribed(_Answer, frozen=True, kw_only=True, tag="subscribed"):
    """Events after `after_seq` follow; where `recovered` is false the client drops what it held of the thread."""

    thread_id: str
    epoch: str
    first_seq: int
    last_seq: int
    after_seq: int
    recovered: bool


class CaughtUp(_Answer, frozen=True, kw_only=True, tag="caught_up"):
    """The events up to `seq` have been sent; what follows is live."""

    thread_id: str
    seq: int


class Unsubscribed(_Answer, frozen=True, kw_only=True, tag="unsubscribed"):
    """No further event of the thread is sent."""

    thread_id: str


class Thread(msgspec.Struct, frozen=True, kw_only=True):
    """A conversation; `epoch` changes when its past is not what it was."""

    thread_id: str
    title: str | None
    metadata: msgspec.Raw | None
    created_at: str
    updated_at: str
    epoch: str
    last_seq: int
    running_run_id: str | None


class ThreadCreated(_Answer, frozen=True, kw_only=True, tag="thread_created"):
    """The thread, made now or before."""

    thread: Thread


class ThreadUpdated(_Answer, frozen=True, kw_only=True, tag="thread_updated"):
    """The thread as it is now."""

    thread: Thread


class ThreadSwitched(_Answer, frozen=True, kw_only=True, tag="thread_switched"):
    """The thread is the connection's current one; `subscribed` follows."""

    thread: Thread
    resume_after: int


class ThreadDeleted(_Answer, frozen=True, kw_only=True, tag="thread_deleted"):
    """Also sent to every other connection that is subscribed to the thread; then `id` is null."""

    thread_id: str


class ThreadList(_Answer, frozen=True, kw_only=True, tag="thread_list"):
    """`next_before` is the cursor of the next page; null: there is none."""

    threads: Sequence[Thread]
    next_before: str | None


class HistoryMessage(msgspec.Struct, frozen=True, kw_only=True):
    """A message of a thread; `status` is its run's, `seq` the number of the event that goes with it."""

    message_id: str
    role: Literal["user", "assistant"]
    content: str
    run_id: str
    status: RunStatus
    seq: int
    created_at: str


class ThreadHistory(_Answer, frozen=True, kw_only=True, tag="thread_history"):
    """One snapshot: a subscription from `resume_after` on goes on where the messages end."""

    thread_id: str
    epoch: str
    last_seq: int
    resume_after: int
    messages: Sequence[HistoryMessage]
    next_before: str | None


class Authenticated(_Answer, frozen=True, kw_only=True, tag="authenticated"):
    """The connection goes on with the new credentials."""

    user_id: str
    expires_at: str | None


class HandshakeResponse(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="handshake_response"):
    """The original dialect's greeting: the thread is reserved for this connection, the session token means nothing."""

    thread_id: str
    run_id: None
    request_id: str
    session_token: str
    timestamp: str
    message: str


class HandshakeComplete(_Answer, frozen=True, kw_only=True, tag="handshake_complete"):
    """The original dialect's handshake is done."""

    thread_id: str


class Pong(_Answer, frozen=True, kw_only=True, tag="pong"):
    """What the ping carried, as it came."""

    payload: Any


class HeartbeatAck(_Answer, frozen=True, kw_only=True, tag="heartbeat_ack"):
    """The connection works."""

    status: Literal["healthy"] = "healthy"


class Error(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="error"):
    """A frame was refused, or something failed; treat a code that you do not know by `retryable`."""

    id: str | None
    code: str
    message: str
    retryable: bool
    retry_after_ms: int | msgspec.UnsetType = msgspec.UNSET
    details: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET


class ConnectionEstablished(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="connection_established"):
    """The first frame of a connection."""

    timestamp: str
    connection_id: str
    user_id: str
    expires_at: str | None
    protocol: Literal["agentws.v1"]
    server_version: str
    heartbeat_interval_s: float
    limits: dict[str, float]


class CredentialsExpiring(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="credentials_expiring"):
    """The connection is closed at `expires_at`, unless `authenticate` brings fresh credentials."""

    timestamp: str
    expires_at: str


class DrainingNotice(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="draining"):
    """The server goes away: starts are refused; reconnect after that time."""

    timestamp: str
    retry_after_ms: int


class SubscriptionEnded(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="subscription_ended"):
    """The server has ended a subscription; `epoch_changed`: subscribe again."""

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
    | ThreadUpdated
    | ThreadSwitched
    | ThreadDeleted
    | ThreadList
    | ThreadHistory
    | Authenticated
    | HandshakeComplete
    | HandshakeResponse
    | Pong
    | HeartbeatAck
    | Error
    | ConnectionEstablished
    | CredentialsExpiring
    | DrainingNotice
    | SubscriptionEnded
)
