"""A run event's frame from what the journal holds: every type, byte for byte what section 4 says."""

import json
from typing import Any

import pytest

from agentws.core.framing import Origin, Record, frame
from agentws.wire.events import EventType
from agentws.wire.ids import RunNo

ORIGIN = Origin(user_id="u", thread_id="t", epoch="e", run_no=RunNo(0xAB), run_id="r", agent="demo")
NOW = "2024-05-06T07:08:09.123Z"

TOOL = {"execution_id": "x", "tool_name": "search"}
DONE: dict[str, Any] = {**TOOL, "success": True, "outcome": "done", "error": None, "duration_ms": 3}
STOPPED = {"success": False, "outcome": "stopped", "error": {"code": "tool_stopped", "message": "No."}}

# Type, what the journal holds (body, content), the payload, and what else stands at the top.
CASES: list[tuple[str, Any, str | None, dict[str, Any], dict[str, Any]]] = [
    ("agent_queued", {"position": 2}, None, {"position": 2}, {}),
    ("agent_started", None, "hi", {"status": "started", "message": "hi"}, {}),
    ("agent_started", None, None, {"status": "started", "message": ""}, {}),
    *(
        ("agent_thinking", thought, None, thought, {})
        for thought in [{"reasoning": "hm", "step": 1, "offset": 0}, {"reasoning": "é🎈", "step": 2, "offset": 9}]
    ),
    ("agent_message", {"text": "a\n", "offset": 0}, None, {"text": "a\n", "offset": 0}, {}),
    ("agent_event", {"name": "a.b", "value": [1.0, None]}, None, {"name": "a.b", "value": [1.0, None]}, {}),
    (
        "tool_executing",
        {**TOOL, "parameters": {"q": None}},
        None,
        {**TOOL, "parameters": {"q": None}},
        {"tool_name": "search"},
    ),
    ("tool_completed", {**DONE, "result": [1]}, None, {**DONE, "result": [1]}, {"tool_name": "search", "results": [1]}),
    (
        "tool_completed",
        {**DONE, **STOPPED, "result": None},
        None,
        {**DONE, **STOPPED, "result": None},
        {"tool_name": "search", "results": None},
    ),
    (
        "agent_completed",
        {"duration_ms": 5},
        "done",
        {"response": "done", "status": "completed", "duration_ms": 5},
        {},
    ),
    (
        "agent_completed",
        {"duration_ms": 5, "usage": {"tokens": 1}},
        None,
        {"response": "", "status": "completed", "duration_ms": 5, "usage": {"tokens": 1}},
        {},
    ),
    *(
        (
            "agent_error",
            {"duration_ms": 5, "code": "agent_failed", "message": "No.", "retryable": retryable},
            content,
            {"code": "agent_failed", "message": "No.", "retryable": retryable, "response": content, "duration_ms": 5},
            {},
        )
        for retryable, content in [(True, None), (False, "so far")]
    ),
    *(
        (
            "agent_stopped",
            {"duration_ms": 0, "reason": reason},
            content,
            {"status": "stopped", "reason": reason, "response": content, "duration_ms": 0},
            {},
        )
        for reason, content in [("user", None), ("thread_deleted", "so far")]
    ),
]


def made(kind: str, body: Any, content: str | None, *, from_seq: int | None = None) -> dict[str, Any]:
    record = Record(
        seq=9,
        from_seq=from_seq,
        type=EventType(kind),
        ordinal=4,
        attempt=2,
        timestamp=NOW,
        body=None if body is None else json.dumps(body),
        content=content,
    )
    told: dict[str, Any] = json.loads(frame(ORIGIN, record))
    return told


@pytest.mark.parametrize(("kind", "body", "content", "payload", "more"), CASES)
def test_a_frame_has_exactly_the_fields_of_its_row(
    kind: str, body: Any, content: str | None, payload: dict[str, Any], more: dict[str, Any]
) -> None:
    assert made(kind, body, content) == {
        "type": kind,
        "event_id": "r.2.4",
        "seq": 9,
        "epoch": "e",
        "timestamp": NOW,
        "user_id": "u",
        "thread_id": "t",
        "run_id": "r",
        "request_id": "req-00000000000000ab",
        "agent_name": "demo",
        "attempt": 2,
        "payload": payload,
        **more,
    }


def test_every_type_of_event_is_in_the_table_of_this_file() -> None:
    assert {kind for kind, *_ in CASES} | {"tool_progress"} == {str(each) for each in EventType}


@pytest.mark.parametrize("given", [{}, {"progress": 0.5}, {"message": "half"}, {"progress": 1.0, "message": "all"}])
def test_progress_tells_what_it_was_given_and_its_tool_at_the_top(given: dict[str, Any]) -> None:
    told = made("tool_progress", {**TOOL, **given}, None)
    assert told["tool_name"] == "search"
    assert {name: told["payload"].get(name) for name in given} == given
    assert set(told["payload"]) - {"tool_name"} == {"execution_id", *given}


@pytest.mark.parametrize("from_seq", [1, 7, 9])
@pytest.mark.parametrize(("kind", "body"), [("agent_message", {"text": "ab", "offset": 0}), ("tool_progress", TOOL)])
def test_an_event_that_stands_for_several_says_where_it_begins(kind: str, body: Any, from_seq: int) -> None:
    told = made(kind, body, None, from_seq=from_seq)
    assert (told["from_seq"], told["seq"]) == (from_seq, 9)


def test_what_an_agent_sent_goes_out_as_it_was_written() -> None:
    record = Record(
        seq=1,
        from_seq=None,
        type=EventType.AGENT_EVENT,
        ordinal=2,
        attempt=1,
        timestamp=NOW,
        body='{"name":"a.b","value":[1.0,1E5,"\\u00e9"]}',
        content=None,
    )
    assert '"payload":{"name":"a.b","value":[1.0,1E5,"\\u00e9"]}' in frame(ORIGIN, record)


def test_an_event_whose_body_is_not_its_type_s_is_told_as_it_is() -> None:
    odd = Record(
        seq=3,
        from_seq=None,
        type=EventType.TOOL_COMPLETED,
        ordinal=3,
        attempt=1,
        timestamp="2026-01-01T00:00:00.000Z",
        body='{"odd":"agent_event"}',
        content=None,
    )
    told = json.loads(frame(Origin("ada", "t", "e", RunNo(2), "r", "demo"), odd))
    assert (told["type"], told["seq"], told["payload"]) == ("tool_completed", 3, {"odd": "agent_event"})
