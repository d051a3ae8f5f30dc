"""How a process goes away: it takes no new runs, gives those at work a time to end, and hands over or ends the rest."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress

from agentws.runtime.worker import Worker

__all__ = ["Drain"]

log = logging.getLogger("agentws.runtime")

_SETTLE_S = 1.0
_WRITE_S = 5.0


class Drain:
    """
    Args:
        grace_s: how long runs at work may take to end, in seconds.
        stop_grace_s: how long an agent may take to end after it was cancelled, in seconds.
        announce: tells clients to come back within so many milliseconds.
        settled: waits until nothing is being claimed that was begun to be before.
    """

    def __init__(
        self,
        *,
        grace_s: float,
        stop_grace_s: float,
        announce: Callable[[int], None],
        settled: Callable[[], Awaitable[None]],
    ) -> None:
        self._settled = settled
        self._grace_s = grace_s
        self._stop_grace_s = stop_grace_s
        self._announce = announce
        self._hurry = asyncio.Event()
        self._begun = False

    @property
    def begun(self) -> bool:
        """Whether this process goes away."""
        return self._begun

    @property
    def retry_after_ms(self) -> int | None:
        """When what is refused now may be tried again; None while nothing is refused."""
        return max(1000, int(self._grace_s * 1000)) if self._begun else None

    def hurry(self) -> None:
        """Ends the time that runs were given. Safe to call more than once."""
        self._hurry.set()

    async def run(self, worker: Worker) -> None:
        """Goes through the phases; returns when no run is at work here any more. A second call waits for nothing."""
        if self._begun:
            return
        self._begun = True
        with suppress(TimeoutError):
            async with asyncio.timeout(_SETTLE_S):
                await self._settled()
        log.info("draining: %d runs at work", worker.in_flight)
        self._announce(self.retry_after_ms or 0)
        idle = asyncio.ensure_future(worker.idle())
        hurried = asyncio.ensure_future(self._hurry.wait())
        try:
            await asyncio.wait((idle, hurried), timeout=self._grace_s, return_when=asyncio.FIRST_COMPLETED)
            if worker.in_flight:
                log.warning("drained: %d runs are handed over or ended unfinished", worker.in_flight)
                worker.lose_all()
                await asyncio.wait((idle,), timeout=self._stop_grace_s + _WRITE_S)
        finally:
            idle.cancel()
            hurried.cancel()
        worker.abandon_all()
