"""What an agent's end means for its run: which terminal event, and what it tells."""

import asyncio
import logging
import secrets
from dataclasses import dataclass
from typing import Any, Literal

from msgspec import UNSET, UnsetType

from agentws.core.remains import Remains
from agentws.core.run import Claim, Draft, Ending
from agentws.wire.codec import clean, encode_text
from agentws.wire.errors import CATALOGUE, AgentError
from agentws.wire.events import AgentEnded, EventType, Outcome, RunTimes, ToolCompleted, ToolError

__all__ = ["Verdict", "close_lost", "close_run", "failure", "judge"]

log = logging.getLogger("agentws.runtime")


@dataclass(frozen=True, slots=True)
class Verdict:
    """A terminal event to be. `answer`: the text that the agent returned; None: it has answered with what it wrote."""

    type: EventType
    code: str | None = None
    message: str | None = None
    retryable: bool = False
    reason: str | None = None
    answer: str | None = None


def failure(code: str) -> Verdict:
    """`agent_error` with a code of the catalogue."""
    entry = CATALOGUE[code]
    return Verdict(EventType.AGENT_ERROR, code=code, message=entry.text, retryable=entry.retryable)


def judge(agent: "asyncio.Task[Any]", claim: Claim) -> Verdict:
    """The verdict on an agent that has ended by itself; what failed is logged here, and nothing of it is told."""
    if agent.cancelled():
        # Nobody here asked for it: the agent cancelled itself, or something it awaited.
        log.warning("run %s: its agent was cancelled from inside", claim.run_id)
        return failure("agent_failed")
    error = agent.exception()
    if isinstance(error, AgentError):
        log.info("run %s ended in %s", claim.run_id, error.code)
        return Verdict(
            EventType.AGENT_ERROR,
            code=clean(str(error.code)),
            message=clean(str(error.message)),
            retryable=bool(error.retryable),
        )
    if error is not None:
        correlation_id = secrets.token_hex(8)
        log.error(
            "run %s: agent %s failed",
            claim.run_id,
            claim.agent,
            exc_info=error,
            extra={"correlation_id": correlation_id},
        )
        return failure("agent_failed")
    answer = agent.result()
    if answer is not None and not isinstance(answer, str):
        log.error("run %s: agent %s returned %s, not text", claim.run_id, claim.agent, type(answer).__name__)
        return failure("agent_failed")
    return Verdict(EventType.AGENT_COMPLETED, answer=None if answer is None else clean(answer))


def close_run(
    verdict: Verdict, response: str, *, duration_ms: int, times: RunTimes | UnsetType
) -> tuple[Draft, Ending]:
    """The terminal event of a verdict, and the ending that it writes."""
    ended = AgentEnded(
        duration_ms=duration_ms,
        times=times,
        code=verdict.code or UNSET,
        message=UNSET if verdict.message is None else verdict.message,
        retryable=verdict.retryable if verdict.code else UNSET,
        reason=verdict.reason or UNSET,
    )
    draft = Draft(verdict.type, encode_text(ended), content=response or None)
    return draft, Ending(status=_STATUS[verdict.type], response=response, error_code=verdict.code)


def close_lost(remains: Remains) -> list[Draft]:
    """What closes the tools that a lost attempt has left open; nobody can say what they did."""
    error = ToolError(code="worker_lost", message=CATALOGUE["worker_lost"].text)
    return [
        Draft(
            EventType.TOOL_COMPLETED,
            encode_text(
                ToolCompleted(
                    execution_id=tool.execution_id,
                    tool_name=tool.tool_name,
                    success=False,
                    outcome=Outcome.UNKNOWN,
                    error=error,
                    duration_ms=0,
                )
            ),
        )
        for tool in remains.open_tools
    ]


_STATUS: dict[EventType, Literal["completed", "failed", "stopped"]] = {
    EventType.AGENT_COMPLETED: "completed",
    EventType.AGENT_ERROR: "failed",
    EventType.AGENT_STOPPED: "stopped",
}
