"""Text frames of the server → what they say: run events, and answers as structs; None where it is not known here."""

from collections.abc import Sequence
from typing import Any

import msgspec

from agentws.client.reader import Event
from agentws.wire.answers import (
    CaughtUp,
    ConnectionEstablished,
    DrainingNotice,
    Error,
    RequestAccepted,
    StopAccepted,
    Subscribed,
    SubscriptionEnded,
    ThreadDeleted,
    Unsubscribed,
)

__all__ = [
    "Answer",
    "HistoryMessage",
    "Notice",
    "Thread",
    "ThreadCreated",
    "ThreadHistory",
    "ThreadList",
    "ThreadUpdated",
    "UnreadableFrame",
    "read",
]


class Thread(msgspec.Struct, frozen=True, kw_only=True):
    """A thread as the server describes it."""

    thread_id: str
    title: str | None
    metadata: dict[str, Any] | None
    created_at: str
    updated_at: str
    epoch: str
    last_seq: int
    running_run_id: str | None


class _Answer(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    id: str | None
    timestamp: str


class ThreadCreated(_Answer, frozen=True, kw_only=True, tag="thread_created"):
    thread: Thread


class ThreadUpdated(_Answer, frozen=True, kw_only=True, tag="thread_updated"):
    thread: Thread


class ThreadList(_Answer, frozen=True, kw_only=True, tag="thread_list"):
    threads: Sequence[Thread]
    next_before: str | None


class HistoryMessage(msgspec.Struct, frozen=True, kw_only=True):
    """A message of a thread; a later server may know more roles and statuses."""

    message_id: str
    role: str
    content: str
    run_id: str
    status: str
    seq: int
    created_at: str


class ThreadHistory(_Answer, frozen=True, kw_only=True, tag="thread_history"):
    """One snapshot: following the thread from `resume_after` on goes on where the messages end."""

    thread_id: str
    epoch: str
    last_seq: int
    resume_after: int
    messages: Sequence[HistoryMessage]
    next_before: str | None


Answer = (
    RequestAccepted
    | StopAccepted
    | Subscribed
    | CaughtUp
    | Unsubscribed
    | ThreadCreated
    | ThreadUpdated
    | ThreadDeleted
    | ThreadList
    | ThreadHistory
    | Error
)
"""What answers a request, with its `id`; an error, and `subscribed` and `thread_deleted`, may also come unasked."""
Notice = ConnectionEstablished | DrainingNotice | SubscriptionEnded

_KNOWN = frozenset(
    {
        "request_accepted",
        "stop_accepted",
        "subscribed",
        "caught_up",
        "unsubscribed",
        "thread_created",
        "thread_updated",
        "thread_deleted",
        "thread_list",
        "thread_history",
        "error",
        "connection_established",
        "draining",
        "subscription_ended",
    }
)

_decode = msgspec.json.Decoder(dict[str, Any]).decode


class UnreadableFrame(Exception):
    """A frame that is not what the protocol says."""


def read(text: str | bytes) -> Event | Answer | Notice | None:
    """What a frame of the server says.

    Returns:
        A run event, also one of a type that is not known, because its number counts; an answer or a notice; None for
        other types.

    Raises:
        UnreadableFrame: if it is no JSON, or a known frame without the fields that the protocol names.
    """
    try:
        frame = _decode(text)
        if "event_id" in frame and "seq" in frame:
            return msgspec.convert({**frame, "frame": frame}, Event)
        if frame.get("type") not in _KNOWN:
            return None
        answer: Answer | Notice = msgspec.convert(frame, Answer | Notice)
        return answer
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise UnreadableFrame(str(error)) from None
