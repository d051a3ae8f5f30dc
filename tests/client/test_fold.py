"""What is known of a run, put together from its events."""

from typing import Any

from agentws.client.fold import RunFold

from .events import event


def folded(*events: tuple[str, dict[str, Any]], attempt: int = 1) -> RunFold:
    fold = RunFold("r")
    for seq, (kind, payload) in enumerate(events, 1):
        fold.feed(event(seq, kind, payload, attempt=attempt))
    return fold


STARTED = ("agent_started", {"message": "hi", "status": "started"})
CALL = ("tool_executing", {"execution_id": "x1", "tool_name": "lookup", "parameters": {"a": 1}})
COMPLETED: dict[str, Any] = {"execution_id": "x1", "tool_name": "lookup", "success": True, "outcome": "done"}


def test_text_thinking_and_tools_are_put_together() -> None:
    fold = folded(
        ("agent_queued", {"position": 2}),
        STARTED,
        ("agent_thinking", {"reasoning": "Let me ", "step": 1, "offset": 0}),
        ("agent_thinking", {"reasoning": "see", "step": 1, "offset": 7}),
        CALL,
        ("tool_progress", {"execution_id": "x1", "progress": 0.5}),
        ("agent_message", {"text": "Well, ", "offset": 0}),
        ("agent_message", {"text": "yes", "offset": 6}),
    )
    assert (fold.asked, fold.position, fold.text, fold.thinking) == ("hi", None, "Well, yes", {1: "Let me see"})
    assert [(tool.name, tool.progress) for tool in fold.open_tools] == [("lookup", 0.5)]
    assert fold.response == "Well, yes"
    fold.feed(event(9, "tool_completed", COMPLETED))
    assert fold.open_tools == []


def test_a_later_attempt_drops_what_was_written_before() -> None:
    fold = folded(STARTED, ("agent_message", {"text": "lost", "offset": 0}), CALL)
    fold.feed(event(4, "agent_started", {"message": "hi", "status": "started"}, attempt=2))
    assert (fold.attempt, fold.text, fold.thinking, fold.open_tools) == (2, "", {}, [])


def test_a_response_replaces_the_pieces_and_null_does_not() -> None:
    piece = ("agent_message", {"text": "so far", "offset": 0})
    completed = folded(STARTED, piece, ("agent_completed", {"response": "other", "duration_ms": 1}))
    assert completed.response == "other"
    stopped = folded(STARTED, piece, ("agent_stopped", {"response": None, "reason": "user", "duration_ms": 1}))
    assert stopped.response == "so far"


def test_an_end_of_a_tool_whose_beginning_was_not_told_is_taken() -> None:
    assert folded(("tool_completed", COMPLETED)).tools["x1"].ended == COMPLETED
