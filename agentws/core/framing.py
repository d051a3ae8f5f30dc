"""How a run event looks on the wire. Live and replayed events pass through here, so that they are the same."""

from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import msgspec

from agentws.core.replay import Item
from agentws.wire.codec import encode, encode_text
from agentws.wire.events import (
    AgentCompleted,
    AgentEnded,
    AgentError,
    AgentStarted,
    AgentStopped,
    EventType,
    NamedProgress,
    RunEvent,
    ToolCompleted,
    ToolEvent,
    ToolExecuting,
    ToolProgress,
    ToolResult,
)
from agentws.wire.ids import RunNo, request_id_of

__all__ = ["PIECES", "Origin", "Record", "first_of", "frame", "item_of"]

PIECES: Final = frozenset((EventType.AGENT_MESSAGE, EventType.AGENT_THINKING, EventType.TOOL_PROGRESS))
"""The events that may be merged with others (section 4)."""

_ended = msgspec.json.Decoder(AgentEnded).decode
_executing = msgspec.json.Decoder(ToolExecuting).decode
_completed = msgspec.json.Decoder(ToolCompleted).decode
_progress = msgspec.json.Decoder(NamedProgress).decode


@dataclass(frozen=True, slots=True)
class Origin:
    """What all events of a run share."""

    user_id: str
    thread_id: str
    epoch: str
    run_no: RunNo
    run_id: str
    agent: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """One event as the journal holds it; `content` is the text of the message that goes with it, where there is one."""

    seq: int
    from_seq: int | None
    type: EventType
    ordinal: int
    attempt: int
    timestamp: str
    body: str | None
    content: str | None


def first_of(record: Record) -> int:
    """The number of the first event that a record stands for."""
    return record.seq if record.from_seq is None else record.from_seq


def item_of(origin: Origin, record: Record) -> Item:
    """An event as its followers take it."""
    piece = (origin, record) if record.type in PIECES else None
    return Item(first_of(record), record.seq, partial(frame, origin, record), piece=piece)


def frame(origin: Origin, record: Record) -> str:
    """The text frame of an event.

    One whose body is not what its type says is told as it is: one odd event must not hide those that follow it.
    """
    try:
        return _encode_typed(record, _common(origin, record, _payload(record)))
    except msgspec.ValidationError:
        return encode_text(RunEvent(**_common(origin, record, (record.body or "{}").encode())))


def _common(origin: Origin, record: Record, payload: bytes) -> dict[str, Any]:
    """The fields that the frames of all events have."""
    return {
        "type": record.type,
        "event_id": f"{origin.run_id}.{record.attempt}.{record.ordinal}",
        "seq": record.seq,
        "from_seq": msgspec.UNSET if record.from_seq is None else record.from_seq,
        "epoch": origin.epoch,
        "timestamp": record.timestamp,
        "user_id": origin.user_id,
        "thread_id": origin.thread_id,
        "run_id": origin.run_id,
        "request_id": request_id_of(origin.run_no),
        "agent_name": origin.agent,
        "attempt": record.attempt,
        "payload": msgspec.Raw(payload),
    }


def _encode_typed(record: Record, common: dict[str, Any]) -> str:
    """The frame with what its type has beside the payload."""
    body = record.body or "{}"
    match record.type:
        case EventType.TOOL_EXECUTING:
            return encode_text(ToolEvent(**common, tool_name=_executing(body).tool_name))
        case EventType.TOOL_PROGRESS:
            return encode_text(ToolEvent(**common, tool_name=_progress(body).tool_name))
        case EventType.TOOL_COMPLETED:
            result = _completed(body)
            return encode_text(ToolResult(**common, tool_name=result.tool_name, results=result.result))
        case _:
            return encode_text(RunEvent(**common))


def _payload(record: Record) -> bytes:
    match record.type:
        case EventType.AGENT_STARTED:
            return encode(AgentStarted(message=record.content or ""))
        case EventType.AGENT_COMPLETED:
            ended = _ended(record.body or "{}")
            return encode(
                AgentCompleted(response=record.content or "", duration_ms=ended.duration_ms, usage=ended.usage)
            )
        case EventType.AGENT_ERROR:
            ended = _ended(record.body or "{}")
            return encode(
                AgentError(
                    code=ended.code or "internal_error",
                    message=ended.message or "",
                    retryable=bool(ended.retryable),
                    response=record.content,
                    duration_ms=ended.duration_ms,
                )
            )
        case EventType.AGENT_STOPPED:
            ended = _ended(record.body or "{}")
            return encode(
                AgentStopped(reason=ended.reason or "user", response=record.content, duration_ms=ended.duration_ms)
            )
        case EventType.TOOL_PROGRESS:
            told = _progress(record.body or "{}")
            return encode(ToolProgress(execution_id=told.execution_id, progress=told.progress, message=told.message))
        case _:
            return (record.body or "{}").encode()
