"""Courses that a thread can take, and what a reader makes of its frames; from the protocol, not from our code."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from agentws.core.framing import Origin, Record
from agentws.wire.events import EventType
from agentws.wire.ids import RunNo

__all__ = ["Event", "Reader", "Written", "courses", "event", "threads"]


Event = tuple[Origin, Record]


@dataclass(frozen=True)
class Written:
    """An event of a run as it is written."""

    type: EventType
    attempt: int
    body: str | None


_END = Written(EventType.AGENT_COMPLETED, 1, '{"duration_ms":1}')
_texts = st.text(st.sampled_from('ab ü🌲\n"\\\x01'), min_size=1, max_size=6)


@st.composite
def courses(draw: st.DrawFn, *, most: int = 12) -> list[Written]:
    """What a run writes between its first `agent_started` and its end: up to `most` stretches of one kind."""
    written: list[Written] = []
    attempt, length, step, calls = 1, 0, 0, 0

    def write(kind: EventType, **body: Any) -> None:
        written.append(Written(kind, attempt, json.dumps(body, ensure_ascii=False)))

    for stretch in draw(st.lists(st.sampled_from("mmmttpae"), max_size=most)):
        pieces = draw(st.lists(_texts, min_size=1, max_size=8))
        match stretch:
            case "m":
                for text in pieces:
                    write(EventType.AGENT_MESSAGE, text=text, offset=length)
                    length += len(text)
            case "t":
                step += draw(st.integers(0, 1)) if step else 1
                at = sum(_length(each, step) for each in written if each.attempt == attempt)
                for text in pieces:
                    write(EventType.AGENT_THINKING, reasoning=text, step=step, offset=at)
                    at += len(text)
            case "p":
                calls += 1
                named = {"execution_id": f"x{calls}", "tool_name": "dig"}
                write(EventType.TOOL_EXECUTING, **named, parameters={"of": pieces[0]})
                for text in pieces[1:]:
                    write(EventType.TOOL_PROGRESS, **named, message=text)
                ended = {"success": True, "outcome": "done", "result": pieces, "error": None, "duration_ms": 1}
                write(EventType.TOOL_COMPLETED, **named, **ended)
            case "e":
                write(EventType.AGENT_EVENT, name="app.thing", value=pieces)
            case "a":
                attempt, length, step = attempt + 1, 0, 0
                written.append(Written(EventType.AGENT_STARTED, attempt, None))
    return written


def _length(event: Written, step: int) -> int:
    if event.type is not EventType.AGENT_THINKING:
        return 0
    body = json.loads(event.body or "")
    return len(body["reasoning"]) if body["step"] == step else 0


def event(
    seq: int, type_: EventType, body: str | None, *, run: int = 1, attempt: int = 1, from_seq: int | None = None
) -> Event:
    """An event as the journal holds it, of the thread `t`."""
    origin = Origin("ann", "t", "e", RunNo(run), f"r{run}", "demo")
    record = Record(
        seq=seq, from_seq=from_seq, type=type_, ordinal=seq, attempt=attempt, timestamp=f"at {seq}", body=body,
        content="asked" if type_ is EventType.AGENT_STARTED else None,
    )  # fmt: skip
    return origin, record


@st.composite
def threads(draw: st.DrawFn) -> list[Event]:
    """The events of a thread, those of several runs among each other."""
    left = {
        run: [Written(EventType.AGENT_STARTED, 1, None), *course, _END]
        for run, course in enumerate(draw(st.lists(courses(most=6), min_size=1, max_size=3)))
    }
    events: list[Event] = []
    while left:
        run = draw(st.sampled_from(sorted(left)))
        stretch = draw(st.integers(1, 8))
        for each in left[run][:stretch]:
            events.append(event(len(events) + 1, each.type, each.body, run=run, attempt=each.attempt))
        left[run] = left[run][stretch:]
        if not left[run]:
            del left[run]
    return events


@dataclass
class _Run:
    attempt: int = 0
    text: str = ""
    thinking: dict[int, str] = field(default_factory=dict)
    tools: dict[str, dict[str, Any]] = field(default_factory=dict)
    others: list[Any] = field(default_factory=list)


@dataclass
class Reader:
    """What a client holds of a thread after the events that it has read."""

    seq: int = 0
    runs: dict[str, _Run] = field(default_factory=dict)
    last: tuple[str, str] = ("", "")

    @classmethod
    def of(cls, events: Sequence[dict[str, Any]]) -> "Reader":
        reader = cls()
        reader.read(events)
        return reader

    def read(self, events: Sequence[dict[str, Any]]) -> None:
        """Reads on, the events that come in one subscription after the number that is held."""
        for event in events:
            assert event["seq"] > self.seq, "told twice"
            assert event.get("from_seq", event["seq"]) <= self.seq + 1, "a hole"
            self._take(event)
            self.seq = event["seq"]
            self.last = (event["event_id"], event["timestamp"])

    def _take(self, event: dict[str, Any]) -> None:
        run = self.runs.setdefault(event["run_id"], _Run())
        payload = event["payload"]
        match event["type"]:
            case "agent_started":
                run.attempt, run.text, run.thinking = event["attempt"], "", {}
                run.others.append(payload)
            case "agent_message":
                assert event["attempt"] == run.attempt
                run.text = joined(run.text, payload["text"], payload["offset"])
            case "agent_thinking":
                assert event["attempt"] == run.attempt
                step = payload["step"]
                run.thinking[step] = joined(run.thinking.get(step, ""), payload["reasoning"], payload["offset"])
            case "tool_executing" | "tool_progress" | "tool_completed":
                run.tools.setdefault(payload["execution_id"], {})[event["type"]] = payload
            case _:
                assert "from_seq" not in event
                run.others.append(payload)


def joined(held: str, text: str, offset: int) -> str:
    """What is held, and what of a text that begins at an offset lies beyond it; what both hold is the same."""
    assert offset <= len(held), "text is missing"
    assert held[offset:] == text[: len(held) - offset]
    return held + text[len(held) - offset :]
