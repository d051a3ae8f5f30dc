"""Removes events that are older than they are to be kept, of all threads, in bounded steps."""

import asyncio
import logging

from agentws.ports import Nodes, Retention, StoreUnavailable, ThreadKey

__all__ = ["Sweeper"]

log = logging.getLogger("agentws.runtime")

SWEEP_INTERVAL_S = 600.0
_PAUSE_S = 0.05
_MOST_THREADS = 500
_MOST_EVENTS = 1000


class Sweeper:
    """
    Args:
        keep_s: how long events are kept, in seconds.
    """

    def __init__(self, nodes: Nodes, retention: Retention, *, keep_s: float) -> None:
        self._nodes = nodes
        self._retention = retention
        self._keep_s = keep_s

    async def keep(self) -> None:
        """Sweeps at intervals until cancelled."""
        while True:
            try:
                await self.sweep()
            except StoreUnavailable as error:
                log.debug("cannot remove old events: %s", error)
            await asyncio.sleep(SWEEP_INTERVAL_S)

    async def sweep(self) -> int:
        """Goes once through all threads; how many events went. Raises StoreUnavailable."""
        removed = 0
        after: ThreadKey | None = None
        while True:
            aged, after = await self._nodes.find_aged(after, older_than_s=self._keep_s, limit=_MOST_THREADS)
            for thread in aged:
                removed += await self._remove(thread)
            if after is None:
                return removed
            await asyncio.sleep(_PAUSE_S)

    async def _remove(self, thread: ThreadKey) -> int:
        removed = 0
        while True:
            step = await self._retention.remove_aged(thread, older_than_s=self._keep_s, limit=_MOST_EVENTS)
            removed += step
            if step < _MOST_EVENTS:
                return removed
            # A long thread goes step by step, with room between for those who write to it.
            await asyncio.sleep(_PAUSE_S)
