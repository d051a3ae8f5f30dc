"""Every run, from its first event to its last, is what its agent was to do: attempts, tools, text, end."""

from collections.abc import Iterator

from scripts.chaos.plans import RESTARTED, Plan, plan
from scripts.chaos.promises.evidence import Book, Evidence, Exchange, Run, seconds
from scripts.chaos.promises.story import Attempt, thoughts, whole_text
from scripts.chaos.record import ENDS, Event, Finding, length, same

__all__ = ["MOST_ATTEMPTS", "STOP_MARGIN_S", "check_runs", "check_stops", "check_texts", "check_tool_calls"]

MOST_ATTEMPTS = 3
STOP_MARGIN_S = 2.0
"""A run that completes longer than this after its stop was accepted has not been stopped. Servers' clocks
may be wrong in this world, so that the client's tells when it was accepted; the event's time is the database's."""

_NAMED_REASONS = frozenset({"interrupted", "thread_deleted", "disconnected"})


def _plan_of(run: Run) -> Plan:
    return plan(str(run.asked.sent.get("agent")), run.asked.text)


def check_texts(evidence: Evidence) -> Iterator[Finding]:
    """Every piece of text and thinking that was ever shown is what the agent wrote there."""
    for book in evidence.books.values():
        plans: dict[str, tuple[str, list[str]]] = {}
        for event in book.shown:
            run = evidence.run(event)
            if event.type not in ("agent_message", "agent_thinking", "agent_started") or run is None:
                continue
            content = event.content
            if event.type == "agent_started":
                if not same(content.get("message"), run.asked.text):
                    yield book.finding("text", f"{event.event_id} is asked {content.get('message')!r}")
                continue
            if run.run_id not in plans:
                steps = _plan_of(run)
                plans[run.run_id] = whole_text(steps), thoughts(steps)
            text, thought = plans[run.run_id]
            step, offset, told = int(content.get("step") or 0), int(content.get("offset") or 0), content.get("text")
            if event.type == "agent_thinking":
                told, text = content.get("reasoning"), thought[step - 1] if 0 < step <= len(thought) else ""
            if not same(told, text[offset : offset + length(told)]):
                yield book.finding("text", f"{event.event_id} at {offset} is {told!r}")


def check_runs(evidence: Evidence) -> Iterator[Finding]:
    """Every run of a thread that still is, event by event."""
    for book, final in evidence.alive:
        by_run: dict[str, list[Event]] = {}
        for event in final:
            by_run.setdefault(event.run_id, []).append(event)
        for run_id, events in by_run.items():
            run = evidence.runs.get((book.user, run_id))
            if run is None:
                yield book.finding("starts", f"{run_id} was never started")
                continue
            for wrong, event in _Fold(run).take_all(events):
                yield book.finding(wrong[0], f"{event.type} {event.event_id} ({run.asked.sent['agent']}): {wrong[1]}")


class _Fold:
    """A run's events in order; yields the promise that is broken and how."""

    def __init__(self, run: Run) -> None:
        self._agent = str(run.asked.sent.get("agent"))
        self._run = run
        self._steps = _plan_of(run)
        self._number = 0
        self._attempt: Attempt | None = None
        self._queued = False

    def take_all(self, events: list[Event]) -> Iterator[tuple[tuple[str, str], Event]]:
        for place, event in enumerate(events):
            if event.agent_name != self._agent:
                yield ("runs", f"agent_name is {event.agent_name}"), event
            match event.type:
                case "agent_queued":
                    if place or event.attempt != 1:
                        yield ("runs", f"in place {place} of its run, attempt {event.attempt}"), event
                case "agent_started":
                    yield from ((each, event) for each in self._start(event))
                case _:
                    yield from ((each, event) for each in self._take(event))

    def _start(self, event: Event) -> Iterator[tuple[str, str]]:
        if self._attempt is not None and self._attempt.left_open:
            yield "tools", f"{self._attempt.left_open} were open when the next attempt started"
        self._number += 1
        if event.attempt != self._number or self._number > MOST_ATTEMPTS:
            yield "attempts", f"attempt {event.attempt} started as number {self._number}"
        if self._number > 1 and self._agent not in RESTARTED:
            yield "attempts", "an agent that must not be started again was"
        self._attempt = Attempt(self._steps)

    def _take(self, event: Event) -> Iterator[tuple[str, str]]:
        if self._attempt is None:
            if event.type != "agent_stopped" or event.content.get("response"):
                yield "runs", "before agent_started"
            return
        if event.attempt != self._number:
            yield "attempts", f"of attempt {event.attempt} in attempt {self._number}"
        wrong = self._attempt.take(event)
        if wrong:
            yield "tools" if event.type.startswith("tool_") else "plan", wrong
        lost = event.type == "agent_error" and event.content.get("code") == "worker_lost"
        if lost and self._agent in RESTARTED and self._number < MOST_ATTEMPTS:
            yield "attempts", f"lost in attempt {self._number}, and not started again"


def check_stops(evidence: Evidence) -> Iterator[Finding]:
    """A stop that was accepted ends its runs; a run is stopped only where somebody asked for it."""
    ends = {(book.user, event.run_id): event for book, final in evidence.alive for event in final if event.type in ENDS}
    for each, answer in evidence.of_type("stop_accepted"):
        named = each.sent.get("run_id")
        told = [*answer.get("run_ids", ()), *answer.get("already_ended", ())]
        if named is not None and told != [named]:
            yield Finding("stops", each.log.user, None, f"{each.sent} was answered {answer}")
        for run_id in answer.get("run_ids", ()):
            end = ends.get((each.log.user, run_id))
            late = seconds(end.timestamp) - each.time if end else 0.0
            if end is not None and end.type == "agent_completed" and late > STOP_MARGIN_S:
                yield Finding("stops", each.log.user, end.thread_id, f"{run_id} completed {late:.1f} s after its stop")
    asked = _stops_asked(evidence)
    for book, final in evidence.alive:
        for event in final:
            if event.type == "agent_stopped" and not _was_asked(event, asked):
                yield book.finding("stops", f"nobody stopped {event.run_id}: {event.content}")


def _stops_asked(evidence: Evidence) -> set[tuple[str, str, str]]:
    """By user: which runs, requests and threads somebody meant to stop, and for which reason."""
    asked: set[tuple[str, str, str]] = set()
    for each in evidence.exchanges:
        user, thread_id = each.log.user, str(each.sent.get("thread_id"))
        if each.type == "stop_agent":
            name = _named(each)
            asked.add((user, name, str(each.sent.get("reason") or "user")))
        elif each.type == "delete_thread":
            asked.add((user, thread_id, "thread_deleted"))
        elif each.sent.get("if_busy") == "interrupt":
            asked.add((user, thread_id, "interrupted"))
        if each.sent.get("on_disconnect") == "stop" and each.answer:
            asked.add((user, str(each.answer.get("run_id")), "disconnected"))
    return asked


def _named(each: Exchange) -> str:
    return str(each.sent.get("run_id") or each.sent.get("request_id") or each.sent.get("thread_id"))


def _was_asked(event: Event, asked: set[tuple[str, str, str]]) -> bool:
    reason = str(event.content.get("reason"))
    return any((event.user_id, name, reason) in asked for name in (event.run_id, event.request_id, event.thread_id))


def check_tool_calls(evidence: Evidence) -> Iterator[Finding]:
    """A tool was called only after its `tool_executing`, at most once for each; one that is told to have ended was
    called."""
    if not evidence.recording.tool_calls:
        return
    called: dict[tuple[str, str, int, str, int], int] = {}
    for line in evidence.recording.tool_calls:
        place = (line["user_id"], line["run_id"], line["attempt"], line["tool"], line["call"])
        called[place] = called.get(place, 0) + 1
    for book, final in evidence.alive:
        yield from _check_calls(book, final, called)


def _check_calls(
    book: Book, final: list[Event], called: dict[tuple[str, str, int, str, int], int]
) -> Iterator[Finding]:
    executing: dict[str, tuple[str, str, int, str, int]] = {}
    for event in final:
        content = event.content
        if event.type == "tool_executing":
            number = int((content.get("parameters") or {}).get("call") or 0)
            place = (book.user, event.run_id, event.attempt, str(content.get("tool_name")), number)
            executing[str(content.get("execution_id"))] = place
        elif event.type == "tool_completed" and content.get("outcome") in ("done", "failed"):
            place_of = executing.get(str(content.get("execution_id")))
            if place_of and place_of not in called:
                yield book.finding("tool calls", f"{event.event_id} tells the end of a tool that was not called")
    known = {event.run_id for event in final}
    planned = list(executing.values())
    for place, times in called.items():
        if place[0] == book.user and place[1] in known and times > planned.count(place):
            yield book.finding("tool calls", f"{place} was called {times} times, told {planned.count(place)} times")
