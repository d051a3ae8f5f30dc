"""The composition root: the one place that picks implementations and joins them.

`Service` is everything between the database and the edge, with a start and a stop; `create_app` is the ASGI
application around it.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.types import Receive, Scope, Send

from agentws.agents.demo import make_demo
from agentws.broker.local import LocalBroker
from agentws.core.agent import declare
from agentws.core.limits import Buckets, StartLimits
from agentws.edge.admission import Admission
from agentws.edge.auth import TokenAuthenticator
from agentws.edge.commands import Commands
from agentws.edge.connection import ConnectionLimits, Desk
from agentws.edge.host import Authenticate, HostAuthenticator
from agentws.edge.http import health_routes, page_routes
from agentws.edge.origins import Origins
from agentws.edge.started import OnceStarted
from agentws.edge.websocket import Connections, WebSocketEdge
from agentws.feed import Feed
from agentws.observe.metrics import Metrics
from agentws.observe.statistics import Statistics
from agentws.ports import Renewal, StoreUnavailable
from agentws.runtime.conversations import Conversations
from agentws.runtime.dispatcher import Dispatcher
from agentws.runtime.drain import Drain
from agentws.runtime.housekeeper import Housekeeper
from agentws.runtime.janitor import Janitor
from agentws.runtime.lease import Lease
from agentws.runtime.starting import Starter
from agentws.runtime.stopping import Stopper
from agentws.runtime.supervisor import Services
from agentws.runtime.tools import ToolThreads
from agentws.runtime.worker import Worker
from agentws.settings import Settings, lifted, refusal
from agentws.store.journal import PgJournal
from agentws.store.nodes import PgNodes
from agentws.store.opening import find_database, open_database
from agentws.store.pool import Database
from agentws.store.runs import PgStarts
from agentws.store.threads import PgThreads
from agentws.store.tickets import PgTickets

__all__ = ["TOOL_THREAD", "Service", "create_app", "lifespan"]

log = logging.getLogger("agentws")

TOOL_THREADS = 64
TOOL_THREAD = "agentws-tool"
_LOOK_INTERVAL_S = 1.0
_CLOSE_WAIT_S = 2.0


class Service:
    """One server process: database, lease, worker, feed and edge, from `start` to `stop`.

    Args:
        settings: as loaded.
        agents: name → agent, the first being the default one; `demo` is added where it is not among them.
        authenticate: who is signed in, as the host says; it decides alone. None: the settings do.
    """

    def __init__(
        self, settings: Settings, agents: Mapping[str, Any] | None = None, *, authenticate: Authenticate | None = None
    ) -> None:
        if settings.auth == "host" and authenticate is None:
            raise refusal("auth", "is 'host', which is for an application that gives create_app its authenticate")
        named = declare({**(agents or {})})
        if "demo" not in named:
            named |= declare({"demo": make_demo(settings.demo_words_per_s)})
        self.settings = settings
        self.agents = named
        self.connections = Connections(most=settings.max_connections, most_per_user=settings.max_connections_per_user)
        self.metrics = Metrics(tuple(named))
        self.statistics = Statistics(
            runs_in_flight=lambda: self._worker.in_flight if self._worker else 0,
            connections=lambda: len(self.connections),
        )
        self._authenticate = authenticate
        self._stack = AsyncExitStack()
        self._started = False
        self.feed: Feed | None = None
        self._edge: WebSocketEdge | None = None
        self._worker: Worker | None = None
        self._nodes: PgNodes | None = None
        self._drain: Drain | None = None

    @property
    def edge(self) -> WebSocketEdge | None:
        """The WebSocket application; None before `start` and after `stop`."""
        return self._edge

    async def start(self) -> None:
        """Starts everything; what was started is stopped again where something fails.

        Raises:
            SettingsError, StoreUnavailable, EmbeddedError, MigrationError: with what is wrong and what to do.
        """
        for line in lifted(self.settings):
            log.warning("%s", line)
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise

    async def stop(self) -> None:
        """Goes through the drain where that has not been done, and stops everything."""
        await self.drain()
        self._edge = None
        await self._stack.aclose()

    async def drain(self) -> None:
        """Takes no new runs, tells clients, waits for the runs at work, and closes all connections (1001)."""
        if self._drain is None or self._worker is None or self._drain.begun:
            return
        await self._drain.run(self._worker)
        self.connections.close_all(1001, "going away")
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_WAIT_S):
                await self.connections.none_open()

    def hurry(self) -> None:
        """Ends the time that a drain gives to runs at work."""
        if self._drain is not None:
            self._drain.hurry()

    async def not_ready(self) -> str | None:
        """Why this process should get no traffic now; None where it may."""
        if self._nodes is None or self._edge is None:
            return "not started"
        if self._drain is not None and self._drain.begun:
            return "draining"
        try:
            return None if await self._nodes.schema_is_current() else "the schema is not current"
        except StoreUnavailable:
            return "the database cannot be reached"

    async def _start(self) -> None:
        found = await find_database(self.settings, self._stack)
        if found.watch is not None:
            self._keep("the embedded PostgreSQL", found.watch)
        database = await open_database(found, self.settings, self._stack, meter=self.metrics.store)
        self._nodes = PgNodes(database)
        await self._assemble(database, self._nodes)

    async def _assemble(self, database: Database, nodes: PgNodes) -> None:
        settings, journal = self.settings, PgJournal(database)
        broker = LocalBroker(self.metrics.feed)
        meter = self.metrics.node
        limits = StartLimits(
            threads=settings.max_threads_per_user,
            runs=settings.max_runs_per_user,
            waiting=settings.max_waiting_runs,
        )
        starts = PgStarts(database, limits)
        janitor = Janitor(nodes, starts, agents=tuple(self.agents), interval_s=_LOOK_INTERVAL_S, meter=meter)
        drain = Drain(grace_s=settings.drain_grace_s, announce=lambda ms: self.connections.announce_drain(within_ms=ms))

        def renewed(renewal: Renewal) -> None:
            janitor.heed(renewal, worker)

        lease = Lease(
            nodes,
            ttl_s=settings.lease_ttl_s,
            on_renewed=renewed,
            on_lost=lambda: worker.abandon_all(),
            meter=meter,
        )

        def may_claim() -> int | None:
            return None if drain.begun else lease.node_id

        services = self._services(journal, starts, broker, next_owner=may_claim)
        worker = Worker(services, self.agents, slots=settings.max_runs, on_free=janitor.wake)
        feed = Feed(
            journal,
            broker,
            poll_interval_s=settings.poll_interval_ms / 1000,
            buffer_bytes=settings.send_buffer_bytes,
            meter=self.metrics.feed,
            statistics=self.statistics,
        )
        await lease.take()
        self._stack.push_async_callback(lease.give_up)
        self._stack.push_async_callback(feed.close)
        self._stack.callback(worker.abandon_all)
        self._keep("the lease", lease.keep)
        self._keep("the search for runs", lambda: janitor.look(may_claim, worker))
        self._keep("the feed", feed.poll)
        self._keep("the event loop's watch", self.metrics.watch_loop)
        stopper = Stopper(starts=starts, worker=worker, broker=broker)
        housekeeper = Housekeeper(nodes, stopper, follows=feed.follows, disconnect_grace_s=settings.disconnect_grace_s)
        self._keep("the search for unfollowed runs", housekeeper.look)
        self._keep("the purge", housekeeper.purge)
        starter = Starter(
            starts=starts,
            broker=broker,
            worker=worker,
            stopper=stopper,
            agents=self.agents,
            default_agent=next(iter(self.agents)),
            node=may_claim,
            draining=lambda: drain.retry_after_ms,
        )
        threads = PgThreads(database, most=settings.max_threads_per_user)
        conversations = Conversations(threads=threads, journal=journal, broker=broker, worker=worker)
        dispatcher = Dispatcher(starter=starter, stopper=stopper, conversations=conversations)
        self.feed, self._drain, self._worker = feed, drain, worker
        _add_gauges(self.metrics.gauge, self.connections, feed=feed, worker=worker, services=services)
        _add_store_gauges(self.metrics.gauge, database, lease, drain)
        self._edge = self._websocket_edge(feed, dispatcher, PgTickets(database))

    def _services(
        self, journal: PgJournal, starts: PgStarts, broker: LocalBroker, *, next_owner: Callable[[], int | None]
    ) -> Services:
        settings = self.settings
        executor = ThreadPoolExecutor(TOOL_THREADS, thread_name_prefix=TOOL_THREAD)
        self._stack.callback(executor.shutdown, wait=False, cancel_futures=True)
        return Services(
            journal=journal,
            starts=starts,
            broker=broker,
            threads=ToolThreads(executor),
            next_owner=next_owner,
            agents=tuple(self.agents),
            run_timeout_s=settings.run_timeout_s,
            stop_grace_s=settings.stop_grace_s,
            piece_interval_s=settings.piece_interval_ms / 1000,
            run_buffer_bytes=settings.run_buffer_bytes,
            metrics=self.metrics,
            statistics=self.statistics,
        )

    def _websocket_edge(self, feed: Feed, dispatcher: Dispatcher, tickets: PgTickets) -> WebSocketEdge:
        settings = self.settings
        host = HostAuthenticator(self._authenticate) if self._authenticate is not None else None
        authenticator = host or TokenAuthenticator(settings, tickets)
        return WebSocketEdge(
            admission=Admission(origins=Origins(settings.origins), authenticate=authenticator),
            connections=self.connections,
            desk=Desk(
                feed=feed,
                commands=Commands(dispatcher),
                buckets=Buckets(rate=settings.rate_limit_per_s, burst=settings.rate_limit_burst),
                check_token=authenticator.check_token,
                limits=ConnectionLimits(
                    buffer_bytes=settings.send_buffer_bytes, subscriptions=settings.max_subscriptions
                ),
            ),
            heartbeat_interval_s=settings.heartbeat_interval_s,
            limits={
                "max_message_bytes": settings.max_message_bytes,
                "rate_limit_per_s": settings.rate_limit_per_s,
                "rate_limit_burst": settings.rate_limit_burst,
                "max_subscriptions": settings.max_subscriptions,
            },
        )

    def _keep(self, name: str, call: Callable[[], Awaitable[None]]) -> None:
        """Runs something that never ends until the service stops; a failure is logged, and it is begun again."""

        async def run() -> None:
            while True:
                try:
                    await call()
                except Exception:
                    log.exception("%s failed; it is begun again", name)
                    await asyncio.sleep(1)

        task = asyncio.get_running_loop().create_task(run(), name=name)

        async def end() -> None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        self._stack.push_async_callback(end)


def _add_gauges(
    gauge: Callable[..., None], connections: Connections, *, feed: Feed, worker: Worker, services: Services
) -> None:
    """What of the runs and their followers is counted when somebody asks."""
    gauge("agentws_connections", "Connections that are open.", lambda: len(connections))
    gauge("agentws_subscriptions", "Threads followed by connections.", lambda: feed.subscriptions)
    gauge("agentws_queue_bytes", "Bytes that wait to be sent, of all connections.", lambda: sum(feed.buffered()))
    gauge("agentws_runs_in_flight", "Runs at work in this process.", lambda: worker.in_flight)
    gauge("agentws_abandoned_tasks", "Agents that were cancelled and go on.", lambda: len(services.abandoned))
    threads = services.threads
    gauge("agentws_tool_threads", "Tool calls in a thread or waiting for one.", lambda: threads.at_work)
    gauge("agentws_abandoned_tool_threads", "Tool calls that nobody waits for.", lambda: threads.abandoned)


def _add_store_gauges(gauge: Callable[..., None], database: Database, lease: Lease, drain: Drain) -> None:
    """What of the database and this process's place in it is counted when somebody asks."""
    pool, text = "agentws_pool_connections", "Connections to the database."
    gauge(pool, text, lambda: database.busy, state="busy")
    gauge(pool, text, lambda: database.idle, state="idle")
    gauge("agentws_pool_size", "Calls of the database that may be at work at once.", lambda: database.size)
    gauge("agentws_pool_waiting", "Calls that wait for a connection to the database.", lambda: database.waiting)
    gauge("agentws_lease_held", "Whether this process holds its lease.", lambda: lease.node_id is not None)
    gauge("agentws_draining", "Whether this process goes away.", lambda: drain.begun)


def create_app(
    settings: Settings,
    agents: Mapping[str, Any] | None = None,
    *,
    authenticate: Authenticate | None = None,
    service: Service | None = None,
) -> Starlette:
    """An ASGI application to serve or to mount.

    Args:
        settings: from `agentws.load_settings`; with `authenticate`, `auth="host"` asks for no secret in production.
        agents: name → agent; the first is the default one.
        authenticate: for a host with sign-in of its own: given a request (starlette's HTTPConnection, of HTTP and
            WebSocket alike), returns a user id, a (tenant, user), a `SignedIn`, or None for nobody; may be async. It
            decides alone: no token is taken, and no development user. What it raises is answered `internal_error`.
        service: one whose start and stop the caller sees to; None: the application's lifespan does. A mounted
            application's lifespan does not run: use `lifespan` in the host's.

    Raises:
        SettingsError: if `auth` is "host" and there is no `authenticate`.
    """
    own = service or Service(settings, agents, authenticate=authenticate)

    async def websocket(scope: Scope, receive: Receive, send: Send) -> None:
        edge = own.edge
        assert edge is not None  # OnceStarted lets nobody through before.
        await edge(scope, receive, send)

    routes = [*health_routes(own.not_ready), WebSocketRoute("/ws", _Raw(websocket))]
    if settings.page:
        routes += page_routes()
    app = Starlette(routes=routes, lifespan=None if service else lifespan)
    app.add_middleware(OnceStarted, is_started=lambda: own.edge is not None)
    app.state.service = own
    return app


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    """Starts and stops an application that `create_app` made; for the lifespan of a host that mounts it."""
    service: Service = app.state.service
    await service.start()
    try:
        yield
    finally:
        await service.stop()


class _Raw:
    """An ASGI application as a route's endpoint: Starlette wraps functions, and leaves objects as they are."""

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]]) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)
