"""Works on claimed runs. `run` is the one way into a supervisor, wherever a claim comes from."""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import replace

from agentws.core.agent import AgentSpec
from agentws.core.run import Claim, RunKey
from agentws.observe.logs import bound
from agentws.runtime.recorder import publish_first
from agentws.runtime.supervisor import Services, Supervisor
from agentws.wire.ids import RunNo, request_id_of

__all__ = ["Worker"]

log = logging.getLogger("agentws.runtime")

_MOST_EARLY = 1_000


class Worker:
    """
    Args:
        services: what each supervisor is given.
        agents: the agents of this process.
        slots: how many runs may be at work here at once; 0: any number.
        on_free: called when a slot is free again after a run had to wait for one.
    """

    def __init__(
        self,
        services: Services,
        agents: Mapping[str, AgentSpec],
        *,
        slots: int,
        on_free: Callable[[], None],
    ) -> None:
        self._services = services
        self._agents = agents
        self._slots = slots
        self._on_free = on_free
        self._taken = 0
        self._short = False
        self._supervisors: dict[RunKey, Supervisor] = {}
        self._broken: set[RunKey] = set()
        self._early: OrderedDict[RunKey, str | None] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()
        self._left = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def free(self) -> int:
        """How many more runs may be at work here now."""
        return max(0, self._slots - self._held) if self._slots else 1_000

    @property
    def _held(self) -> int:
        """The slots that are taken: an agent that was left, since it does not end, keeps one until it does."""
        return self._taken + len(self._services.abandoned)

    @property
    def in_flight(self) -> int:
        """How many runs are at work here."""
        return len(self._supervisors)

    @property
    def known(self) -> Mapping[RunKey, int]:
        """The runs at work here, each with the fence under which it is; a copy."""
        return {key: supervisor.fence for key, supervisor in self._supervisors.items()}

    def works_on(self, run_no: RunNo) -> bool:
        """Whether a run is at work here, whosever it is."""
        return any(key.run_no == run_no for key in self._supervisors)

    def reserve(self) -> bool:
        """Takes a slot for a run that is being accepted; False where none is free."""
        if self._slots and self._held >= self._slots:
            self._short = True
            return False
        self._taken += 1
        return True

    def release(self) -> None:
        """Gives back a slot that was reserved."""
        self._taken -= 1
        if self._short:
            self._short = False
            self._on_free()

    def start(self, claim: Claim, *, reserved: bool = False) -> None:
        """Works on a claim in a task of its own. `reserved`: `reserve` has taken its slot."""
        if not reserved:
            self._taken += 1
        self._publish_first(claim)
        if not self._services.held(claim.owner):
            # The answer that brought it came after the loss of the lease: it is anybody's.
            log.warning("run %s is left: the lease under which it was claimed is lost", claim.run_id)
            self.release()
            return
        task = asyncio.get_running_loop().create_task(self._run_all(claim))
        self._tasks.add(task)
        self._idle.clear()
        task.add_done_callback(self._on_done)

    async def run(self, claim: Claim) -> Claim | None:
        """Works on a claim until its run has ended; returns the thread's next run where that has been claimed too."""
        key = RunKey(claim.principal.tenant_id, claim.principal.user_id, claim.run_no)
        while former := self._supervisors.get(key):
            if former.fence >= claim.fence:
                log.warning("run %s is at work here already; a second claim of it is dropped", claim.run_id)
                return None
            # It is not that one's any more, which may not have heard so: of a release, the answer may come late.
            former.revoke()
            self._left.clear()
            await self._left.wait()
        if key in self._broken:
            claim = replace(claim, lost=True)
        supervisor = Supervisor(claim, self._agents.get(claim.agent), self._services)
        self._supervisors[key] = supervisor
        if key in self._early:
            supervisor.stop(self._early.pop(key))
        self._services.metrics.runs.supervisors.add(supervisor)
        try:
            following = await supervisor.run()
            self._broken.discard(key)
            return following
        except Exception:
            # Its end could not be written. When it is found again its agent is not called again.
            self._broken.add(key)
            raise
        finally:
            del self._supervisors[key]
            self._left.set()

    def stop(self, key: RunKey, reason: str | None) -> None:
        """Stops a run if it is at work here; without a reason, it is asked for when the run ends.

        One that is not may be on its way: the answer that claimed it can come after the one that accepted its stop.
        """
        if supervisor := self._supervisors.get(key):
            supervisor.stop(reason)
            return
        self._early[key] = reason
        if len(self._early) > _MOST_EARLY:
            self._early.popitem(last=False)

    def revoke(self, key: RunKey) -> None:
        """Stops work on a run that was ended elsewhere, if it is at work here; nothing more is written of it."""
        if supervisor := self._supervisors.get(key):
            supervisor.revoke()

    def lose_all(self) -> None:
        """Ends what is at work here, because this process goes away: handed over, or in `worker_lost`."""
        for supervisor in tuple(self._supervisors.values()):
            supervisor.lose()

    def abandon_all(self) -> None:
        """Drops all runs at once, unwritten: others may take them."""
        for task in tuple(self._tasks):
            task.cancel()

    async def idle(self) -> None:
        """Waits until no run is at work here."""
        await self._idle.wait()

    async def _run_all(self, claim: Claim) -> None:
        """Works on a claim, and on the runs that wait behind it in its thread."""
        following: Claim | None = claim
        while following is not None:
            # This task was begun by a connection, and the next run may be of another one.
            with bound(
                run_id=following.run_id,
                request_id=request_id_of(following.run_no),
                thread_id=following.thread_id,
                connection_id=following.connection_id,
            ):
                following = await self.run(following)
            if following is not None:
                self._publish_first(following)

    def _publish_first(self, claim: Claim) -> None:
        """Tells of a claim's `agent_started`; here, so that it goes out with the answer to the start."""
        if not claim.lost:
            publish_first(claim, self._services.broker)

    def _on_done(self, task: "asyncio.Task[None]") -> None:
        # Here, because a task that is cancelled before its first step runs no line of its own.
        self.release()
        self._tasks.discard(task)
        if not self._tasks:
            self._idle.set()
        if not task.cancelled() and (error := task.exception()):
            log.error("a run's task failed inside the server", exc_info=error)
