"""One attempt of a run held to its plan: every event must be the next thing that the agent was to do."""

from dataclasses import dataclass, field
from typing import Any

from scripts.chaos.plans import Call, Emit, Fail, Plan, Return, Think, Together, Write
from scripts.chaos.record import Event, length, same

__all__ = ["Attempt", "thoughts", "whole_text"]

_CLOSED = {"stopped": "tool_stopped", "unknown": "worker_lost"}
"""The outcomes of a tool that did not end by itself."""


def whole_text(steps: Plan) -> str:
    """All that the plan writes."""
    return "".join(step.text for step in steps if isinstance(step, Write | Return))


def thoughts(steps: Plan) -> list[str]:
    """What the plan thinks, by step."""
    return [step.text for step in steps if isinstance(step, Think)]


@dataclass
class _Item:
    """Something to be done: how much of it there is, and how much is done."""

    what: Think | Together | Emit | Write | Fail
    size: int
    done: int = 0


def _items(steps: Plan) -> list[_Item]:
    items: list[_Item] = []
    for step in steps:
        match step:
            case Think():
                items.append(_Item(step, len(step.text)))
            case Together():
                items.append(_Item(step, len(step.calls)))
            case Write() | Return():
                if items and isinstance(items[-1].what, Write):
                    items[-1].size += len(step.text)
                else:
                    items.append(_Item(Write(step.text), len(step.text)))
            case Emit() | Fail():
                items.append(_Item(step, 1))
    return items


@dataclass
class Attempt:
    """What came of an attempt so far. Each method returns what is wrong with the event, or nothing."""

    steps: Plan
    text: int = 0
    """Code points of the answer so far."""
    thought: int = 0
    """Steps of thinking so far."""
    open: dict[str, Call] = field(default_factory=dict)
    broken_off: bool = False
    _items: list[_Item] = field(default_factory=list)
    _called: list[Call] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._items = _items(self.steps)

    def _next(self, kind: type) -> _Item | None:
        """The item that such an event belongs to, if it is the next thing to be done."""
        while self._items and self._items[0].done >= self._items[0].size:
            self._items.pop(0)
        if not self._items or not isinstance(self._items[0].what, kind) or self.broken_off:
            return None
        return self._items[0]

    def take(self, event: Event) -> str:
        content = event.content
        match event.type:
            case "agent_thinking":
                return self._think(content)
            case "agent_message":
                return self._write(content)
            case "tool_executing":
                return self._execute(content)
            case "tool_progress":
                return "" if content.get("execution_id") in self.open else "progress of no open tool"
            case "tool_completed":
                return self._complete(content)
            case "agent_event":
                return self._emit(content)
            case "agent_completed":
                return self._end(None) or self._response(content)
            case "agent_error" if content.get("code") != "worker_lost":
                return self._end(str(content.get("code"))) or self._response(content)
            case "agent_error" | "agent_stopped":
                return f"{sorted(self.open)} are open" if self.open else self._response(content)
        return f"{event.type} is no event of an attempt"

    def _think(self, content: dict[str, Any]) -> str:
        begun = bool(self._items and isinstance(self._items[0].what, Think) and self._items[0].done > 0)
        item = self._next(Think)
        if item is None:
            return "a thought that was not next"
        self.thought += not (begun and item.done)
        if (content.get("step"), content.get("offset")) != (self.thought, item.done):
            return f"thought at {content.get('step')}/{content.get('offset')}, not {self.thought}/{item.done}"
        item.done += length(content.get("reasoning"))
        return "more thought than planned" if item.done > item.size else ""

    def _write(self, content: dict[str, Any]) -> str:
        item = self._next(Write)
        if item is None:
            return "text that was not next"
        if content.get("offset") != self.text:
            return f"text at {content.get('offset')} after {self.text}"
        size = length(content.get("text"))
        self.text += size
        item.done += size
        return "more text than planned" if item.done > item.size else ""

    def _execute(self, content: dict[str, Any]) -> str:
        item = self._next(Together)
        if item is None:
            return "a tool that was not next"
        assert isinstance(item.what, Together)
        for call in item.what.calls:
            named = content.get("tool_name") == call.name and same(content.get("parameters"), call.parameters)
            if named and call not in self._called:
                self._called.append(call)
                self.open[str(content.get("execution_id"))] = call
                return ""
        return f"tool {content.get('tool_name')} with {content.get('parameters')} was not planned"

    def _complete(self, content: dict[str, Any]) -> str:
        call = self.open.pop(str(content.get("execution_id")), None)
        if call is None:
            return "tool_completed without its tool_executing"
        outcome, error = content.get("outcome"), content.get("error")
        code = error.get("code") if isinstance(error, dict) else None
        if content.get("tool_name") != call.name or content.get("success") is not (outcome == "done"):
            return f"{call.name} ended as {content}"
        if outcome in _CLOSED:
            self.broken_off = True
            return "" if code in _CLOSED.values() else f"{outcome} with the code {code}"
        if outcome != ("failed" if call.raises else "done"):
            return f"{call.name} ended as {content}"
        if not call.raises and (code is not None or not same(content.get("result"), call.result)):
            return f"{call.name} did not return {content.get('result')}"
        if call.raises and code != "tool_failed":
            return f"{call.name} raised, and the code is {code}"
        if self._items:
            self._items[0].done += 1
        return ""

    def _emit(self, content: dict[str, Any]) -> str:
        item = self._next(Emit)
        if item is None:
            return "an event of the agent's that was not next"
        item.done = 1
        assert isinstance(item.what, Emit)
        kept = content.get("name") == item.what.name and same(content.get("value"), item.what.value)
        return "" if kept else f"an event of the agent's that was not planned: {content}"

    def _end(self, code: str | None) -> str:
        if self.open:
            return f"{sorted(self.open)} are open"
        failing = self._next(Fail)
        if code is not None:
            planned = failing.what.code if failing and isinstance(failing.what, Fail) else None
            return "" if planned == code else f"failed with {code}, planned was {planned}"
        return f"completed before {self._items[0].what}" if self._items or self.broken_off else ""

    def _response(self, content: dict[str, Any]) -> str:
        """The response is what was written."""
        kept = same(content.get("response") or "", whole_text(self.steps)[: self.text])
        return "" if kept else f"response {content.get('response')} is not the {self.text} written"

    @property
    def left_open(self) -> list[str]:
        return sorted(self.open)
