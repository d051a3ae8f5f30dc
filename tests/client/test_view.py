"""How a thread looks in a terminal, from literal events."""

from typing import Any

import pytest

from agentws.client.frames import HistoryMessage, Thread
from agentws.client.text import cells
from agentws.client.view import Line, ThreadView, history_lines, thread_lines

from .events import event

STARTED = ("agent_started", {"message": "what is 6*7?", "status": "started"})
CALL = {"execution_id": "x", "tool_name": "calculator", "parameters": {"expression": "6*7"}}
DONE = {"execution_id": "x", "tool_name": "calculator", "success": True, "outcome": "done", "result": 42}
DONE |= {"error": None, "duration_ms": 12}


def texts(lines: list[Line]) -> list[str]:
    return ["".join(text for _, text in line) for line in lines]


def fed(view: ThreadView, *events: tuple[str, dict[str, Any]], start: int = 1, **fields: Any) -> list[str]:
    lines: list[Line] = []
    for seq, (kind, payload) in enumerate(events, start):
        lines += view.feed(event(seq, kind, payload, **fields))
    return texts(lines)


def said(text: str, offset: int) -> tuple[str, dict[str, Any]]:
    return "agent_message", {"text": text, "offset": offset}


def completed(response: str) -> tuple[str, dict[str, Any]]:
    return "agent_completed", {"response": response, "status": "completed", "duration_ms": 1500}


def test_a_run_is_shown_as_it_happens() -> None:
    view = ThreadView(40)
    shown = fed(view, STARTED, ("agent_thinking", {"reasoning": "I will\ncalculate", "step": 1, "offset": 0}))
    assert shown == ["", "> what is 6*7?", "  I will"]
    assert texts(view.live(0.0)) == ["  calculate"]
    assert fed(view, ("tool_executing", CALL), start=3) == ["  calculate", '  → calculator {"expression":"6*7"}']
    assert view.tools_at_work
    assert texts(view.live(3.2)) == ["  … calculator 3 s"]
    progress = ("tool_progress", {"execution_id": "x", "progress": 0.25, "message": "on\nit"})
    assert fed(view, progress, start=4) == []
    assert texts(view.live(3.2)) == ["  … calculator 3 s 25% on⏎it"]
    assert fed(view, ("tool_completed", DONE), start=5) == ["  ✓ calculator 12 ms 42"]
    assert fed(view, said("6*7 ", 0), said("= 42", 4), start=6) == []
    assert texts(view.live(0.0)) == ["6*7 = 42"]
    assert view.busy == ["r"]
    assert fed(view, completed("6*7 = 42"), start=8) == ["6*7 = 42", "[1.5 s]"]
    assert view.live(0.0) == []
    assert view.busy == []


def test_a_message_sent_from_here_is_shown_once_and_again_where_it_had_to_wait() -> None:
    view = ThreadView(40)
    assert texts(view.sent("r", "hi\nthere")) == ["", "> hi", "  there"]
    assert view.busy == ["r"]
    assert fed(view, STARTED) == []
    view.sent("s", "later")
    assert fed(view, ("agent_queued", {"position": 1}), start=2, run_id="s") == ["[queued, position 1]"]
    assert fed(view, completed(""), start=3) == ["[1.5 s]"]
    started = ("agent_started", {"message": "later", "status": "started"})
    assert fed(view, started, start=4, run_id="s") == ["", "> later"]


def test_a_message_that_was_refused_is_no_run() -> None:
    view = ThreadView(40)
    view.sent("r", "hi")
    view.refused("r")
    assert view.busy == []


def test_ends_that_are_not_well_have_a_mark() -> None:
    view = ThreadView(60)
    error = {"code": "agent_failed", "message": "It broke.", "retryable": True, "response": "par", "duration_ms": 5}
    assert fed(view, STARTED, said("par", 0), ("agent_error", error))[-2:] == ["par", "[error agent_failed: It broke.]"]
    stopped = {"status": "stopped", "reason": "user", "response": None, "duration_ms": 700}
    assert fed(view, STARTED, ("agent_stopped", stopped))[-1] == "[stopped after 700 ms: user]"
    failed = {**DONE, "success": False, "outcome": "failed", "error": {"code": "tool_failed", "message": "It failed."}}
    assert fed(view, STARTED, ("tool_executing", CALL), ("tool_completed", failed))[-1] == (
        "  ✗ calculator 12 ms failed: It failed."
    )


def test_a_response_that_is_another_text_is_shown() -> None:
    assert fed(ThreadView(40), STARTED, said("draft", 0), completed("final"))[-3:] == ["draft", "final", "[1.5 s]"]


def test_a_later_attempt_is_told_and_begins_anew() -> None:
    view = ThreadView(80)
    fed(view, STARTED, said("lost", 0))
    again = fed(view, STARTED, said("found", 0), completed("found"), start=3, attempt=2)
    assert again == [
        "lost",
        "[started again, attempt 2: what it wrote before does not count]",
        "found",
        "[1.5 s]",
    ]


def test_a_run_that_queues_does_not_break_the_line_that_is_written() -> None:
    view = ThreadView(80)
    fed(view, STARTED, said("one ", 0))
    assert fed(view, ("agent_queued", {"position": 1}), start=3, run_id="s") == ["[queued, position 1]"]
    assert fed(view, said("two", 4), completed("one two"), start=4) == ["one two", "[1.5 s]"]


def test_events_of_types_that_are_not_known_and_of_authors_are_taken() -> None:
    view = ThreadView(40)
    shown = fed(view, STARTED, ("agent_dreams", {}), ("agent_event", {"name": "app.x", "value": [1]}))
    assert shown[-1] == "  · app.x [1]"


@pytest.mark.parametrize("width", [10, 17, 40, 79])
def test_nothing_is_wider_than_the_terminal_or_moves_its_cursor(width: int) -> None:
    nasty = "\x1b[2J漢字🌲 wide\x07 and_a_very_long_word_without_any_space\r\n\tend"
    view = ThreadView(width)
    call = {**CALL, "tool_name": nasty, "parameters": {"a": nasty}}
    done = {**DONE, "tool_name": nasty, "result": nasty}
    error = {"code": "x", "message": nasty, "retryable": True, "response": None, "duration_ms": 5}
    lines: list[Line] = view.sent("s", nasty)
    events: list[tuple[str, dict[str, Any]]] = [
        ("agent_started", {"message": nasty, "status": "started"}),
        ("agent_thinking", {"reasoning": nasty, "step": 1, "offset": 0}),
        ("tool_executing", call),
        ("tool_completed", done),
        ("agent_event", {"name": nasty, "value": nasty}),
        said(nasty, 0),
        ("agent_error", error),
    ]
    for seq, (kind, payload) in enumerate(events, 1):
        lines += view.feed(event(seq, kind, payload)) + view.live(1.0)
    thread = Thread(
        thread_id="thr-1",
        title=nasty,
        metadata=None,
        created_at="2026-01-02T03:04:05.000Z",
        updated_at="2026-01-02T03:04:05.000Z",
        epoch="e",
        last_seq=1,
        running_run_id="r",
    )
    lines += thread_lines([thread], None, width) + history_lines(
        [message("user", nasty), message("assistant", nasty)], width
    )
    for text in texts(lines):
        assert cells(text) <= width
        assert text.isprintable()


def message(role: str, content: str, status: str = "completed") -> HistoryMessage:
    return HistoryMessage(
        message_id="m",
        role=role,
        content=content,
        run_id="r",
        status=status,
        seq=1,
        created_at="2026-01-02T03:04:05.000Z",
    )


def test_history_is_shown_with_how_runs_ended() -> None:
    messages = [message("user", "hi"), message("assistant", "hello"), message("user", "more", "failed")]
    assert texts(history_lines(messages, 40)) == ["", "> hi", "hello", "", "> more", "[failed]"]


def test_threads_are_numbered_and_the_current_one_is_marked() -> None:
    threads = [
        Thread(
            thread_id=f"thr-{number}",
            title=title,
            metadata=None,
            created_at="2026-01-02T03:04:05.000Z",
            updated_at="2026-01-02T03:04:05.000Z",
            epoch="e",
            last_seq=1,
            running_run_id=running,
        )
        for number, title, running in ((1, "Trees", None), (2, None, "r"))
    ]
    assert texts(thread_lines(threads, "thr-2", 80)) == [
        "   1  Trees  2026-01-02 03:04  thr-1",
        "*  2  (no title)  2026-01-02 03:04  thr-2 running",
    ]
