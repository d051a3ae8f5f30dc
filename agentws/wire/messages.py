"""What clients send: one struct a frame, decoded by msgspec.

The structs of client frames hold types only; what the protocol asks of values is checked in its order by `codec`.
"""

from typing import Any

import msgspec

__all__ = [
    "ALIASES",
    "PLANNED",
    "RESERVED",
    "STARTS",
    "Authenticate",
    "ClientMessage",
    "CreateThread",
    "DeleteThread",
    "GetThreadHistory",
    "HandshakeAcknowledged",
    "Heartbeat",
    "ListThreads",
    "Ping",
    "Start",
    "StopAgent",
    "Subscribe",
    "SwitchThread",
    "Unsubscribe",
    "UpdateThread",
]

ALIASES = {
    "execute_agent": "start_agent",
    "user": "user_message",
    "user_input": "user_message",
    "chat_message": "user_message",
    "message": "user_message",
}
"""Deprecated type → the type it stands for."""

STARTS = frozenset({"start_agent", "user_message", "chat"})
"""The types that start a run."""


class _Client(msgspec.Struct, frozen=True, kw_only=True):
    """`type` and `id` as they came; `type` after aliases."""

    type: str
    id: str | None = None
    user_id: str | None = None


class Start(_Client, frozen=True, kw_only=True):
    """Asks for a run: with `user_request`, or with the first of `message`, `content` and `text` that is not blank."""

    # Of a decoded frame `text` is the user's, wherever it stood.
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
    """Stops the run that `run_id`, else `request_id` names, else all of the thread."""

    run_id: str | None = None
    request_id: str | None = None
    thread_id: str | None = None
    reason: str | None = None


class Subscribe(_Client, frozen=True, kw_only=True):
    """Asks for the thread's events after `after_seq`, and for those to come."""

    thread_id: str | None = None
    after_seq: int = 0
    epoch: str | None = None
    subagents: bool = False


class Unsubscribe(_Client, frozen=True, kw_only=True):
    """Ends a subscription, however it was made."""

    thread_id: str | None = None


class CreateThread(_Client, frozen=True, kw_only=True):
    """Makes a thread; the same id again is the same thread."""

    thread_id: str | None = None
    title: str | None = None
    metadata: dict[str, Any] | None = None


class UpdateThread(_Client, frozen=True, kw_only=True):
    """What is given replaces the whole old value; an empty title clears it."""

    thread_id: str | None = None
    title: str | None = None
    metadata: dict[str, Any] | None = None


class ListThreads(_Client, frozen=True, kw_only=True):
    """Asks for a page of the user's threads, latest first; `before` is the cursor that the page before gave."""

    limit: int = 50
    before: str | None = None


class SwitchThread(_Client, frozen=True, kw_only=True):
    """Makes a thread the current one and subscribes to it; `after_seq` absent: from its `resume_after`."""

    thread_id: str | None = None
    after_seq: int | None = None
    epoch: str | None = None
    subagents: bool = False


class GetThreadHistory(_Client, frozen=True, kw_only=True):
    """Asks for a page of the thread's messages; `before` is the cursor that the page before gave."""

    thread_id: str | None = None
    limit: int = 50
    before: str | None = None


class DeleteThread(_Client, frozen=True, kw_only=True):
    """Deletes a thread and ends its runs."""

    thread_id: str | None = None


class Authenticate(_Client, frozen=True, kw_only=True):
    """Brings a fresh token of the same user."""

    token: str | None = None


class HandshakeAcknowledged(_Client, frozen=True, kw_only=True):
    """Known in the original dialect only (section 7)."""

    thread_id: str | None = None


class Ping(_Client, frozen=True, kw_only=True):
    """`payload` is any JSON value, given back as it came."""

    payload: Any = None


class Heartbeat(_Client, frozen=True, kw_only=True):
    """Asks for a sign of life."""


ClientMessage = (
    Start
    | StopAgent
    | Subscribe
    | Unsubscribe
    | CreateThread
    | UpdateThread
    | ListThreads
    | SwitchThread
    | GetThreadHistory
    | DeleteThread
    | Authenticate
    | HandshakeAcknowledged
    | Ping
    | Heartbeat
)


PLANNED = frozenset({"subscribe_threads", "respond"})
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
