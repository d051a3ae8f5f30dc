"""What has to be done now and then: runs stop whose thread nobody follows, and rows go that nobody can reach."""

import asyncio
import logging
from collections.abc import Callable, Sequence

from agentws.core.run import Unfollowed
from agentws.ports import Nodes, StoreUnavailable, ThreadKey
from agentws.runtime.clock import now
from agentws.runtime.stopping import Stopper
from agentws.wire.errors import Fault

__all__ = ["Housekeeper"]

log = logging.getLogger("agentws.runtime")

LOOK_INTERVAL_S = 1.0
_PURGE_INTERVAL_S = 10.0
_PURGE_AGE_S = 60.0
_PURGE_ROWS = 1000
_MOST_RUNS = 1000
# A start may be repeated for a day; a client that was away for that long has as much again.
_KEY_AGE_S = 48 * 3600.0


class Housekeeper:
    """
    Args:
        follows: whether anybody follows a thread in this process.
        disconnect_grace_s: how long nobody may follow the thread of a run that is to stop then, in seconds.
    """

    def __init__(
        self, nodes: Nodes, stopper: Stopper, *, follows: Callable[[ThreadKey], bool], disconnect_grace_s: float
    ) -> None:
        self._nodes = nodes
        self._stopper = stopper
        self._follows = follows
        # That somebody follows is noted at each look: the note is up to one interval old when the last one goes.
        self._most_idle_s = disconnect_grace_s + LOOK_INTERVAL_S
        # Since when looks have followed each other without a gap in which all notes, also other processes', may have
        # grown too old; and when the last look was.
        self._steady_since = now()
        self._looked_at = 0.0

    async def look(self) -> None:
        """Stops unfollowed runs at intervals until cancelled."""
        while True:
            await asyncio.sleep(LOOK_INTERVAL_S)
            try:
                await self._look()
            except StoreUnavailable as error:
                log.debug("cannot look for unfollowed runs: %s", error)

    async def purge(self) -> None:
        """Removes what nobody can reach, at intervals, in bounded steps, until cancelled."""
        while True:
            removed = 0
            try:
                removed = await self._nodes.purge(older_than_s=_PURGE_AGE_S, limit=_PURGE_ROWS)
                removed += await self._nodes.purge_keys(older_than_s=_KEY_AGE_S, limit=_PURGE_ROWS)
            except StoreUnavailable as error:
                log.debug("cannot purge: %s", error)
            # A large thread goes step by step, with room for others between.
            await asyncio.sleep(0.1 if removed else _PURGE_INTERVAL_S)

    async def _look(self) -> None:
        found = await self._nodes.find_unfollowed(limit=_MOST_RUNS)
        followed: list[Unfollowed] = []
        unfollowed: list[Unfollowed] = []
        for run in found:
            follows = self._follows(ThreadKey(run.principal, run.thread_id))
            (followed if follows else unfollowed).append(run)
        if followed:
            await self._nodes.mark_followed(followed)
        looked_at = now()
        if looked_at - self._looked_at > self._most_idle_s + LOOK_INTERVAL_S:
            # The first look, or the database was away, or this process paused: others, of which nothing is known here,
            # get a whole time to note what is followed there.
            self._steady_since = looked_at
        self._looked_at = looked_at
        if looked_at - self._steady_since >= self._most_idle_s:
            await self._stop([run for run in unfollowed if run.idle_s >= self._most_idle_s])

    async def _stop(self, runs: Sequence[Unfollowed]) -> None:
        for run in runs:
            try:
                await self._stopper.stop(run.principal, run_no=run.run_no, reason="disconnected")
            except Fault as fault:
                # It ended with its thread meanwhile.
                log.debug("run number %d cannot be stopped: %s", run.run_no, fault.code)
