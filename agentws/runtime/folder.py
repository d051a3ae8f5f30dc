"""Folds runs that have ended: their pieces of text become few events, so that a journal grows with answers, not pieces.

Each step is a transaction of its own. It may be begun by several processes, and be given up at any point.
"""

import asyncio
import logging

from agentws.core.fold import groups
from agentws.core.framing import first_of
from agentws.core.run import Foldable
from agentws.ports import Nodes, Retention, StoreUnavailable

__all__ = ["Folder"]

log = logging.getLogger("agentws.runtime")

LOOK_INTERVAL_S = 2.0
_AGE_S = 10.0
_MOST_RUNS = 50
PAGE = 500
_PAGE_BYTES = 1 << 20


class Folder:
    """
    Args:
        age_s: how long a run stays as it was written after its end, in seconds: its followers are sent it as it came.
    """

    def __init__(self, nodes: Nodes, retention: Retention, *, age_s: float = _AGE_S) -> None:
        self._nodes = nodes
        self._retention = retention
        self._age_s = age_s

    async def keep(self) -> None:
        """Folds at intervals what is due, until cancelled."""
        while True:
            folded = 0
            try:
                folded = await self.fold_due()
            except StoreUnavailable as error:
                log.debug("cannot fold: %s", error)
            if folded < _MOST_RUNS:
                await asyncio.sleep(LOOK_INTERVAL_S)

    async def fold_due(self) -> int:
        """Folds the runs that are due, a bounded number; how many. Raises StoreUnavailable."""
        due = await self._nodes.claim_folds(older_than_s=self._age_s, limit=_MOST_RUNS)
        for run in due:
            try:
                await self.fold(run)
            except StoreUnavailable:
                raise
            except Exception:
                # One that cannot be folded must not keep the others from it.
                log.exception("cannot fold the run with the number %d", run.run_no)
        return len(due)

    async def fold(self, run: Foldable) -> None:
        """Folds one run, page by page. Raises StoreUnavailable."""
        after = 0
        while True:
            page = await self._retention.read_foldable(run, after_seq=after, limit=PAGE, most_bytes=_PAGE_BYTES)
            found = groups(page.events)
            as_read = await self._retention.fold(run, found, last=not page.more)
            if not as_read or not page.more:
                return
            # The last event of a page may go on in the next one, which begins with what it is now.
            last = page.events[-1][1]
            start = found[-1].from_seq if found and found[-1].seq == last.seq else first_of(last)
            after = start - 1 if found or start - 1 > after else last.seq
