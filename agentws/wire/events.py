"""Run events: the numbered frames that tell what a run does, and the payload of each type (section 4).

An event's payload is encoded once; its frame joins it with what the run and the journal know.
"""

from enum import StrEnum
from typing import Any, Literal

import msgspec

__all__ = [
    "NULL",
    "TERMINAL",
    "AgentCompleted",
    "AgentEnded",
    "AgentError",
    "AgentEvent",
    "AgentMessage",
    "AgentQueued",
    "AgentStarted",
    "AgentStopped",
    "AgentThinking",
    "EventType",
    "NamedProgress",
    "Outcome",
    "RunEvent",
    "RunTimes",
    "ToolCompleted",
    "ToolError",
    "ToolEvent",
    "ToolExecuting",
    "ToolProgress",
    "ToolResult",
]


NULL = msgspec.Raw(b"null")
"""A Raw field where there is nothing; msgspec decodes no `Raw | None`."""


class EventType(StrEnum):
    AGENT_QUEUED = "agent_queued"
    AGENT_STARTED = "agent_started"
    AGENT_THINKING = "agent_thinking"
    TOOL_EXECUTING = "tool_executing"
    TOOL_COMPLETED = "tool_completed"
    TOOL_PROGRESS = "tool_progress"
    AGENT_MESSAGE = "agent_message"
    AGENT_EVENT = "agent_event"
    AGENT_COMPLETED = "agent_completed"
    AGENT_ERROR = "agent_error"
    AGENT_STOPPED = "agent_stopped"


TERMINAL = frozenset({EventType.AGENT_COMPLETED, EventType.AGENT_ERROR, EventType.AGENT_STOPPED})
"""A run has exactly one of these, and nothing after it."""


class Outcome(StrEnum):
    """What became of a tool call."""

    DONE = "done"
    FAILED = "failed"
    STOPPED = "stopped"
    UNKNOWN = "unknown"


class AgentQueued(msgspec.Struct, frozen=True, kw_only=True):
    """The run has to wait; `position` is its place among those that wait, from 1."""

    position: int


class AgentStarted(msgspec.Struct, frozen=True, kw_only=True):
    """An attempt begins; `message` is the user's text. What earlier attempts wrote and thought is dropped."""

    message: str
    status: Literal["started"] = "started"


class AgentThinking(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of reasoning, and where in its step it starts; steps count from 1."""

    reasoning: str
    step: int
    offset: int


class AgentMessage(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of the answer, and where it starts; the pieces of an attempt are contiguous from 0."""

    text: str
    offset: int


class ToolExecuting(msgspec.Struct, frozen=True, kw_only=True):
    """A tool is about to be called."""

    execution_id: str
    tool_name: str
    parameters: msgspec.Raw


class ToolError(msgspec.Struct, frozen=True, kw_only=True):
    code: str
    message: str


class ToolCompleted(msgspec.Struct, frozen=True, kw_only=True):
    """A call has ended; it pairs with its `tool_executing` by `execution_id`. `error` is null where it succeeded."""

    execution_id: str
    tool_name: str
    success: bool
    outcome: Outcome
    # Made anew, not given, because no JSON Schema can be made of a Raw default.
    result: msgspec.Raw = msgspec.field(default_factory=lambda: NULL)
    error: ToolError | None
    duration_ms: int


class ToolProgress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a tool is, from 0 to 1, and in words."""

    execution_id: str
    progress: float | msgspec.UnsetType = msgspec.UNSET
    message: str | msgspec.UnsetType = msgspec.UNSET


class NamedProgress(ToolProgress, frozen=True, kw_only=True):
    """What the journal keeps of `tool_progress`: the tool's name stands beside the payload, not in it."""

    tool_name: str


class AgentEvent(msgspec.Struct, frozen=True, kw_only=True):
    """What the agent's author sends, under a namespaced name."""

    name: str
    value: msgspec.Raw


class RunTimes(msgspec.Struct, frozen=True, kw_only=True):
    """What the journal keeps of a run's time and no frame shows; in microseconds, without the append that writes it.

    Args:
        appends: how many there were, and `append_us` how long their answers took together.
        waited_us: how long the agent waited for a commit.
        deliveries: how many there were to connections of this process, `lag_us` how long after the commits together,
            and `worst_lag_us` the longest.
    """

    appends: int
    append_us: int
    waited_us: int
    deliveries: int
    lag_us: int
    worst_lag_us: int


class AgentEnded(msgspec.Struct, frozen=True, kw_only=True):
    """What the journal keeps of a terminal event; the response is the assistant's message and stands there."""

    duration_ms: int
    times: RunTimes | msgspec.UnsetType = msgspec.UNSET
    usage: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET
    code: str | msgspec.UnsetType = msgspec.UNSET
    message: str | msgspec.UnsetType = msgspec.UNSET
    retryable: bool | msgspec.UnsetType = msgspec.UNSET
    reason: str | msgspec.UnsetType = msgspec.UNSET


class AgentCompleted(msgspec.Struct, frozen=True, kw_only=True):
    """The run has ended well; `response` is the whole answer, and replaces the pieces where it differs from them."""

    response: str
    duration_ms: int
    status: Literal["completed"] = "completed"
    usage: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET


class AgentError(msgspec.Struct, frozen=True, kw_only=True):
    """The run has failed; `message` is safe for users, `response` the text so far or null."""

    code: str
    message: str
    retryable: bool
    response: str | None
    duration_ms: int


class AgentStopped(msgspec.Struct, frozen=True, kw_only=True):
    """The run was stopped; `response` is the text so far or null."""

    reason: str
    response: str | None
    duration_ms: int
    status: Literal["stopped"] = "stopped"


class RunEvent(msgspec.Struct, frozen=True, kw_only=True):
    """The frame of every run event but those of tools; `event_id` is run.attempt.ordinal."""

    type: str
    event_id: str
    seq: int
    epoch: str
    timestamp: str
    user_id: str
    thread_id: str
    run_id: str
    request_id: str
    agent_name: str
    attempt: int
    payload: msgspec.Raw
    from_seq: int | msgspec.UnsetType = msgspec.UNSET


class ToolEvent(RunEvent, frozen=True, kw_only=True):
    """The frame of `tool_executing` and `tool_progress`."""

    tool_name: str


class ToolResult(ToolEvent, frozen=True, kw_only=True):
    """The frame of `tool_completed`; `results` is the payload's `result`."""

    results: msgspec.Raw
