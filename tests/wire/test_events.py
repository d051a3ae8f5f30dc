"""Run events: the frame and the payload of each type have exactly the fields of their rows (section 4)."""

from typing import Any

import msgspec
import pytest

from agentws.wire.codec import encode
from agentws.wire.events import (
    NULL,
    TERMINAL,
    AgentCompleted,
    AgentEnded,
    AgentError,
    AgentEvent,
    AgentMessage,
    AgentQueued,
    AgentStarted,
    AgentStopped,
    AgentThinking,
    EventType,
    Outcome,
    RunEvent,
    ToolCompleted,
    ToolError,
    ToolEvent,
    ToolExecuting,
    ToolProgress,
    ToolResult,
)

RAW = msgspec.Raw(b'{"a":[1,null]}')
VALUE = {"a": [1, None]}
FAULT = ToolError(code="tool_failed", message="No.")

COMMON: dict[str, Any] = {
    "type": "agent_event",
    "event_id": "r.1.2",
    "seq": 7,
    "epoch": "e",
    "timestamp": "2024-05-06T07:08:09.123Z",
    "user_id": "u",
    "thread_id": "t",
    "run_id": "r",
    "request_id": "req-1",
    "agent_name": "demo",
    "attempt": 1,
}

TOOL: dict[str, Any] = {"execution_id": "x", "tool_name": "search"}
ENDED: dict[str, Any] = {"response": None, "duration_ms": 5}

PAYLOADS: list[tuple[msgspec.Struct, dict[str, Any]]] = [
    (AgentQueued(position=3), {"position": 3}),
    (AgentStarted(message="hi"), {"status": "started", "message": "hi"}),
    (AgentThinking(reasoning="hm", step=1, offset=0), {"reasoning": "hm", "step": 1, "offset": 0}),
    (AgentMessage(text="é🎈", offset=4), {"text": "é🎈", "offset": 4}),
    (ToolExecuting(**TOOL, parameters=RAW), {**TOOL, "parameters": VALUE}),
    (
        ToolCompleted(**TOOL, success=True, outcome=Outcome.DONE, result=RAW, error=None, duration_ms=9),
        {**TOOL, "success": True, "outcome": "done", "result": VALUE, "error": None, "duration_ms": 9},
    ),
    (
        ToolCompleted(**TOOL, success=False, outcome=Outcome.FAILED, error=FAULT, duration_ms=9),
        {
            **TOOL,
            "success": False,
            "outcome": "failed",
            "result": None,
            "error": {"code": "tool_failed", "message": "No."},
            "duration_ms": 9,
        },
    ),
    (AgentEvent(name="app.thing", value=RAW), {"name": "app.thing", "value": VALUE}),
    (
        AgentCompleted(response="done", duration_ms=5),
        {"response": "done", "status": "completed", "duration_ms": 5},
    ),
    (
        AgentCompleted(response="", duration_ms=5, usage={"tokens": 3}),
        {"response": "", "status": "completed", "duration_ms": 5, "usage": {"tokens": 3}},
    ),
    (
        AgentError(code="agent_failed", message="No.", retryable=True, **ENDED),
        {"code": "agent_failed", "message": "No.", "retryable": True, **ENDED},
    ),
    (AgentStopped(reason="user", **ENDED), {"status": "stopped", "reason": "user", **ENDED}),
]


@pytest.mark.parametrize(("payload", "expected"), PAYLOADS, ids=lambda each: type(each).__name__)
def test_a_payload_has_exactly_the_fields_of_its_row(payload: msgspec.Struct, expected: dict[str, Any]) -> None:
    assert msgspec.json.decode(encode(payload)) == expected


@pytest.mark.parametrize(("payload", "expected"), PAYLOADS, ids=lambda each: type(each).__name__)
def test_a_payload_is_read_back_as_it_was(payload: msgspec.Struct, expected: dict[str, Any]) -> None:
    assert msgspec.json.decode(encode(payload), type=type(payload)) == payload


@pytest.mark.parametrize("given", [{}, {"progress": 0.5}, {"message": "half"}, {"progress": 1.0, "message": "all"}])
def test_progress_leaves_out_what_it_does_not_tell(given: dict[str, Any]) -> None:
    told = msgspec.json.decode(encode(ToolProgress(execution_id=TOOL["execution_id"], **given)))
    assert told.pop("execution_id") == "x"
    assert told == given


@pytest.mark.parametrize(
    "given", [{}, {"usage": {"n": 1}}, {"code": "c", "message": "m", "retryable": False}, {"reason": "user"}]
)
def test_what_the_journal_keeps_of_an_ending_is_only_what_there_is(given: dict[str, Any]) -> None:
    body = encode(AgentEnded(duration_ms=1, **given))
    assert msgspec.json.decode(body) == {"duration_ms": 1, **given}


FRAMES: list[tuple[msgspec.Struct, dict[str, Any]]] = [
    (RunEvent(**COMMON, payload=RAW), {}),
    (ToolEvent(**COMMON, payload=RAW, tool_name="search"), {"tool_name": "search"}),
    (ToolResult(**COMMON, payload=RAW, tool_name="search", results=RAW), {"tool_name": "search", "results": VALUE}),
    (ToolResult(**COMMON, payload=RAW, tool_name="search", results=NULL), {"tool_name": "search", "results": None}),
]


@pytest.mark.parametrize(("event", "more"), FRAMES, ids=lambda each: type(each).__name__)
def test_the_frame_of_an_event_has_exactly_its_fields(event: msgspec.Struct, more: dict[str, Any]) -> None:
    assert msgspec.json.decode(encode(event)) == {**COMMON, "payload": VALUE, **more}


def test_a_merged_event_says_where_it_begins() -> None:
    event = RunEvent(**COMMON, payload=RAW, from_seq=5)
    assert msgspec.json.decode(encode(event))["from_seq"] == 5


def test_the_types_are_those_of_the_page() -> None:
    assert {str(each) for each in EventType} == {
        *("agent_queued", "agent_started", "agent_thinking", "tool_executing", "tool_completed", "tool_progress"),
        *("agent_message", "agent_event", "agent_completed", "agent_error", "agent_stopped"),
    }


def test_three_types_are_terminal() -> None:
    assert {str(each) for each in TERMINAL} == {"agent_completed", "agent_error", "agent_stopped"}


def test_the_outcomes_of_a_tool_are_those_of_the_page() -> None:
    assert {str(each) for each in Outcome} == {"done", "failed", "stopped", "unknown"}
