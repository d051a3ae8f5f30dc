"""What an attempt that was lost has left behind, read from its events."""

from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from agentws.wire.events import AgentMessage, EventType, ToolCompleted, ToolExecuting

__all__ = ["Remains", "read_remains"]

_message = msgspec.json.Decoder(AgentMessage).decode
_executing = msgspec.json.Decoder(ToolExecuting).decode
_completed = msgspec.json.Decoder(ToolCompleted).decode


@dataclass(frozen=True, slots=True)
class Remains:
    """The text of the answer so far, and the tools that were begun and not closed, in order."""

    text: str
    open_tools: tuple[ToolExecuting, ...]


def read_remains(events: Iterable[tuple[str, str]]) -> Remains:
    """What `events` leave, given as (type, body) in their order; other types than messages and tools do not count."""
    text: list[str] = []
    tools: dict[str, ToolExecuting] = {}
    for kind, body in events:
        match kind:
            case EventType.AGENT_MESSAGE:
                text.append(_message(body).text)
            case EventType.TOOL_EXECUTING:
                tool = _executing(body)
                tools[tool.execution_id] = tool
            case EventType.TOOL_COMPLETED:
                tools.pop(_completed(body).execution_id, None)
    return Remains("".join(text), tuple(tools.values()))
