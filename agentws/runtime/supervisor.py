"""One run from its claim to its one outcome. Made anew for each request, and gone with it.

It is the only one that ends a run, and it does so exactly once, whatever the agent does; where the run is another's by
now it writes nothing.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

from msgspec import UNSET

from agentws.core.agent import AgentSpec
from agentws.core.remains import Remains
from agentws.core.run import Claim, Draft
from agentws.observe.metrics import Metrics
from agentws.observe.statistics import Statistics
from agentws.ports import Broker, Fenced, Journal, Starts, Stopping
from agentws.runtime.calling import AgentCall
from agentws.runtime.handover import Handover, answered
from agentws.runtime.recorder import Recorder
from agentws.runtime.run import AgentRun, context_of
from agentws.runtime.tally import Tally
from agentws.runtime.tools import ToolThreads
from agentws.runtime.verdict import Verdict, close_lost, close_run, failure, judge
from agentws.wire.events import EventType

__all__ = ["Services", "Supervisor"]

log = logging.getLogger("agentws.runtime")


class _Cause(Enum):
    """Why a run was interrupted; the value is the code of the tools that it closes (a revoked one closes none)."""

    STOPPED = "tool_stopped"
    TIMED_OUT = "tool_timeout"
    LOST = "worker_lost"
    REVOKED = ""


@dataclass(frozen=True, kw_only=True)
class Services:
    """What supervisors are given; times in seconds.

    Args:
        next_owner: the node that may claim a thread's next run.
        held: whether this process holds the lease of a node, for which runs were claimed; asked from any thread.
    """

    journal: Journal
    starts: Starts
    broker: Broker
    threads: ToolThreads
    next_owner: Callable[[], int | None]
    held: Callable[[int | None], bool]
    agents: Sequence[str]
    run_timeout_s: float
    restart_delay_s: float
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
        self._handover = Handover(
            claim,
            spec,
            self._recorder,
            starts=services.starts,
            broker=services.broker,
            delay_s=services.restart_delay_s,
        )
        self._began = time.monotonic()
        self._cause: _Cause | None = None
        self._reason: str | None = None
        self._call: AgentCall | None = None
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
        """Ends the run's attempt, because this process goes away: it is handed over, or fails (`worker_lost`)."""
        self._interrupt(_Cause.LOST)

    def revoke(self) -> None:
        """Stops the agent of a run that was ended by somebody else; what it would still write is refused."""
        self._interrupt(_Cause.REVOKED)

    @property
    def fence(self) -> int:
        """Under which the run is held."""
        return self._claim.fence

    async def run(self) -> Claim | None:
        """Works on the run until it has ended, or is released for another attempt.

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
        if self._claim.lost and not await self._begin_next():
            return await self._close_lost()
        call = self._call = self._begin_call()
        if self._cause is not None:
            call.cancel()
        timeout_s = (self._spec.timeout_s if self._spec else None) or self._services.run_timeout_s
        self._timer = asyncio.get_running_loop().call_later(timeout_s, self._interrupt, _Cause.TIMED_OUT)
        await self._watch(call)
        return await self._finish(call)

    def _begin_call(self) -> AgentCall:
        services, context = self._services, context_of(self._claim, attempt=self._recorder.attempt)
        services.metrics.runs.contexts.add(context)
        run = AgentRun(
            self._claim,
            context,
            self._recorder,
            self._tally,
            journal=services.journal,
            threads=services.threads,
            held=lambda: services.held(self._claim.owner),
            drop=self._drop,
        )
        return AgentCall(
            self._spec, run, self._recorder, stop_grace_s=services.stop_grace_s, abandoned=services.abandoned
        )

    async def _watch(self, call: AgentCall) -> None:
        """Writes what the agent adds until it has ended, or has had its time to end."""
        while not (call.ended or call.is_given_up):
            if self._recorder.stop_reason is not None:
                self.stop(self._recorder.stop_reason)
            if self._recorder.is_due:
                await self._recorder.write()
            else:
                await self._recorder.changed(until=call.give_up_at)

    def _interrupt(self, cause: _Cause) -> None:
        if self._cause is not None or (self._call is not None and self._call.ended):
            return
        self._cause = cause
        if self._call is not None:
            self._call.cancel()

    def _drop(self) -> None:
        """Leaves the run, whatever else was to become of it: this process's lease is not held any more."""
        self._cause = _Cause.REVOKED
        self._recorder.discard()
        if self._call is not None:
            self._call.cancel()

    def _leave(self) -> None:
        """Leaves nothing behind that could go on: no timer, no waiting task, no agent of a run that is not ours."""
        if self._timer is not None:
            self._timer.cancel()
        if self._call is not None:
            self._call.leave()
        self._recorder.discard()
        self._tally.left()

    # How a run ends

    async def _finish(self, call: AgentCall) -> Claim | None:
        if self._cause is _Cause.REVOKED:
            raise Fenced(self._claim.run_id)
        if self._cause is _Cause.STOPPED:
            return await self._end(call.run, await self._stopped())
        if self._cause is _Cause.LOST and self._handover.may_restart:
            return await self._hand_over(call)
        if self._cause is not None:
            code = "agent_timeout" if self._cause is _Cause.TIMED_OUT else "worker_lost"
            return await self._end(call.run, failure(code))
        verdict = judge(call.task, self._claim)
        if verdict.answer and not self._recorder.text:
            self._recorder.add_text(verdict.answer)
        return await self._end(call.run, verdict)

    async def _end(self, run: AgentRun, verdict: Verdict) -> Claim | None:
        closing = run.close_open((self._cause or _Cause.STOPPED).value)
        return await self._write_end(verdict, closing, self._recorder.text, self._elapsed_ms())

    async def _hand_over(self, call: AgentCall) -> Claim | None:
        """Lets the run go for its next attempt, here or elsewhere, which must not meet this one still at work."""
        if not call.ended or call.run.in_tools:
            # It stays this process's, which gives up its lease as the last thing that it does.
            log.warning("run %s is left to whoever takes it over when this process has gone", self._claim.run_id)
            await self._recorder.write()
            return None
        try:
            await self._handover.release(call.run.close_open(_Cause.LOST.value), at_once=True)
        except Stopping as stopping:
            self._cause, self._reason = _Cause.STOPPED, stopping.reason
            return await self._end(call.run, await self._stopped())
        return None

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
        times = UNSET if self._call is None else self._tally.times
        last, ending = close_run(verdict, response, duration_ms=duration_ms, times=times)
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
            remains = await self._handover.remains()
            verdict = failure("internal_error")
            return await self._write_end(verdict, close_lost(remains), remains.text, self._elapsed_ms())
        except Fenced:
            return None

    async def _look_up(self) -> Claim:
        """The claim as the database holds it now. Raises Fenced where it is another's."""
        claim = self._claim
        held = await answered(lambda: self._services.starts.begin(claim.ticket))
        if held is None:
            raise Fenced(claim.run_id)
        return held

    def _elapsed_ms(self) -> int:
        return self._claim.elapsed_ms + round((time.monotonic() - self._began) * 1000)

    # What the attempt before has left

    async def _begin_next(self) -> bool:
        """Begins the next attempt of a run that was released for it; False where it has to be closed instead."""
        if not self._claim.released or self._cause is not None or not self._handover.may_restart:
            return False
        await self._handover.restart()
        self._claim = replace(self._claim, elapsed_ms=0)
        return True

    async def _close_lost(self) -> Claim | None:
        """Closes what a lost attempt has left open, and ends the run, or releases it for its next attempt."""
        remains = await self._handover.remains()
        if self._cause is _Cause.REVOKED:
            raise Fenced(self._claim.run_id)
        if self._cause is _Cause.STOPPED or not self._handover.may_restart:
            return await self._end_lost(remains)
        try:
            await self._handover.release(close_lost(remains), at_once=self._claim.released)
        except Stopping as stopping:
            self._cause, self._reason = _Cause.STOPPED, stopping.reason
            return await self._end_lost(replace(remains, open_tools=()))
        return None

    async def _end_lost(self, remains: Remains) -> Claim | None:
        stopped = self._cause is _Cause.STOPPED
        verdict = await self._stopped() if stopped else failure("worker_lost")
        return await self._write_end(verdict, close_lost(remains), remains.text, self._claim.elapsed_ms)
