"""How a run's time went: from its outline to spans on one line and sums by phase.

What is not known is said, not guessed. Times of spans are those of commits, by the database's clock.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby, pairwise

import msgspec

from agentws.wire.events import TERMINAL, EventType, RunTimes

__all__ = ["EventOutline", "RunAhead", "RunOutline", "Span", "Timeline", "timeline"]


_LOST = "worker_lost"


class EventOutline(msgspec.Struct, frozen=True, kw_only=True):
    """An event without what it says: sizes in bytes of JSON, lengths in characters.

    `pieces`: for how many it stands; then its time is the last one's.
    """

    type: str
    attempt: int
    at: datetime
    execution_id: str | None = None
    tool_name: str | None = None
    parameters_bytes: int | None = None
    result_bytes: int | None = None
    outcome: str | None = None
    duration_ms: int | None = None
    code: str | None = None
    characters: int | None = None
    pieces: int = 1
    name: str | None = None
    position: int | None = None
    times: RunTimes | None = None


class RunAhead(msgspec.Struct, frozen=True, kw_only=True):
    """A run of the same thread that was at work while another waited."""

    run_id: str
    agent: str
    status: str
    started_at: datetime
    ended_at: datetime | None


class RunOutline(msgspec.Struct, frozen=True, kw_only=True):
    """What the database holds of a run's course. `more`: it has more events than are here."""

    run_id: str
    thread_id: str
    agent: str
    kind: str
    status: str
    attempt: int
    accepted_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    now: datetime
    asked_characters: int | None
    answered_characters: int | None
    events: Sequence[EventOutline]
    more: bool
    ahead: Sequence[RunAhead]


@dataclass(frozen=True, slots=True)
class Span:
    """Something that went on for `length_s` seconds (0: at one moment), from `start_s` after the acceptance on."""

    start_s: float
    length_s: float
    what: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Timeline:
    """
    Args:
        total_s: from the acceptance to the end, or until now.
        spans: in the order of their beginning.
        phases: name → seconds; together they are the total.
        times: what the process that ended the run has measured; None: that is not known.
        unknown: what cannot be told, in words.
    """

    total_s: float
    spans: Sequence[Span]
    phases: dict[str, float]
    times: RunTimes | None
    unknown: Sequence[str]


def timeline(run: RunOutline) -> Timeline:
    """Lays out how a run's time went."""
    end = run.ended_at or run.now
    tools = list(_tools(run, end))
    gaps = list(_gaps(run))
    times = next((event.times for event in run.events if event.times is not None), None)
    waiting_s = _seconds(run, run.started_at or end)
    total_s = _seconds(run, end)
    tools_s = _covered(tools)
    lost_s = sum(gap.length_s for gap in gaps)
    rest_s = max(0.0, total_s - waiting_s - tools_s - lost_s)
    database_s = min(rest_s, times.waited_us / 1e6) if times else 0.0
    phases = {"waiting": waiting_s, "model": rest_s - database_s, "tools": tools_s, "database": database_s}
    if gaps:
        phases["lost"] = lost_s
    # What one commit brought is told in this order.
    spans = sorted([*_moments(run), *_waits(run, end), *gaps, *tools], key=lambda span: span.start_s)
    return Timeline(total_s=total_s, spans=spans, phases=phases, times=times, unknown=list(_unknown(run, times)))


def _seconds(run: RunOutline, at: datetime) -> float:
    return (at - run.accepted_at).total_seconds()


def _waits(run: RunOutline, end: datetime) -> Iterator[Span]:
    until = run.started_at or end
    if until <= run.accepted_at:
        return
    behind = ", ".join(f"{each.run_id} ({each.agent}, {each.status})" for each in run.ahead)
    yield Span(0.0, _seconds(run, until), f"waiting behind {behind}" if behind else "waiting for a process to take it")


def _tools(run: RunOutline, end: datetime) -> Iterator[Span]:
    completed = {event.execution_id: event for event in run.events if event.type == EventType.TOOL_COMPLETED}
    for event in run.events:
        if event.type != EventType.TOOL_EXECUTING:
            continue
        what = f"tool {event.tool_name}: {event.parameters_bytes} bytes of parameters"
        closed = completed.get(event.execution_id)
        if closed is not None and closed.code == _LOST:
            # Closed by whoever took over; it was at work at most until its process was lost.
            last = max(each.at for each in _written(run) if each.attempt == event.attempt)
            yield Span(_seconds(run, event.at), (last - event.at).total_seconds(), f"{what}, nobody knows what it did")
        elif closed is None:
            yield Span(_seconds(run, event.at), (end - event.at).total_seconds(), f"{what}, not completed")
        else:
            length_s = (closed.at - event.at).total_seconds()
            yield Span(_seconds(run, event.at), length_s, f"{what}, {_result(closed)}")


def _result(closed: EventOutline) -> str:
    told = f"{closed.outcome} after {closed.duration_ms} ms"
    if closed.code is not None:
        told += f" ({closed.code})"
    if closed.result_bytes is not None:
        told += f", {closed.result_bytes} bytes of result"
    return told


def _written(run: RunOutline) -> list[EventOutline]:
    """The events that were written by the attempts that they are of, or that end the run.

    What a lost attempt leaves open is closed by its successor, in its name.
    """
    return [event for event in run.events if event.code != _LOST or event.type == EventType.AGENT_ERROR]


def _gaps(run: RunOutline) -> Iterator[Span]:
    """Between what an attempt wrote last and what was written when somebody else had taken the run over."""
    for before, after in pairwise(_written(run)):
        # A process that ends a run so before it goes away knows its times.
        if after.attempt > before.attempt or (after.code == _LOST and after.times is None):
            length_s = (after.at - before.at).total_seconds()
            yield Span(
                _seconds(run, before.at), length_s, f"attempt {before.attempt} was lost, until it was taken over"
            )


def _moments(run: RunOutline) -> Iterator[Span]:
    """What has no length of its own; pieces of text that follow one another are one."""
    for kind, group in groupby(run.events, key=lambda event: event.type):
        events = list(group)
        if kind == EventType.AGENT_MESSAGE:
            characters = sum(event.characters or 0 for event in events)
            length_s = (events[-1].at - events[0].at).total_seconds()
            pieces = _pieces(sum(event.pieces for event in events))
            yield Span(_seconds(run, events[0].at), length_s, f"text: {characters} characters in {pieces}")
            continue
        for event in events:
            if (what := _moment(event, run)) is not None:
                yield Span(_seconds(run, event.at), 0.0, what)


def _pieces(count: int) -> str:
    return "1 piece" if count == 1 else f"{count} pieces"


def _moment(event: EventOutline, run: RunOutline) -> str | None:
    match event.type:
        case EventType.AGENT_QUEUED:
            return f"accepted: {run.kind} of {run.asked_characters} characters, place {event.position} in the queue"
        case EventType.AGENT_STARTED if event.attempt > 1:
            return f"started again, attempt {event.attempt}"
        case EventType.AGENT_STARTED:
            return f"started {run.agent}"
        case EventType.AGENT_THINKING:
            return f"thought: {event.characters} characters"
        case EventType.AGENT_EVENT:
            return f"event {event.name}"
        case EventType.AGENT_COMPLETED:
            return f"completed: {run.answered_characters or 0} characters"
        case EventType.AGENT_ERROR:
            return f"failed: {event.code}"
        case EventType.AGENT_STOPPED:
            return "stopped"
    return None


def _covered(spans: Sequence[Span]) -> float:
    """How long at least one of them went on; they may overlap."""
    covered, reached = 0.0, 0.0
    for span in sorted(spans, key=lambda each: each.start_s):
        end = span.start_s + span.length_s
        covered += max(0.0, end - max(reached, span.start_s))
        reached = max(reached, end)
    return covered


def _unknown(run: RunOutline, times: RunTimes | None) -> Iterator[str]:
    if run.ended_at is None:
        yield "how it ends: it is not over; database and sending are told with its end"
    elif not run.more and not any(event.type in TERMINAL for event in run.events):
        yield "what it did: its events have gone by age; all of its time counts as the model's"
    elif times is None and run.started_at is not None:
        yield "database and sending: nobody who worked on it has ended it; that time counts as the model's"
    if times is not None:
        yield "how long the last append took, and when its events were sent: both come after what is written"
        if run.attempt > 1:
            yield "database and sending of the attempts that were lost"
    if run.started_at is not None:
        yield "what of the model's time was the agent's own code"
    if any(event.pieces > 1 for event in run.events):
        yield "when its text began: pieces that followed one another are kept as one, with the time of the last"
    if run.more:
        yield "what came after the events told here: there are too many"
