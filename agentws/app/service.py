"""One server process: a database that is found or begun, the parts over it, and how they start, drain and stop."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, suppress
from typing import Any

from agentws.agents.demo import make_demo
from agentws.app.assembly import TOOL_THREAD, Parts, Surroundings, assemble
from agentws.core.agent import declare
from agentws.edge.api import Api
from agentws.edge.host import Authenticate
from agentws.edge.websocket import Connections, WebSocketEdge
from agentws.feed import Feed
from agentws.observe.metrics import Metrics
from agentws.observe.statistics import Statistics
from agentws.ports import StoreUnavailable
from agentws.runtime.tools import MOST_AT_WORK, MOST_LEFT
from agentws.runtime.worker import Worker
from agentws.settings import Settings, lifted, refusal
from agentws.store.nodes import PgNodes
from agentws.store.opening import find_database, open_database

__all__ = ["Service"]

log = logging.getLogger("agentws")

_CANCEL_AGAIN_S = 1.0
_CLOSE_S = 1.5
_CLOSE_WAIT_S = 2.0


class Service:
    """One server process: database, lease, worker, feed and edge, from `start` to `stop`.

    Args:
        settings: as loaded.
        agents: name → agent, the first being the default one; `demo` is added where it is not among them.
        authenticate: who is signed in, as the host says; it decides alone. None: the settings do.
        worker: this process's number among several whose parent has told what is lifted and keeps the database
            running and migrated; None: it is alone.
    """

    def __init__(
        self,
        settings: Settings,
        agents: Mapping[str, Any] | None = None,
        *,
        authenticate: Authenticate | None = None,
        worker: int | None = None,
    ) -> None:
        if settings.auth == "host" and authenticate is None:
            raise refusal("auth", "is 'host', which is for an application that gives create_app its authenticate")
        named = declare({**(agents or {})})
        if "demo" not in named:
            named |= declare({"demo": make_demo(settings.demo_words_per_s)})
        self.settings = settings
        self.agents = named
        self.connections = Connections(most=settings.max_connections, most_per_user=settings.max_connections_per_user)
        self.metrics = Metrics(tuple(named), worker=worker)
        self.statistics = Statistics(
            runs_in_flight=lambda: self._parts.worker.in_flight if self._parts else 0,
            connections=lambda: len(self.connections),
            worker=worker,
        )
        self._around = Surroundings(
            settings=settings,
            agents=named,
            connections=self.connections,
            metrics=self.metrics,
            statistics=self.statistics,
            authenticate=authenticate,
        )
        self._has_parent = worker is not None
        self._stack = AsyncExitStack()
        self._nodes: PgNodes | None = None
        self._parts: Parts | None = None
        self._abandoned: Collection[object] = ()

    @property
    def edge(self) -> WebSocketEdge | None:
        """The WebSocket application; None before `start` and after `stop`."""
        return self._parts.edge if self._parts else None

    @property
    def api(self) -> Api | None:
        """What the HTTP routes are served with; None before `start` and after `stop`."""
        return self._parts.api if self._parts else None

    @property
    def worker(self) -> Worker | None:
        """What works on runs; None before `start` and after `stop`."""
        return self._parts.worker if self._parts else None

    @property
    def feed(self) -> Feed | None:
        """Who follows what; None before `start` and after `stop`."""
        return self._parts.feed if self._parts else None

    async def start(self) -> None:
        """Starts everything; what was started is stopped again where something fails.

        Raises:
            SettingsError, StoreUnavailable, EmbeddedError, MigrationError: with what is wrong and what to do.
        """
        for line in () if self._has_parent else lifted(self.settings):
            log.warning("%s", line)
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise

    async def stop(self) -> None:
        """Goes through the drain where that has not been done, and stops everything."""
        await self.drain()
        self._parts = None
        await self._stack.aclose()

    async def drain(self) -> None:
        """Takes no new runs, tells clients, waits for the runs at work, and closes all connections (1001)."""
        if self._parts is None or self._parts.drain.begun:
            return
        await self._parts.drain.run(self._parts.worker)
        self.connections.close_all(1001, "going away", within_s=_CLOSE_S)
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_WAIT_S):
                await self.connections.none_open()

    def hurry(self) -> None:
        """Ends the time that a drain gives to runs at work."""
        if self._parts is not None:
            self._parts.drain.hurry()

    @property
    def left_agents(self) -> int:
        """How many agents were cancelled and go on all the same."""
        return len(self._abandoned)

    async def not_ready(self) -> str | None:
        """Why this process should get no traffic now; None where it may."""
        if self._nodes is None or self._parts is None:
            return "not started"
        if self._parts.drain.begun:
            return "draining"
        try:
            return None if await self._nodes.schema_is_current() else "the schema is not current"
        except StoreUnavailable:
            return "the database cannot be reached"

    async def _start(self) -> None:
        found = await find_database(self.settings, self._stack, prepared=self._has_parent)
        if found.watch is not None:
            self._keep("the embedded PostgreSQL", found.watch)
        database = await open_database(found, self.settings, self._stack, meter=self.metrics.store)
        self._nodes = PgNodes(database)
        executor = ThreadPoolExecutor(MOST_AT_WORK + MOST_LEFT, thread_name_prefix=TOOL_THREAD)
        self._stack.callback(executor.shutdown, wait=False, cancel_futures=True)
        await self._begin(assemble(self._around, database, self._nodes, executor))

    async def _begin(self, parts: Parts) -> None:
        await parts.lease.take()
        self._stack.push_async_callback(parts.lease.give_up)
        self._stack.push_async_callback(parts.feed.close)
        self._stack.callback(parts.worker.abandon_all)
        for name, call in parts.tasks.items():
            self._keep(name, call)
        self._parts = parts
        self._abandoned = parts.abandoned

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
            while not task.done():
                # A task group whose child fails in the same moment may swallow it.
                task.cancel()
                await asyncio.wait((task,), timeout=_CANCEL_AGAIN_S)

        self._stack.push_async_callback(end)
