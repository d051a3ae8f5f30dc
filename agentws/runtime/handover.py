"""How a run goes from one attempt to the next: what one left open is closed, the run released, the next one begun.

Between the two nobody works on it; whichever process claims it then, only one does.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from agentws.core.agent import AgentSpec
from agentws.core.remains import Remains, read_remains
from agentws.core.run import Claim, Draft
from agentws.ports import Broker, Starts, StoreUnavailable
from agentws.runtime.recorder import Recorder
from agentws.wire.events import EventType

__all__ = ["Handover", "answered"]

log = logging.getLogger("agentws.runtime")

MAX_ATTEMPTS = 3
_DELAY_GROWS = 4
_UNAVAILABLE_RETRY_S = 0.5

T = TypeVar("T")


class Handover:
    """
    Args:
        spec: the run's agent; None where this process does not know it.
        delay_s: how long a run of a lost process waits for its second attempt, in seconds.
    """

    def __init__(
        self,
        claim: Claim,
        spec: AgentSpec | None,
        recorder: Recorder,
        *,
        starts: Starts,
        broker: Broker,
        delay_s: float,
    ) -> None:
        self._claim = claim
        self._spec = spec
        self._recorder = recorder
        self._starts = starts
        self._broker = broker
        self._delay_s = delay_s

    @property
    def may_restart(self) -> bool:
        """Whether another attempt may follow the present one."""
        restarts = self._spec is not None and self._spec.on_crash == "restart"
        return restarts and self._recorder.attempt < MAX_ATTEMPTS

    async def remains(self) -> Remains:
        """What the present attempt has left, or where none has begun here, the one before."""
        claim = replace(self._claim, attempt=self._recorder.attempt)
        return read_remains(await answered(lambda: self._starts.remains(claim)))

    async def release(self, closing: Sequence[Draft], *, at_once: bool) -> None:
        """Writes the rest of an attempt, what closes its tools too, and lets the run go.

        Args:
            at_once: its next attempt may begin now; else after the delay that follows this attempt.

        Raises:
            Fenced: if the run was another's before.
            Stopping: if a stop was accepted before; the run is still ours and has to end in that.
        """
        for draft in closing:
            self._recorder.add(draft)
        await self._recorder.write()
        attempt = self._recorder.attempt
        delay_s = 0.0 if at_once else self._delay_s * _DELAY_GROWS ** (attempt - 1)
        if await answered(lambda: self._starts.release(self._claim, delay_s=delay_s)):
            log.warning("run %s waits for attempt %d, %g s at least", self._claim.run_id, attempt + 1, delay_s)
            if at_once:
                self._broker.work()

    async def restart(self) -> None:
        """Begins the next attempt; from now on it counts. Raises Fenced."""
        self._recorder.attempt += 1
        log.warning("run %s starts again (attempt %d)", self._claim.run_id, self._recorder.attempt)
        self._recorder.add(Draft(EventType.AGENT_STARTED, None, content=self._claim.text))
        await self._recorder.write()


async def answered(call: Callable[[], Awaitable[T]]) -> T:
    """What a call of the store returns, made again until the database answers."""
    while True:
        try:
            return await call()
        except StoreUnavailable:
            await asyncio.sleep(_UNAVAILABLE_RETRY_S)
