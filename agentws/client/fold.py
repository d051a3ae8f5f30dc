"""What a reader knows of one run: the events told so far, put together."""

from dataclasses import dataclass, field
from typing import Any

from agentws.client.reader import Event

__all__ = ["RunFold", "ToolCall"]


@dataclass
class ToolCall:
    """A tool call that has begun; `ended` is the payload of its `tool_completed`."""

    name: str
    parameters: Any
    progress: float | None = None
    message: str | None = None
    ended: dict[str, Any] | None = None


@dataclass
class RunFold:
    """One run. Takes events as `Cursor` gives them: once, in order, text without what was told."""

    run_id: str
    attempt: int = 0
    asked: str | None = None
    position: int | None = None
    text: str = ""
    thinking: dict[int, str] = field(default_factory=dict)
    tools: dict[str, ToolCall] = field(default_factory=dict)
    end: Event | None = None

    @property
    def response(self) -> str:
        """The answer: as the run ended, else as far as it was told."""
        told = self.end.payload.get("response") if self.end else None
        return self.text if told is None else str(told)

    @property
    def open_tools(self) -> list[ToolCall]:
        return [tool for tool in self.tools.values() if tool.ended is None]

    def feed(self, event: Event) -> None:
        """Takes the run's next event; types that are not known change nothing."""
        payload = event.payload
        match event.type:
            case "agent_queued":
                self.position = payload["position"]
            case "agent_started":
                # A later attempt begins anew; what the one before wrote is no part of the answer.
                self.attempt, self.asked, self.position = event.attempt, payload["message"], None
                self.text, self.thinking, self.tools = "", {}, {}
            case "agent_thinking":
                step = payload["step"]
                self.thinking[step] = self.thinking.get(step, "") + payload["reasoning"]
            case "agent_message":
                self.text += payload["text"]
            case "tool_executing":
                self.tools[payload["execution_id"]] = ToolCall(payload["tool_name"], payload["parameters"])
            case "tool_progress" if tool := self.tools.get(payload["execution_id"]):
                tool.progress, tool.message = payload.get("progress"), payload.get("message")
            case "tool_completed":
                tool = self.tools.setdefault(payload["execution_id"], ToolCall(payload["tool_name"], None))
                tool.ended = payload
            case _ if event.is_terminal:
                self.end = event
