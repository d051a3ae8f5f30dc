"""How this process hears of others: the broker that the settings name, and what becomes of what it hears."""

from collections.abc import Awaitable, Callable, Mapping

from agentws.broker.local import LocalBroker
from agentws.broker.postgres import PostgresBroker, Reactions
from agentws.feed import Feed
from agentws.observe.metrics import Metrics
from agentws.runtime.janitor import Janitor
from agentws.runtime.lease import Lease
from agentws.runtime.worker import Worker
from agentws.settings import Settings
from agentws.store.pool import Database
from agentws.wire.ids import RunNo

__all__ = ["hint_tasks", "make_broker", "poll_interval"]


def make_broker(settings: Settings, database: Database, metrics: Metrics) -> LocalBroker | PostgresBroker:
    """The broker of a process; it does nothing between processes until its tasks are begun."""
    if settings.broker == "postgres":
        return PostgresBroker(database.listen, feed_meter=metrics.feed, meter=metrics.hints)
    return LocalBroker(metrics.feed)


def poll_interval(settings: Settings, broker: LocalBroker | PostgresBroker) -> Callable[[], float]:
    """How long the feed waits before it looks for what was not heard of, in seconds.

    While hints do not reach this process that is as long as where there are none.
    """

    def interval() -> float:
        hears = isinstance(broker, PostgresBroker) and broker.hears
        return (settings.reconcile_interval_ms if hears else settings.poll_interval_ms) / 1000

    return interval


def hint_tasks(
    broker: LocalBroker | PostgresBroker, *, feed: Feed, lease: Lease, janitor: Janitor, worker: Worker
) -> Mapping[str, Callable[[], Awaitable[None]]]:
    """What has to be kept going, by name, for hints between processes."""
    if not isinstance(broker, PostgresBroker):
        return {}

    def listening() -> None:
        # Both events and stops may have been missed.
        feed.reconcile()
        lease.hurry()

    def stop(run_no: RunNo) -> bool:
        is_here = worker.works_on(run_no)
        if is_here:
            lease.hurry()
        return is_here

    def work() -> None:
        if worker.free:
            janitor.wake()

    reactions = Reactions(listening=listening, lost=feed.reconcile, stop=stop, work=work)
    return {"the hints": lambda: broker.keep(reactions)}
