"""What a careful client holds of one thread: `Reader.feed` fails on a gap, a repetition, a piece that does not join, an
event after a run's terminal one, and a tool event without its pair."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from .shapes import TERMINAL, Frame

__all__ = ["Reader", "RunFold", "TextFold"]


@dataclass
class TextFold:
    """Text put together from pieces by `offset`; `start` is not 0 where the reader came in the middle."""

    start: int | None = None
    text: str = ""

    def join(self, piece: str, offset: int, *, overlaps: bool) -> None:
        if self.start is None:
            self.start = offset
        at = offset - self.start
        assert 0 <= at <= len(self.text), f"a piece at {offset} does not join {self.start}+{len(self.text)}"
        held = self.text[at:]
        assert overlaps or not held, f"a piece at {offset} repeats text without covering its events"
        assert piece.startswith(held), f"a merged piece at {offset} is not what its pieces were"
        self.text += piece[len(held) :]


@dataclass
class RunFold:
    """One run as far as it was told. `whole` where its first event was seen."""

    whole: bool = False
    started: bool = False
    attempt: int = 0
    answer: TextFold = field(default_factory=TextFold)
    thoughts: dict[int, TextFold] = field(default_factory=dict)
    open_tools: set[str] = field(default_factory=set)
    closed_tools: set[str] = field(default_factory=set)
    terminal: Frame | None = None

    def restart(self, attempt: int) -> None:
        assert not self.open_tools, f"attempt {attempt} begins with open tools {self.open_tools}"
        assert attempt > self.attempt, f"attempt {attempt} after {self.attempt}"
        self.attempt, self.whole, self.started = attempt, True, True
        self.answer, self.thoughts = TextFold(start=0), {}

    def tool_opens(self, execution_id: str) -> None:
        assert execution_id not in self.open_tools | self.closed_tools, f"{execution_id} executes twice"
        self.open_tools.add(execution_id)

    def tool_closes(self, execution_id: str) -> None:
        assert execution_id not in self.closed_tools, f"{execution_id} completes twice"
        assert execution_id in self.open_tools or not self.whole, f"{execution_id} completes without having begun"
        self.open_tools.discard(execution_id)
        self.closed_tools.add(execution_id)

    def ends(self, event: Frame) -> None:
        assert not self.open_tools, f"the run ended with open tools {self.open_tools}"
        if self.whole and event["type"] != "agent_completed":
            assert (event["payload"]["response"] or "") == self.answer.text, "response is not the text so far"
        self.terminal = event


class Reader:
    """Enforces the dense rule of section 4 for one thread and folds its runs; `last_seq` is where to resume."""

    def __init__(self, after_seq: int = 0) -> None:
        self.last_seq = after_seq
        self.events: list[Frame] = []
        self.runs: dict[str, RunFold] = {}
        self._event_ids: set[str] = set()

    def feed_all(self, events: Iterable[Frame]) -> "Reader":
        for event in events:
            self.feed(event)
        return self

    def feed(self, event: Frame) -> None:
        last: int = event["seq"]
        first: int = event.get("from_seq", last)
        assert first <= self.last_seq + 1, f"a gap: {first} after {self.last_seq}"
        assert last > self.last_seq, f"told twice: {last} after {self.last_seq}"
        assert event["event_id"] not in self._event_ids, f"event_id {event['event_id']} twice"
        overlaps = first <= self.last_seq
        self._event_ids.add(event["event_id"])
        self.last_seq = last
        self.events.append(event)
        self._fold(self.runs.setdefault(event["run_id"], RunFold()), event, overlaps=overlaps)

    def answer(self, run_id: str) -> str:
        return self.runs[run_id].answer.text

    def of(self, run_id: str) -> list[Frame]:
        return [event for event in self.events if event["run_id"] == run_id]

    def _fold(self, run: RunFold, event: Frame, *, overlaps: bool) -> None:
        kind, payload = event["type"], event["payload"]
        assert run.terminal is None, f"{kind} after the terminal event of {event['run_id']}"
        if run.whole and not run.started:
            assert kind == "agent_started" or kind in TERMINAL, f"{kind} before agent_started"
        match kind:
            case "agent_queued":
                assert event["attempt"] == 1
                run.whole = True
            case "agent_started":
                run.restart(event["attempt"])
            case "agent_thinking":
                fold = run.thoughts.setdefault(payload["step"], TextFold(start=0 if run.whole else None))
                fold.join(payload["reasoning"], payload["offset"], overlaps=overlaps)
            case "agent_message":
                run.answer.join(payload["text"], payload["offset"], overlaps=overlaps)
            case "tool_executing":
                run.tool_opens(payload["execution_id"])
            case "tool_completed":
                run.tool_closes(payload["execution_id"])
            case _ if kind in TERMINAL:
                run.ends(event)
            case _:
                pass
