"""One run from its claim to its one outcome. Made anew for each request, and gone with it.

It is the only one that ends a run, and it does so exactly once, whatever the agent does; where the run is another's by
now it writes nothing.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, Literal, TypeVar

from msgspec import UNSET

from agentws.core.agent import AgentSpec
from agentws.core.remains import Remains, read_remains
from agentws.core.run import Claim, Draft, Ending, Ticket
from agentws.observe.metrics import Metrics
from agentws.observe.statistics import Statistics
from agentws.ports import Broker, Fenced, Journal, Starts, Stopping, StoreUnavailable
from agentws.runtime.recorder import Recorder
from agentws.runtime.run import AgentRun, context_of
from agentws.runtime.tally import Tally
from agentws.runtime.tools import ToolThreads
from agentws.runtime.verdict import Verdict, close_lost, failure, judge
from agentws.wire.codec import encode_text
from agentws.wire.errors import CATALOGUE, AgentError
from agentws.wire.events import AgentEnded, EventType

__all__ = ["Services", "Supervisor"]

log = logging.getLogger("agentws.runtime")

MAX_ATTEMPTS = 3
_UNAVAILABLE_RETRY_S = 0.5
# Of the time that an agent has to end: the rest is for what it does itself when its tool was left.
_SHARE_OF_THREADS = 0.9

T = TypeVar("T")


class _Cause(Enum):
    """Why a run was interrupted; the value is the code of the tools that it closes (a revoked one closes none)."""

    STOPPED = "tool_stopped"
    TIMED_OUT = "tool_timeout"
    LOST = "worker_lost"
    REVOKED = ""


@dataclass(frozen=True, kw_only=True)
class Services:
    """What supervisors are given; times in seconds. `next_owner`: the node that may claim a thread's next run."""

    journal: Journal
    starts: Starts
    broker: Broker
    threads: ToolThreads
    next_owner: Callable[[], int | None]
    agents: Sequence[str]
    run_timeout_s: float
    stop_grace_s: float
    piece_interval_s: float
    run_buffer_bytes: int
    metrics: Metrics
    statistics: Statistics
    abandoned: set["asyncio.Task[Any]"] = field(default_factory=set)


class Supervisor:
    """
    Args:
        claim: the run, and the right to work on it.
        spec: its agent; None where this process does not know it.
        services: where to write, and the limits.
    """

    def __init__(self, claim: Claim, spec: AgentSpec | None, services: Services) -> None:
        self._claim = claim
        self._spec = spec
        self._services = services
        self._tally = Tally(claim, services.metrics.runs, services.statistics)
        self._recorder = Recorder(
            claim,
            self._tally,
            services.journal,
            services.broker,
            interval_s=services.piece_interval_s,
            buffer_bytes=services.run_buffer_bytes,
        )
        self._began = time.monotonic()
        self._cause: _Cause | None = None
        self._reason: str | None = None
        self._agent: asyncio.Task[Any] | None = None
        self._run: AgentRun | None = None
        self._give_up_at: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        if claim.stop_reason is not None:
            self.stop(claim.stop_reason)

    def stop(self, reason: str | None) -> None:
        """Stops the run, unless it is ending already; it ends in `agent_stopped`. None: the journal knows why."""
        if self._cause is None:
            self._reason = reason
            self._tally.stop_asked()
        self._interrupt(_Cause.STOPPED)

    def lose(self) -> None:
        """Ends the run in `agent_error` `worker_lost`, because this process goes away."""
        self._interrupt(_Cause.LOST)

    def revoke(self) -> None:
        """Stops the agent of a run that was ended by somebody else; what it would still write is refused."""
        self._interrupt(_Cause.REVOKED)

    async def run(self) -> Claim | None:
        """Works on the run until it has ended.

        Returns:
            The thread's next run where this one's end has claimed it; None too where this run is another's by now.
        """
        try:
            return await self._work()
        except Fenced:
            log.warning("run %s was taken over (fence %d)", self._claim.run_id, self._claim.fence)
            return None
        except Exception:
            told = {"correlation_id": secrets.token_hex(8)}
            log.exception("run %s failed inside the server", self._claim.run_id, extra=told)
            return await self._end_internal()
        finally:
            self._leave()

    async def _work(self) -> Claim | None:
        if self._claim.lost:
            remains = await self._read_remains()
            if not self._may_restart():
                return await self._end_lost(remains)
            await self._restart(remains)
        services, context = self._services, context_of(self._claim, attempt=self._recorder.attempt)
        services.metrics.runs.contexts.add(context)
        self._run = AgentRun(
            self._claim, context, self._recorder, self._tally, journal=services.journal, threads=services.threads
        )
        loop = asyncio.get_running_loop()
        self._agent = loop.create_task(self._call_agent(self._run))
        self._agent.add_done_callback(self._on_agent_done)
        if self._cause is not None:
            self._cancel_agent()
        timeout_s = (self._spec.timeout_s if self._spec else None) or self._services.run_timeout_s
        self._timer = loop.call_later(timeout_s, self._interrupt, _Cause.TIMED_OUT)
        await self._watch(self._agent)
        return await self._finish(self._agent, self._run)

    async def _watch(self, agent: "asyncio.Task[Any]") -> None:
        """Writes what the agent adds until it has ended, or has had its time to end."""
        loop = asyncio.get_running_loop()
        while not agent.done():
            if self._give_up_at is not None and loop.time() >= self._give_up_at:
                log.error("run %s: its agent does not end after being cancelled; it is left", self._claim.run_id)
                self._services.abandoned.add(agent)
                agent.add_done_callback(self._services.abandoned.discard)
                return
            if self._recorder.stop_reason is not None:
                self.stop(self._recorder.stop_reason)
            if self._recorder.is_due:
                await self._recorder.write()
            else:
                await self._recorder.changed(until=self._give_up_at)

    async def _call_agent(self, run: AgentRun) -> Any:
        if self._spec is None:
            raise AgentError("agent_failed", CATALOGUE["agent_failed"].text)
        try:
            return await self._spec.call(run)
        except (SystemExit, KeyboardInterrupt) as error:
            # An agent does not end the server.
            raise RuntimeError(f"the agent raised {type(error).__name__}") from error

    def _on_agent_done(self, agent: "asyncio.Task[Any]") -> None:
        if not agent.cancelled():
            agent.exception()
        self._recorder.wake()

    def _interrupt(self, cause: _Cause) -> None:
        if self._cause is not None or (self._agent is not None and self._agent.done()):
            return
        self._cause = cause
        if self._agent is not None:
            self._cancel_agent()

    def _cancel_agent(self) -> None:
        if self._agent is None or self._run is None:
            return
        now, grace_s = asyncio.get_running_loop().time(), self._services.stop_grace_s
        self._give_up_at = now + grace_s
        self._run.stop(wait_until=now + grace_s * _SHARE_OF_THREADS)
        self._agent.cancel()
        self._recorder.wake()

    def _leave(self) -> None:
        """Leaves nothing behind that could go on: no timer, no waiting task, no agent of a run that is not ours."""
        if self._timer is not None:
            self._timer.cancel()
        left = set() if self._run is None else self._run.leave()
        if self._agent is not None:
            left.add(self._agent)
        for task in left:
            if not task.done():
                task.cancel()
                self._services.abandoned.add(task)
                task.add_done_callback(self._services.abandoned.discard)
        self._recorder.discard()
        self._tally.left()

    # How a run ends

    async def _finish(self, agent: "asyncio.Task[Any]", run: AgentRun) -> Claim | None:
        if self._cause is _Cause.REVOKED:
            raise Fenced(self._claim.run_id)
        if self._cause is _Cause.STOPPED:
            return await self._end(run, await self._stopped())
        if self._cause is not None:
            return await self._end(run, failure("agent_timeout" if self._cause is _Cause.TIMED_OUT else "worker_lost"))
        verdict = judge(agent, self._claim)
        if verdict.answer and not self._recorder.text:
            self._recorder.add_text(verdict.answer)
        return await self._end(run, verdict)

    async def _end(self, run: AgentRun, verdict: Verdict) -> Claim | None:
        closing = run.close_open((self._cause or _Cause.STOPPED).value)
        return await self._write_end(verdict, closing, self._recorder.text, self._elapsed_ms())

    async def _write_end(
        self, verdict: Verdict, closing: Sequence[Draft], written: str, duration_ms: int
    ) -> Claim | None:
        """Ends the run: in the verdict, unless a stop was accepted while that was on its way."""
        try:
            return await self._write(verdict, closing, written, duration_ms)
        except Stopping as stopping:
            stopped = Verdict(EventType.AGENT_STOPPED, reason=stopping.reason)
            return await self._write(stopped, closing, written, duration_ms)

    async def _write(self, verdict: Verdict, closing: Sequence[Draft], written: str, duration_ms: int) -> Claim | None:
        response = written if verdict.answer is None else verdict.answer
        ended = AgentEnded(
            duration_ms=duration_ms,
            times=UNSET if self._run is None else self._tally.times,
            code=verdict.code or UNSET,
            message=UNSET if verdict.message is None else verdict.message,
            retryable=verdict.retryable if verdict.code else UNSET,
            reason=verdict.reason or UNSET,
        )
        ending = Ending(status=_STATUS[verdict.type], response=response, error_code=verdict.code)
        last = Draft(verdict.type, encode_text(ended), content=response or None)
        return await self._recorder.finish(
            [*closing, last], ending, next_owner=self._services.next_owner(), agents=self._services.agents
        )

    async def _stopped(self) -> Verdict:
        if self._reason is None:
            held = await self._look_up()
            self._reason = held.stop_reason
        return Verdict(EventType.AGENT_STOPPED, reason=self._reason or "user")

    async def _end_internal(self) -> Claim | None:
        """The last resort: what could not be written is left out, and what was written is ended all the same."""
        try:
            self._recorder.resume((await self._look_up()).ordinal)
            remains = await self._read_remains()
            verdict = failure("internal_error")
            return await self._write_end(verdict, close_lost(remains), remains.text, self._elapsed_ms())
        except Fenced:
            return None

    async def _look_up(self) -> Claim:
        """The claim as the database holds it now. Raises Fenced where it is another's."""
        claim = self._claim
        ticket = Ticket(principal=claim.principal, thread_id=claim.thread_id, run_no=claim.run_no, fence=claim.fence)
        held = await _answered(lambda: self._services.starts.begin(ticket))
        if held is None:
            raise Fenced(claim.run_id)
        return held

    def _elapsed_ms(self) -> int:
        return self._claim.elapsed_ms + round((time.monotonic() - self._began) * 1000)

    # What a lost process has left

    def _may_restart(self) -> bool:
        return (
            self._cause is None
            and self._spec is not None
            and self._spec.on_crash == "restart"
            and self._claim.attempt < MAX_ATTEMPTS
        )

    async def _read_remains(self) -> Remains:
        claim = replace(self._claim, attempt=self._recorder.attempt)
        return read_remains(await _answered(lambda: self._services.starts.remains(claim)))

    async def _end_lost(self, remains: Remains) -> Claim | None:
        stopped = self._cause is _Cause.STOPPED
        verdict = await self._stopped() if stopped else failure("worker_lost")
        return await self._write_end(verdict, close_lost(remains), remains.text, self._claim.elapsed_ms)

    async def _restart(self, remains: Remains) -> None:
        for draft in close_lost(remains):
            self._recorder.add(draft)
        await self._recorder.write()
        self._recorder.attempt += 1
        log.warning("run %s starts again (attempt %d)", self._claim.run_id, self._recorder.attempt)
        self._recorder.add(Draft(EventType.AGENT_STARTED, None, content=self._claim.text))
        await self._recorder.write()
        self._claim = replace(self._claim, elapsed_ms=0)


async def _answered(call: Callable[[], Awaitable[T]]) -> T:
    """What a call of the store returns, made again until the database answers."""
    while True:
        try:
            return await call()
        except StoreUnavailable:
            await asyncio.sleep(_UNAVAILABLE_RETRY_S)


_STATUS: dict[EventType, Literal["completed", "failed", "stopped"]] = {
    EventType.AGENT_COMPLETED: "completed",
    EventType.AGENT_ERROR: "failed",
    EventType.AGENT_STOPPED: "stopped",
}
