"""Joins the parts of a service over a database: what works on runs, what follows them, and the edges in front."""

from collections.abc import Awaitable, Callable, Collection, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field

from agentws.app.gauges import add_run_gauges, add_store_gauges
from agentws.app.hints import hint_tasks, make_broker, poll_interval
from agentws.broker.local import LocalBroker
from agentws.broker.postgres import PostgresBroker
from agentws.core.agent import AgentSpec
from agentws.core.limits import Buckets, StartLimits
from agentws.edge.admission import Admission
from agentws.edge.api import Api
from agentws.edge.auth import TokenAuthenticator
from agentws.edge.commands import Commands
from agentws.edge.connection import ConnectionLimits, Desk
from agentws.edge.host import Authenticate, HostAuthenticator
from agentws.edge.origins import Origins
from agentws.edge.websocket import Connections, WebSocketEdge
from agentws.feed import Feed
from agentws.observe.frames import FrameTally
from agentws.observe.metrics import Metrics
from agentws.observe.statistics import Statistics
from agentws.runtime.conversations import Conversations
from agentws.runtime.dispatcher import Dispatcher
from agentws.runtime.drain import Drain
from agentws.runtime.folder import Folder
from agentws.runtime.housekeeper import Housekeeper
from agentws.runtime.janitor import Janitor
from agentws.runtime.lease import Lease
from agentws.runtime.starting import Starter
from agentws.runtime.stopping import Stopper
from agentws.runtime.supervisor import Services
from agentws.runtime.sweeper import Sweeper
from agentws.runtime.tools import ToolThreads
from agentws.runtime.worker import Worker
from agentws.settings import Settings
from agentws.store.journal import PgJournal
from agentws.store.nodes import PgNodes
from agentws.store.pool import Database
from agentws.store.retention import PgRetention
from agentws.store.runs import PgStarts
from agentws.store.threads import PgThreads
from agentws.store.tickets import PgTickets

__all__ = ["TOOL_THREAD", "Parts", "Surroundings", "assemble"]

TOOL_THREAD = "agentws-tool"
_LOOK_INTERVAL_S = 1.0


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What the parts of a service have in common, and what outlives a start."""

    settings: Settings
    agents: Mapping[str, AgentSpec]
    connections: Connections
    metrics: Metrics
    statistics: Statistics
    authenticate: Authenticate | None


@dataclass(frozen=True, kw_only=True)
class Parts:
    """A service's parts.

    Args:
        tasks: what has to be kept going, by name; first of all, the lease has to be taken.
        abandoned: agents that were cancelled and go on.
    """

    lease: Lease
    worker: Worker
    drain: Drain
    feed: Feed
    edge: WebSocketEdge
    api: Api
    tasks: Mapping[str, Callable[[], Awaitable[None]]]
    abandoned: Collection[object]


@dataclass(frozen=True, kw_only=True)
class _Engine:
    """What works on runs."""

    broker: LocalBroker | PostgresBroker
    journal: PgJournal
    starts: PgStarts
    janitor: Janitor
    drain: Drain
    lease: Lease
    worker: Worker
    services: Services
    may_claim: Callable[[], int | None] = field(repr=False)


def assemble(around: Surroundings, database: Database, nodes: PgNodes, executor: Executor) -> Parts:
    """Makes the parts; nothing is begun.

    Args:
        executor: where tools that are not async run.
    """
    settings = around.settings
    engine = _make_engine(around, database, nodes, executor)
    feed = Feed(
        engine.journal,
        engine.broker,
        poll_interval_s=poll_interval(settings, engine.broker),
        meter=around.metrics.feed,
        statistics=around.statistics,
    )
    stopper = Stopper(starts=engine.starts, worker=engine.worker, broker=engine.broker, statistics=around.statistics)
    housekeeper = Housekeeper(nodes, stopper, follows=feed.follows, disconnect_grace_s=settings.disconnect_grace_s)
    retention = PgRetention(database)
    folder = Folder(nodes, retention)
    edge, api = _make_edges(around, database, engine, feed, stopper)
    add_run_gauges(around.metrics, around.connections, feed=feed, worker=engine.worker, services=engine.services)
    add_store_gauges(around.metrics, database, engine.lease, engine.drain)
    return Parts(
        lease=engine.lease,
        worker=engine.worker,
        drain=engine.drain,
        feed=feed,
        edge=edge,
        api=api,
        tasks={
            # First, because what is begun first ends last: the others may have something to tell until then.
            **hint_tasks(engine.broker, feed=feed, lease=engine.lease, janitor=engine.janitor, worker=engine.worker),
            "the lease": engine.lease.keep,
            "the search for runs": lambda: engine.janitor.look(engine.may_claim, engine.worker),
            "the feed": feed.poll,
            "the search for unfollowed runs": housekeeper.look,
            "the purge": housekeeper.purge,
            "the folding": folder.keep,
            **_sweeps(settings, nodes, retention),
            "the event loop's watch": around.metrics.watch_loop,
        },
        abandoned=engine.services.abandoned,
    )


def _sweeps(settings: Settings, nodes: PgNodes, retention: PgRetention) -> Mapping[str, Callable[[], Awaitable[None]]]:
    """The removal of old events, where they are not kept for ever."""
    if not settings.event_retention_days:
        return {}
    sweeper = Sweeper(nodes, retention, keep_s=settings.event_retention_days * 86400)
    return {"the removal of old events": sweeper.keep}


def _make_engine(around: Surroundings, database: Database, nodes: PgNodes, executor: Executor) -> _Engine:
    settings, meter, agents = around.settings, around.metrics.node, around.agents
    journal, broker = PgJournal(database), make_broker(settings, database, around.metrics)
    limits = StartLimits(
        threads=settings.max_threads_per_user, runs=settings.max_runs_per_user, waiting=settings.max_waiting_runs
    )
    starts = PgStarts(database, limits)
    janitor = Janitor(nodes, starts, agents=tuple(agents), interval_s=_LOOK_INTERVAL_S, meter=meter)
    drain = Drain(
        grace_s=settings.drain_grace_s,
        stop_grace_s=settings.stop_grace_s,
        announce=lambda ms: around.connections.announce_drain(within_ms=ms),
        settled=janitor.settled,
    )
    lease = _make_lease(around, nodes, janitor, lambda: worker)

    def may_claim() -> int | None:
        return None if drain.begun else lease.node_id

    services = _make_services(
        around, journal=journal, starts=starts, broker=broker, executor=executor, may_claim=may_claim, lease=lease
    )
    worker = Worker(services, agents, slots=settings.max_runs, on_free=janitor.wake)
    return _Engine(
        broker=broker,
        journal=journal,
        starts=starts,
        janitor=janitor,
        drain=drain,
        lease=lease,
        worker=worker,
        services=services,
        may_claim=may_claim,
    )


def _make_lease(around: Surroundings, nodes: PgNodes, janitor: Janitor, worker: Callable[[], Worker]) -> Lease:
    """A lease that keeps what is at work here in step with what the database says of it."""
    return Lease(
        nodes,
        ttl_s=around.settings.lease_ttl_s,
        agents=tuple(around.agents),
        on_asked=lambda: janitor.note(worker()),
        on_renewed=lambda renewal: janitor.heed(renewal, worker()),
        on_lost=lambda: worker().abandon_all(),
        meter=around.metrics.node,
    )


def _make_services(
    around: Surroundings,
    *,
    journal: PgJournal,
    starts: PgStarts,
    broker: LocalBroker | PostgresBroker,
    executor: Executor,
    may_claim: Callable[[], int | None],
    lease: Lease,
) -> Services:
    settings = around.settings
    return Services(
        journal=journal,
        starts=starts,
        broker=broker,
        threads=ToolThreads(executor),
        next_owner=may_claim,
        held=lease.is_held_as,
        agents=tuple(around.agents),
        run_timeout_s=settings.run_timeout_s,
        restart_delay_s=settings.restart_delay_s,
        stop_grace_s=settings.stop_grace_s,
        piece_interval_s=settings.piece_interval_ms / 1000,
        run_buffer_bytes=settings.run_buffer_bytes,
        metrics=around.metrics,
        statistics=around.statistics,
    )


def _make_edges(
    around: Surroundings, database: Database, engine: _Engine, feed: Feed, stopper: Stopper
) -> tuple[WebSocketEdge, Api]:
    settings, tickets = around.settings, PgTickets(database)
    threads = PgThreads(database, most=settings.max_threads_per_user)
    tally = FrameTally(around.metrics.edge, around.statistics)
    host = None if around.authenticate is None else HostAuthenticator(around.authenticate)
    authenticator = host or TokenAuthenticator(settings, tickets)
    admission = Admission(origins=Origins(settings.origins), authenticate=authenticator)
    desk = Desk(
        feed=feed,
        commands=Commands(_make_dispatcher(around, engine, stopper, threads, tally), tally),
        buckets=Buckets(rate=settings.rate_limit_per_s, burst=settings.rate_limit_burst),
        check_token=authenticator.check_token,
        limits=ConnectionLimits(buffer_bytes=settings.send_buffer_bytes, subscriptions=settings.max_subscriptions),
    )
    edge = WebSocketEdge(
        admission=admission,
        connections=around.connections,
        desk=desk,
        heartbeat_interval_s=settings.heartbeat_interval_s,
        limits={
            "max_message_bytes": settings.max_message_bytes,
            "max_subscriptions": settings.max_subscriptions,
            "rate_limit_per_s": settings.rate_limit_per_s,
            "rate_limit_burst": settings.rate_limit_burst,
        },
    )
    api = Api(
        admission=admission,
        desk=desk,
        connections=around.connections,
        journal=engine.journal,
        threads=threads,
        tickets=None if host else tickets,
        max_message_bytes=settings.max_message_bytes,
        heartbeat_interval_s=settings.heartbeat_interval_s,
    )
    return edge, api


def _make_dispatcher(
    around: Surroundings, engine: _Engine, stopper: Stopper, threads: PgThreads, tally: FrameTally
) -> Dispatcher:
    starter = Starter(
        starts=engine.starts,
        broker=engine.broker,
        worker=engine.worker,
        stopper=stopper,
        agents=around.agents,
        default_agent=next(iter(around.agents)),
        node=engine.may_claim,
        draining=lambda: engine.drain.retry_after_ms,
        tally=tally,
        meter=around.metrics.runs,
    )
    conversations = Conversations(
        threads=threads,
        journal=engine.journal,
        broker=engine.broker,
        worker=engine.worker,
        statistics=around.statistics,
    )
    return Dispatcher(starter=starter, stopper=stopper, conversations=conversations)
