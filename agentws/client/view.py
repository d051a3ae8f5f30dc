"""How a thread looks in a terminal: events go in, finished lines come out; what may still grow is `live`.

Pure. A line is a list of (style, text); its text is safe for a terminal and fits its width.
"""

from collections.abc import Sequence
from typing import Any, TypeAlias

import msgspec

from agentws.client.fold import RunFold, ToolCall
from agentws.client.frames import HistoryMessage, Thread
from agentws.client.reader import Event
from agentws.client.text import LineBreaker, cells, cut, one_line, safe

__all__ = ["Line", "ThreadView", "history_lines", "note", "thread_lines", "user_lines"]

Line: TypeAlias = list[tuple[str, str]]

INDENT = "  "
PROMPT = "> "


def note(text: str, width: int, style: str = "class:note") -> list[Line]:
    """A remark of the client's own."""
    return _wrapped(text, width, style, "")


def user_lines(text: str, width: int) -> list[Line]:
    """What the user said."""
    lines = _broken(text, width - len(PROMPT)) or [""]
    marks = [PROMPT] + [INDENT] * (len(lines) - 1)
    return [[("class:user", mark + line)] for mark, line in zip(marks, lines, strict=True)]


def history_lines(messages: Sequence[HistoryMessage], width: int) -> list[Line]:
    """Messages of the past, with how each run ended where that was not well."""
    lines: list[Line] = []
    for message in messages:
        if message.role == "user":
            lines += [[], *user_lines(message.content, width)]
            if message.status not in ("completed", "running"):
                lines += note(f"[{message.status}]", width)
        else:
            lines += _wrapped(message.content, width, "", "")
    return lines


def thread_lines(threads: Sequence[Thread], current: str | None, width: int) -> list[Line]:
    """The threads, numbered from 1."""
    lines: list[Line] = []
    for number, thread in enumerate(threads, 1):
        mark = "*" if thread.thread_id == current else " "
        running = " running" if thread.running_run_id else ""
        title = one_line(thread.title or "(no title)")
        tail = f"  {thread.updated_at[:16].replace('T', ' ')}  {thread.thread_id}{running}"
        head = f"{mark}{number:>3}  "
        room = width - len(head) - len(tail)
        if room >= 12:
            lines.append([("", head + cut(title, room)), ("class:note", tail)])
        else:
            lines += [[("", cut(head + title, width))], [("class:note", cut(f"     {thread.thread_id}", width))]]
    return lines


class ThreadView:
    """What is shown of one thread, from where its events are fed on.

    Args:
        width: cells of a line; may be changed between events.
    """

    def __init__(self, width: int) -> None:
        self.width = width
        self._runs: dict[str, RunFold] = {}
        self._echoed: set[str] = set()
        # The block of text that is being written: (run, step of thinking or 0 for the answer).
        self._block: tuple[str, int] | None = None
        self._breaker = LineBreaker(width)

    @property
    def busy(self) -> list[str]:
        """The runs that have not ended."""
        return list(self._runs)

    def sent(self, run_id: str, text: str) -> list[Line]:
        """The user's message, as it is sent from here."""
        self._runs.setdefault(run_id, RunFold(run_id))
        self._echoed.add(run_id)
        return [[], *user_lines(text, self.width)]

    def refused(self, run_id: str) -> None:
        """A message that was sent from here did not become a run."""
        self._runs.pop(run_id, None)
        self._echoed.discard(run_id)

    def feed(self, event: Event) -> list[Line]:
        """Takes the thread's next event; returns the lines that are complete."""
        run = self._runs.setdefault(event.run_id, RunFold(event.run_id))
        before = run.text
        run.feed(event)
        payload = event.payload
        match event.type:
            case "agent_queued":
                # Its message is shown again where its answer begins.
                self._echoed.discard(event.run_id)
                return note(f"[queued, position {payload['position']}]", self.width)
            case "agent_started":
                return self.close() + self._started(event)
            case "agent_thinking":
                return self._write(event.run_id, payload["step"], payload["reasoning"])
            case "agent_message":
                return self._write(event.run_id, 0, payload["text"])
            case "tool_executing":
                return [*self.close(), self._tool("→", payload["tool_name"], _json(payload["parameters"]))]
            case "tool_completed":
                return [*self.close(), self._tool_ended(payload)]
            case "agent_event":
                return [*self.close(), self._tool("·", payload["name"], _json(payload["value"]))]
            case _ if event.is_terminal:
                return self._ended(event, before)
        return []

    def live(self, seconds: float) -> list[Line]:
        """What may still grow: the line that is being written, and the tools at work.

        Args:
            seconds: how long the tools have been at work.
        """
        lines: list[Line] = []
        if self._breaker.rest:
            lines.append(self._styled(self._breaker.rest))
        for run in self._runs.values():
            lines += [self._tool("…", tool.name, _progress(tool, seconds)) for tool in run.open_tools]
        return lines

    def close(self) -> list[Line]:
        """Ends the line that is being written; returns it, where there is one."""
        lines = [self._styled(line) for line in self._breaker.close()]
        self._block = None
        return lines

    @property
    def tools_at_work(self) -> bool:
        return any(run.open_tools for run in self._runs.values())

    def _started(self, event: Event) -> list[Line]:
        if event.attempt > 1:
            text = f"[started again, attempt {event.attempt}: what it wrote before does not count]"
            return note(text, self.width, "class:warning")
        if event.run_id in self._echoed:
            return []
        return [[], *user_lines(event.payload["message"], self.width)]

    def _write(self, run_id: str, step: int, text: str) -> list[Line]:
        lines: list[Line] = []
        if self._block != (run_id, step):
            lines = self.close()
            self._block = (run_id, step)
            self._breaker = LineBreaker(self.width - (len(INDENT) if step else 0))
        return lines + [self._styled(line) for line in self._breaker.feed(safe(text))]

    def _styled(self, line: str) -> Line:
        return [("class:thinking", INDENT + line)] if self._block and self._block[1] else [("", line)]

    def _tool(self, mark: str, name: str, rest: str, style: str = "class:tool") -> Line:
        text = cut(f"{INDENT}{mark} {one_line(name)} {one_line(rest)}".rstrip(), self.width)
        return [(style, text)]

    def _tool_ended(self, payload: dict[str, Any]) -> Line:
        took = _duration(payload["duration_ms"])
        name = payload["tool_name"]
        if payload["success"]:
            return self._tool("✓", name, f"{took} {_json(payload['result'])}")
        said = (payload["error"] or {}).get("message", "")
        return self._tool("✗", name, f"{took} {payload['outcome']}: {said}", "class:error")

    def _ended(self, event: Event, written: str) -> list[Line]:
        run = self._runs.pop(event.run_id)
        self._echoed.discard(event.run_id)
        lines = self.close() if self._block is None or self._block[0] == event.run_id else []
        if run.response != written:
            lines += _wrapped(run.response, self.width, "", "")
        payload = event.payload
        took = _duration(payload["duration_ms"])
        match event.type:
            case "agent_error":
                lines += note(f"[error {payload['code']}: {payload['message']}]", self.width, "class:error")
            case "agent_stopped":
                lines += note(f"[stopped after {took}: {payload['reason']}]", self.width, "class:warning")
            case _:
                lines += note(f"[{took}]", self.width)
        return lines


def _progress(tool: ToolCall, seconds: float) -> str:
    parts = [f"{seconds:.0f} s"]
    if tool.progress is not None:
        parts.append(f"{tool.progress:.0%}")
    if tool.message:
        parts.append(tool.message)
    return " ".join(parts)


def _duration(milliseconds: int) -> str:
    return f"{milliseconds} ms" if milliseconds < 1000 else f"{milliseconds / 1000:.1f} s"


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _broken(text: str, width: int) -> list[str]:
    breaker = LineBreaker(width)
    return breaker.feed(safe(text)) + breaker.close()


def _wrapped(text: str, width: int, style: str, indent: str) -> list[Line]:
    return [[(style, indent + line)] for line in _broken(text, width - cells(indent))]
