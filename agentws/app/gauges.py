"""What of a service is measured when somebody asks for its metrics."""

from agentws.edge.websocket import Connections
from agentws.feed import Feed
from agentws.observe.metrics import Metrics
from agentws.runtime.drain import Drain
from agentws.runtime.lease import Lease
from agentws.runtime.supervisor import Services
from agentws.runtime.worker import Worker
from agentws.store.pool import Database

__all__ = ["add_run_gauges", "add_store_gauges"]


def add_run_gauges(
    metrics: Metrics, connections: Connections, *, feed: Feed, worker: Worker, services: Services
) -> None:
    """Runs, and who follows them."""
    gauge, threads = metrics.gauge, services.threads
    gauge("agentws_connections", "Connections that are open.", lambda: len(connections))
    gauge("agentws_subscriptions", "Threads followed by connections.", lambda: feed.subscriptions)
    gauge("agentws_queue_bytes", "Bytes that wait to be sent, of all connections.", lambda: connections.buffered)
    gauge("agentws_runs_in_flight", "Runs at work in this process.", lambda: worker.in_flight)
    gauge("agentws_abandoned_tasks", "Agents that were cancelled and go on.", lambda: len(services.abandoned))
    gauge("agentws_tool_threads", "Tool calls in a thread or waiting for one.", lambda: threads.at_work)
    gauge("agentws_abandoned_tool_threads", "Tool calls that nobody waits for.", lambda: threads.abandoned)


def add_store_gauges(metrics: Metrics, database: Database, lease: Lease, drain: Drain) -> None:
    """The database, and this process's place in it."""
    gauge, pool, text = metrics.gauge, "agentws_pool_connections", "Connections to the database."
    gauge(pool, text, lambda: database.busy, state="busy")
    gauge(pool, text, lambda: database.idle, state="idle")
    gauge("agentws_pool_size", "Calls of the database that may be at work at once.", lambda: database.size)
    gauge("agentws_pool_waiting", "Calls that wait for a connection to the database.", lambda: database.waiting)
    gauge("agentws_lease_held", "Whether this process holds its lease.", lambda: lease.node_id is not None)
    gauge("agentws_draining", "Whether this process goes away.", lambda: drain.begun)
