"""The parent of several processes that serve one port: it holds the port and the database for them, and ends after all.

One that dies is begun again; none is left behind, however the parent ends.
"""

import asyncio
import logging
import os
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager

import msgspec
from uvicorn.config import STARTUP_FAILURE

from agentws.cli.child import Child
from agentws.cli.options import WorkerError
from agentws.cli.server import announce
from agentws.observe.meters import StoreMeter
from agentws.settings import Settings, lifted
from agentws.store.opening import find_database, open_database

__all__ = ["serve_with_workers"]

log = logging.getLogger("agentws")

_STEADY_S = 30.0  # who has served for so long did not die at once
_FIRST_DELAY_S, _MOST_DELAY_S = 0.5, 30.0


def serve_with_workers(settings: Settings, agents: str | None) -> int:
    """Serves by `settings.workers` processes until a signal comes; returns the exit status.

    Args:
        agents: MODULE:NAME, imported by each of them.

    Raises:
        SettingsError, StoreUnavailable, EmbeddedError, MigrationError, WorkerError: why it cannot.
    """
    return asyncio.run(_serve(settings, agents))


async def _serve(settings: Settings, agents: str | None) -> int:
    for line in lifted(settings):
        log.warning("%s", line)
    try:
        sockets = await _bind(settings.host, settings.port)
    except OSError as error:
        # As one process says it, and with its status.
        logging.getLogger("uvicorn.error").error(error)
        return STARTUP_FAILURE
    async with AsyncExitStack() as stack:
        for each in sockets:
            stack.callback(each.close)
        return await _Parent(settings, agents, sockets).run(stack)


class _Parent:
    """
    Args:
        sockets: bound; the workers listen on them.
    """

    def __init__(self, settings: Settings, agents: str | None, sockets: list[socket.socket]) -> None:
        self._settings = settings
        self._agents = agents
        self._sockets = sockets
        self._living: set[Child] = set()
        self._serving: dict[int, Child] = {}
        self._failed = False
        self._left = asyncio.Event()
        self._renewal = asyncio.Event()

    async def run(self, stack: AsyncExitStack) -> int:
        """Until all have ended after a signal, or one cannot start.

        Args:
            stack: what is left on it is wanted until then.
        """
        with self._heeding_signals():
            working = asyncio.ensure_future(self._work(stack))
            leaving = asyncio.ensure_future(self._left.wait())
            try:
                await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
            finally:
                # First of all nobody is begun any more.
                working.cancel()
                leaving.cancel()
                await asyncio.gather(working, leaving, return_exceptions=True)
                await self._end_all()
                await stack.aclose()
        if not working.cancelled():
            working.result()
        return 1 if self._failed else 0

    async def _work(self, stack: AsyncExitStack) -> None:
        await self._prepare_database(stack)
        # One by itself first: what none of them can do is said once.
        await self._begin_all(range(1, 2))
        await self._begin_all(range(2, self._settings.workers + 1))
        announce(self._sockets[0])
        async with asyncio.TaskGroup() as group:
            group.create_task(self._renew())
            for number in self._serving:
                group.create_task(self._keep(number))

    async def _prepare_database(self, stack: AsyncExitStack) -> None:
        """Finds, starts, migrates and checks it, so that this is done and told once."""
        found = await find_database(self._settings, stack)
        if found.watch is not None:
            await stack.enter_async_context(_watched(found.watch))
        async with AsyncExitStack() as once:
            await open_database(found, msgspec.structs.replace(self._settings, pool_size=1), once, meter=StoreMeter())

    async def _begin_all(self, numbers: range) -> None:
        for number in numbers:
            self._serving[number] = self._begin(number)
        for number in numbers:
            if failure := await self._serving[number].serves():
                raise WorkerError(failure)

    def _begin(self, number: int) -> Child:
        try:
            child = Child.begin(number, self._settings, agents=self._agents, sockets=self._sockets)
        except OSError as error:
            raise WorkerError(f"worker {number} cannot be started: {error}") from error
        log.info("worker %d is process %d", number, child.pid)
        self._living.add(child)
        return child

    async def _keep(self, number: int) -> None:
        """Begins one again whenever it has ended, later where it ended soon."""
        delay = 0.0
        while True:
            child = self._serving[number]
            failure = await child.serves()
            how = failure or await child.ended()
            if child is not self._serving[number]:
                continue  # it was replaced
            delay = _FIRST_DELAY_S if child.served_s > _STEADY_S else min(max(_FIRST_DELAY_S, 2 * delay), _MOST_DELAY_S)
            log.error("worker %d, process %d: %s; it is begun again in %.1f s", number, child.pid, how, delay)
            await asyncio.sleep(delay)
            if child is self._serving[number]:
                try:
                    self._serving[number] = self._begin(number)
                except WorkerError as error:
                    log.error("%s", error)

    async def _renew(self) -> None:
        """At each SIGHUP replaces one after the other: the next when its successor serves and it has ended."""
        while True:
            await self._renewal.wait()
            self._renewal.clear()
            log.info("SIGHUP: %d workers are replaced", len(self._serving))
            try:
                for number in self._serving:
                    await self._replace(number)
            except WorkerError as error:
                log.error("no further worker is replaced: %s", error)

    async def _replace(self, number: int) -> None:
        child = self._begin(number)
        if failure := await child.serves():
            child.leave()
            raise WorkerError(failure)
        former, self._serving[number] = self._serving[number], child
        former.make_room()
        await former.ended()

    async def _end_all(self) -> None:
        # From here on they alone have the port, so that nobody waits at one that none of them serves.
        for each in self._sockets:
            each.close()
        for child in self._living:
            child.leave()
        for child in tuple(self._living):
            await child.ended()

    @contextmanager
    def _heeding_signals(self) -> Iterator[None]:
        calls = {
            signal.SIGTERM: self._leave,
            signal.SIGINT: self._leave,
            # From a terminal that is closed, it says that who started this is gone.
            signal.SIGHUP: self._leave if os.isatty(0) else self._renewal.set,
            signal.SIGCHLD: self._reap,
        }
        loop = asyncio.get_running_loop()
        for number, call in calls.items():
            loop.add_signal_handler(number, call)
        try:
            yield
        finally:
            for number in calls:
                loop.remove_signal_handler(number)

    def _leave(self) -> None:
        if self._left.is_set():
            for child in self._living:
                child.hurry()
        self._left.set()

    def _reap(self) -> None:
        for child in tuple(self._living):
            if child.reap():
                self._living.discard(child)
                self._failed |= self._left.is_set() and child.failed


async def _bind(host: str, port: int) -> list[socket.socket]:
    """Sockets at all addresses of `host`, at which nobody listens yet; IPv4 first."""
    server = await asyncio.get_running_loop().create_server(asyncio.Protocol, host, port, start_serving=False)
    try:
        sockets = [each.dup() for each in server.sockets]
    finally:
        server.close()
    return sorted(sockets, key=lambda each: each.family)


@asynccontextmanager
async def _watched(watch: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    async def keep() -> None:
        while True:
            try:
                await watch()
            except Exception:
                log.exception("the embedded PostgreSQL's watch failed; it is begun again")
                await asyncio.sleep(1)

    task = asyncio.ensure_future(keep())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
