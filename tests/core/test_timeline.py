"""How a run's time went, from what is held of it: the phases are the whole, and what is not known is said."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from agentws.core.timeline import EventOutline, RunAhead, RunOutline, timeline
from agentws.wire.events import RunTimes

ACCEPTED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
TIMES = RunTimes(appends=4, append_us=40_000, waited_us=500_000, deliveries=3, lag_us=900, worst_lag_us=500)


def at(seconds: float) -> datetime:
    return ACCEPTED + timedelta(seconds=seconds)


def event(seconds: float, kind: str, **fields: Any) -> EventOutline:
    return EventOutline(type=kind, at=at(seconds), **{"attempt": 1, **fields})


def executing(seconds: float, execution_id: str = "x", **fields: Any) -> EventOutline:
    return event(seconds, "tool_executing", execution_id=execution_id, tool_name="look", parameters_bytes=10, **fields)


def completed(seconds: float, execution_id: str = "x", **fields: Any) -> EventOutline:
    told = {"outcome": "done", "duration_ms": 7, "result_bytes": 20, **fields}
    return event(seconds, "tool_completed", execution_id=execution_id, tool_name="look", **told)


def outline(
    *events: EventOutline, started: float | None = 0.0, ended: float | None = None, **fields: Any
) -> RunOutline:
    values: dict[str, Any] = {
        "run_id": "r",
        "thread_id": "t",
        "agent": "demo",
        "kind": "chat",
        "status": "completed",
        "attempt": 1,
        "accepted_at": ACCEPTED,
        "started_at": None if started is None else at(started),
        "ended_at": None if ended is None else at(ended),
        "now": at(100),
        "asked_characters": 5,
        "answered_characters": None,
        "events": events,
        "more": False,
        "ahead": [],
        **fields,
    }
    return RunOutline(**values)


def phases(run: RunOutline) -> dict[str, float]:
    told = timeline(run)
    assert sum(told.phases.values()) == pytest.approx(told.total_s)
    return {name: round(seconds, 6) for name, seconds in told.phases.items()}


def spans(run: RunOutline) -> list[tuple[float, float, str]]:
    return [(round(span.start_s, 6), round(span.length_s, 6), span.what) for span in timeline(run).spans]


def test_the_phases_of_a_run_with_two_tools_are_the_whole_of_it() -> None:
    run = outline(
        event(0, "agent_queued", position=1),
        event(2, "agent_started"),
        event(3, "agent_thinking", characters=8),
        executing(3, "a"),
        completed(5, "a"),
        executing(6, "b"),
        completed(7, "b", outcome="failed", code="tool_failed", result_bytes=None),
        event(8, "agent_message", characters=4),
        event(9, "agent_message", characters=6),
        event(10, "agent_completed", times=TIMES),
        started=2,
        ended=10,
        answered_characters=10,
        ahead=[RunAhead(run_id="r0", agent="slow", status="stopped", started_at=at(-5), ended_at=at(2))],
    )
    assert phases(run) == {"waiting": 2, "model": 4.5, "tools": 3, "database": 0.5}
    assert spans(run) == [
        (0, 0, "accepted: chat of 5 characters, place 1 in the queue"),
        (0, 2, "waiting behind r0 (slow, stopped)"),
        (2, 0, "started demo"),
        (3, 0, "thought: 8 characters"),
        (3, 2, "tool look: 10 bytes of parameters, done after 7 ms, 20 bytes of result"),
        (6, 1, "tool look: 10 bytes of parameters, failed after 7 ms (tool_failed)"),
        (8, 1, "text: 10 characters in 2 pieces"),
        (10, 0, "completed: 10 characters"),
    ]
    assert timeline(run).times == TIMES


def test_tools_that_overlap_count_once() -> None:
    run = outline(
        event(0, "agent_started"),
        executing(1, "a"),
        executing(2, "b"),
        executing(3, "c"),
        completed(4, "c"),
        completed(5, "b"),
        completed(6, "a"),
        executing(8, "d"),
        completed(9, "d"),
        event(10, "agent_completed"),
        ended=10,
    )
    assert phases(run)["tools"] == 6


def test_pieces_of_text_are_one_span_until_something_else_comes() -> None:
    run = outline(
        event(0, "agent_started"),
        event(1, "agent_message", characters=1),
        event(2, "agent_event", name="app.thing"),
        event(3, "agent_message", characters=2),
        event(5, "agent_message", characters=3),
        event(6, "agent_stopped"),
        ended=6,
        status="stopped",
    )
    assert spans(run)[1:] == [
        (1, 0, "text: 1 characters in 1 piece"),
        (2, 0, "event app.thing"),
        (3, 2, "text: 5 characters in 2 pieces"),
        (6, 0, "stopped"),
    ]


def test_a_run_that_waits_for_a_slot_and_nothing_else_says_so() -> None:
    run = outline(event(0, "agent_queued", position=1), started=None, status="queued")
    assert phases(run) == {"waiting": 100, "model": 0, "tools": 0, "database": 0}
    assert spans(run)[1] == (0, 100, "waiting for a process to take it")
    assert any("it is not over" in each for each in timeline(run).unknown)


def test_a_run_at_work_counts_until_now_its_open_tool_included() -> None:
    run = outline(event(0, "agent_started"), executing(40), status="running")
    assert phases(run) == {"waiting": 0, "model": 40, "tools": 60, "database": 0}
    assert spans(run)[1] == (40, 60, "tool look: 10 bytes of parameters, not completed")
    assert timeline(run).times is None


def test_the_time_between_a_lost_attempt_and_the_next_is_nobody_s() -> None:
    run = outline(
        event(0, "agent_started"),
        executing(1),
        event(3, "agent_message", characters=1),
        completed(23, outcome="unknown", code="worker_lost", result_bytes=None),
        event(24, "agent_started", attempt=2),
        event(30, "agent_completed", attempt=2, times=TIMES),
        ended=30,
        attempt=2,
    )
    assert phases(run) == {"waiting": 0, "model": 6.5, "tools": 2, "database": 0.5, "lost": 21}
    told = spans(run)
    assert (1, 2, "tool look: 10 bytes of parameters, nobody knows what it did") in told
    assert (3, 21, "attempt 1 was lost, until it was taken over") in told
    assert (24, 0, "started again, attempt 2") in told
    assert any("attempts that were lost" in each for each in timeline(run).unknown)


def test_a_run_that_ended_with_its_process_was_lost_until_somebody_ended_it() -> None:
    run = outline(
        event(0, "agent_started"),
        event(4, "agent_message", characters=1),
        event(20, "agent_error", code="worker_lost"),
        ended=20,
        status="failed",
    )
    assert phases(run) == {"waiting": 0, "model": 4, "tools": 0, "database": 0, "lost": 16}
    assert any("nobody who worked on it has ended it" in each for each in timeline(run).unknown)


def test_a_run_that_its_own_process_ended_before_it_went_was_not_lost() -> None:
    run = outline(
        event(0, "agent_started"),
        event(20, "agent_error", code="worker_lost", times=TIMES),
        ended=20,
        status="failed",
    )
    assert phases(run) == {"waiting": 0, "model": 19.5, "tools": 0, "database": 0.5}


def test_no_phase_is_less_than_nothing_where_two_clocks_differ() -> None:
    long = RunTimes(appends=1, append_us=1, waited_us=9_000_000, deliveries=0, lag_us=0, worst_lag_us=0)
    run = outline(event(0, "agent_started"), event(2, "agent_completed", times=long), ended=2)
    assert phases(run) == {"waiting": 0, "model": 0, "tools": 0, "database": 2}


def test_events_that_are_left_out_are_spoken_of() -> None:
    assert any("too many" in each for each in timeline(outline(event(0, "agent_started"), more=True)).unknown)


def test_of_text_that_is_kept_as_one_event_the_beginning_is_not_known() -> None:
    told = timeline(
        outline(
            event(0, "agent_started"),
            event(3, "agent_message", characters=12, pieces=4),
            event(3.5, "agent_message", characters=3),
            event(4, "agent_completed", times=TIMES),
            ended=4,
            answered_characters=15,
        )
    )
    assert (3.0, 0.5, "text: 15 characters in 5 pieces") in [(s.start_s, s.length_s, s.what) for s in told.spans]
    assert any(each.startswith("when its text began") for each in told.unknown)


def test_a_run_whose_events_have_gone_says_so() -> None:
    told = timeline(outline(ended=4))
    assert told.phases["model"] == 4
    assert any("gone by age" in each for each in told.unknown)
