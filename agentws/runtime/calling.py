"""One call of an agent: begun, told to end, watched until it has, and left where it does not end in its time."""

import asyncio
import logging
from typing import Any

from agentws.core.agent import AgentSpec
from agentws.runtime.recorder import Recorder
from agentws.runtime.run import AgentRun
from agentws.wire.errors import CATALOGUE, AgentError

__all__ = ["AgentCall"]

log = logging.getLogger("agentws.runtime")

# Of the time that an agent has to end: the rest is for what it does itself when its tool was left.
_SHARE_OF_THREADS = 0.9


class AgentCall:
    """Begins the call.

    Args:
        spec: the agent; None where this process does not know it.
        run: what it is handed.
        recorder: told when it has ended.
        stop_grace_s: how long it may take to end when it was told to, in seconds.
        abandoned: keeps the tasks of agents that were left, until they end.
    """

    def __init__(
        self,
        spec: AgentSpec | None,
        run: AgentRun,
        recorder: Recorder,
        *,
        stop_grace_s: float,
        abandoned: set["asyncio.Task[Any]"],
    ) -> None:
        self.run = run
        self._spec = spec
        self._recorder = recorder
        self._stop_grace_s = stop_grace_s
        self._abandoned = abandoned
        self.give_up_at: float | None = None
        self.task = asyncio.get_running_loop().create_task(self._call())
        self.task.add_done_callback(self._on_done)

    @property
    def ended(self) -> bool:
        """Whether the agent is not at work any more."""
        return self.task.done()

    def cancel(self) -> None:
        """Tells the agent to end; from now on its time runs."""
        now = asyncio.get_running_loop().time()
        self.give_up_at = now + self._stop_grace_s
        self.run.stop(wait_until=now + self._stop_grace_s * _SHARE_OF_THREADS)
        self.task.cancel()
        self._recorder.wake()

    @property
    def is_given_up(self) -> bool:
        """Whether the agent was told to end, and has not in its time."""
        return self.give_up_at is not None and asyncio.get_running_loop().time() >= self.give_up_at

    def leave(self) -> None:
        """Cancels the agent, and what of it is in a tool, where they are still at work; waits for nothing."""
        if self.is_given_up and not self.ended:
            log.error("run %s: its agent does not end after being cancelled; it is left", self.run.context.run_id)
        for task in (self.task, *self.run.leave()):
            if not task.done():
                task.cancel()
                self._abandoned.add(task)
                task.add_done_callback(self._abandoned.discard)

    async def _call(self) -> Any:
        if self._spec is None:
            raise AgentError("agent_failed", CATALOGUE["agent_failed"].text)
        try:
            return await self._spec.call(self.run)
        except (SystemExit, KeyboardInterrupt) as error:
            # An agent does not end the server.
            raise RuntimeError(f"the agent raised {type(error).__name__}") from error

    def _on_done(self, task: "asyncio.Task[Any]") -> None:
        if not task.cancelled():
            task.exception()
        self._recorder.wake()
