"""Finds runs that nobody works on: those of lost processes, those that wait for a slot, and those this one forgot."""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence

from agentws.core.run import RunKey, Ticket
from agentws.observe.meters import NodeMeter
from agentws.ports import Nodes, Renewal, Starts, StoreUnavailable
from agentws.runtime.worker import Worker

__all__ = ["Janitor"]

log = logging.getLogger("agentws.runtime")

_TAKE_OVER_LIMIT = 100


class Janitor:
    """
    Args:
        interval_s: how often it looks, in seconds; `wake` makes it look at once.
    """

    def __init__(
        self, nodes: Nodes, starts: Starts, *, agents: Sequence[str], interval_s: float, meter: NodeMeter
    ) -> None:
        self._nodes = nodes
        self._starts = starts
        self._agents = agents
        self._interval_s = interval_s
        self._meter = meter
        self._wake = asyncio.Event()
        self._unknown: frozenset[RunKey] = frozenset()
        self._orphans: frozenset[RunKey] = frozenset()
        self._known: Mapping[RunKey, int] = {}
        self._looking = asyncio.Lock()

    def wake(self) -> None:
        """Looks now."""
        self._wake.set()

    def note(self, worker: Worker) -> None:
        """Notes what is at work here when a renewal is asked for: all of it is this process's then, or was ended."""
        self._known = worker.known

    def heed(self, renewal: Renewal, worker: Worker) -> None:
        """Hands on the stop marks that a renewal brought, and notes runs of this process that it does not work on.

        Such a run was accepted by a call whose answer was lost. One that is unknown at two renewals is taken anew; its
        fence keeps a late answer from doing harm. One that was at work here when the renewal was asked for, and is not
        this process's any more, was ended elsewhere, with its thread.
        """
        for key in renewal.stops:
            worker.stop(key, None)
        known = worker.known
        for key, fence in known.items():
            # By its fence: it may have been released and claimed anew since the renewal was asked for.
            if key not in renewal.owned and self._known.get(key) == fence:
                worker.revoke(key)
        unknown = renewal.owned - known.keys()
        self._orphans = self._unknown & unknown
        self._unknown = unknown

    async def look(self, node: Callable[[], int | None], worker: Worker) -> None:
        """Looks at intervals until cancelled, while `node` may claim runs."""
        while True:
            self._wake.clear()
            try:
                async with self._looking:
                    await self._pick_up(node, worker)
            except StoreUnavailable as error:
                log.debug("cannot look for runs: %s", error)
            try:
                async with asyncio.timeout(self._interval_s):
                    await self._wake.wait()
            except TimeoutError:
                pass

    async def settled(self) -> None:
        """Waits for a look that is under way; what it claims is claimed by then."""
        async with self._looking:
            pass

    async def _pick_up(self, node: Callable[[], int | None], worker: Worker) -> None:
        if (node_id := node()) is None:
            return
        orphans = tuple(self._orphans - worker.known.keys())
        self._orphans = frozenset()
        for ticket in await self._nodes.take_over(node_id, orphans=orphans, limit=_TAKE_OVER_LIMIT):
            self._meter.took_over("orphan" if ticket.orphan else "released" if ticket.released else "lost")
            log.warning("took over run number %d under fence %d", ticket.run_no, ticket.fence)
            await self._begin(ticket, worker)
        # Asked again: the lease may have been lost meanwhile, or the process be going away.
        if worker.free and node() == node_id:
            limit = min(worker.free, _TAKE_OVER_LIMIT)
            for ticket in await self._nodes.claim_waiting(node_id, self._agents, limit=limit):
                if ticket.released:
                    self._meter.took_over("released")
                else:
                    self._meter.claimed()
                await self._begin(ticket, worker)

    async def _begin(self, ticket: Ticket, worker: Worker) -> None:
        claim = await self._starts.begin(ticket)
        if claim is not None:
            worker.start(claim)
