"""Stops runs, wherever they are at work: accepted in the database first, hurried here, heard of elsewhere."""

from agentws.core.context import Principal
from agentws.core.replay import Batch
from agentws.core.run import RunKey, Stopped
from agentws.observe.statistics import Statistics
from agentws.ports import Broker, Starts, ThreadKey
from agentws.runtime.worker import Worker
from agentws.wire.ids import RunId, RunNo, ThreadId

__all__ = ["Stopper"]


class Stopper:
    """
    Args:
        worker: what is at work here.
        broker: who is told of what was ended.
        statistics: where the runs count that end here.
    """

    def __init__(self, *, starts: Starts, worker: Worker, broker: Broker, statistics: Statistics) -> None:
        self._statistics = statistics
        self._starts = starts
        self._worker = worker
        self._broker = broker

    async def stop(
        self,
        principal: Principal,
        *,
        run_id: RunId | None = None,
        run_no: RunNo | None = None,
        thread_id: ThreadId | None = None,
        reason: str,
    ) -> Stopped:
        """Stops a run by its id or number, or all runs of a thread; of the three the first given counts.

        Raises:
            Fault: `run_not_found`, `thread_not_found`.
            StoreUnavailable: if the database did not answer; a repeated stop does no harm.
        """
        stopped = await self._starts.stop(principal, run_id=run_id, run_no=run_no, thread_id=thread_id, reason=reason)
        for ended, kind in stopped.ended:
            self._statistics.run_ended(kind, "stopped", RunKey(principal.tenant_id, principal.user_id, ended))
        for running in stopped.running:
            self.hurry(principal, running, reason)
        hint = Batch(epoch=stopped.epoch, after_seq=stopped.last_seq, last_seq=stopped.last_seq)
        self._broker.publish(ThreadKey(principal, stopped.thread_id), hint)
        return stopped

    def hurry(self, principal: Principal, run_no: RunNo, reason: str) -> None:
        """Tells a run that it has to stop, which has been accepted already, wherever it is at work."""
        is_here = self._worker.works_on(run_no)
        # Told in any case: it may be on its way to here.
        self._worker.stop(RunKey(principal.tenant_id, principal.user_id, run_no), reason)
        if not is_here:
            self._broker.stop(run_no)
