"""This process's lease. While it holds, others leave its runs alone; before it runs out, its runs have been dropped.

The lease runs by the database's clock; this process counts two thirds of it by its own, from before it asked. That
clock goes on while the process is paused: after a pause the lease is known to be lost before any timer has said so.
"""

import asyncio
import logging
import os
import secrets
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress

from agentws.observe.meters import NodeMeter
from agentws.ports import Nodes, Renewal, StoreUnavailable
from agentws.runtime.clock import now

__all__ = ["Lease"]

log = logging.getLogger("agentws.runtime")

_RETRY_S = 0.2


class Lease:
    """
    Args:
        nodes: where leases are kept.
        ttl_s: how long one lasts, in seconds.
        agents: those that this process can call.
        on_renewed: told what each renewal brought.
        on_asked: called before each renewal is asked for.
        on_lost: called when runs of this process may be taken by others soon.
        meter: told of renewals and losses.
    """

    def __init__(
        self,
        nodes: Nodes,
        *,
        ttl_s: float,
        agents: Sequence[str],
        on_renewed: Callable[[Renewal], None],
        on_lost: Callable[[], None],
        on_asked: Callable[[], None] = lambda: None,
        meter: NodeMeter | None = None,
    ) -> None:
        self._nodes = nodes
        self._ttl_s = ttl_s
        self._agents = agents
        self._on_renewed = on_renewed
        self._on_lost = on_lost
        self._on_asked = on_asked
        self._meter = meter or NodeMeter()
        self._node_id = 0
        self._good_until = 0.0
        self._held = False
        self._timer: asyncio.TimerHandle | None = None
        self._hurried = asyncio.Event()

    @property
    def held(self) -> bool:
        """Whether nobody may have taken over what this process works on. May be asked from any thread."""
        return self._held and now() < self._good_until

    def is_held_as(self, node_id: int | None) -> bool:
        """Whether `held`, and under this node: what was claimed for an earlier one is not this process's."""
        return self.held and self._node_id == node_id

    @property
    def node_id(self) -> int | None:
        """This process's node, while its lease is held."""
        return self._node_id if self.held else None

    async def take(self) -> None:
        """Takes a new lease. Raises StoreUnavailable."""
        asked = now()
        # Never 0, which is the owner of runs that were released.
        node_id = 1 + secrets.randbits(62)
        name = f"{socket.gethostname()}:{os.getpid()}"
        await self._nodes.register(node_id, name, ttl_s=self._ttl_s, agents=self._agents)
        self._node_id = node_id
        self._held = True
        self._hold_until(asked + self._ttl_s * 2 / 3)

    async def keep(self) -> None:
        """Renews the lease until cancelled; takes a new one where it was lost."""
        wait_s = self._ttl_s / 3
        while True:
            await self._pause(max(0.0, min(wait_s, self._good_until - now())) if self._held else wait_s)
            try:
                wait_s = self._ttl_s / 3 if await self._renew() else _RETRY_S
            except StoreUnavailable as error:
                self._meter.renewal("unanswered")
                log.warning("the lease was not renewed: %s", error)
                wait_s = _RETRY_S

    def hurry(self) -> None:
        """Renews now: somebody has stopped or ended a run of this process. Asked for several times, it is done once."""
        self._hurried.set()

    async def give_up(self) -> None:
        """Ends the lease; what this process still holds may be taken at once."""
        self._held = False
        self._disarm()
        with suppress(StoreUnavailable):
            await self._nodes.remove(self._node_id)

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._hurried.wait()
        # What is asked for from now on is asked for again: the renewal that comes may be too early for it.
        self._hurried.clear()

    async def _renew(self) -> bool:
        if not self.held:
            # The clock may know of it before the timer does.
            self._lose()
            await self.take()
            return True
        asked = now()
        self._on_asked()
        try:
            async with asyncio.timeout(max(0.0, self._good_until - asked)):
                renewal = await self._nodes.renew(self._node_id, ttl_s=self._ttl_s)
        except TimeoutError:
            self._meter.renewal("unanswered")
            return False
        # It may have been lost while the answer was on its way, or the answer have lain here during a pause.
        if not renewal.alive or not self.held:
            self._meter.renewal("refused")
            self._lose()
            return False
        self._meter.renewal("renewed")
        self._hold_until(asked + self._ttl_s * 2 / 3)
        self._on_renewed(renewal)
        return True

    def _hold_until(self, until: float) -> None:
        """Sets the end of the lease; it comes by a timer of its own, whatever a call to the database is doing."""
        self._disarm()
        self._good_until = until
        self._timer = asyncio.get_running_loop().call_later(max(0.0, until - now()), self._lose)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _lose(self) -> None:
        self._disarm()
        if not self._held:
            return
        self._held = False
        self._meter.lease_lost()
        log.error("the lease was lost; the runs of this process are dropped and will be taken over")
        self._on_lost()
