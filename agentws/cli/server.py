"""The service around uvicorn's own phases, in one process that ends when it is told to."""

import asyncio
import importlib
import logging
import math
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import FrameType
from typing import Any, NoReturn

import uvicorn

from agentws.app import TOOL_THREAD, Service, create_app
from agentws.cli.options import EXPECTED
from agentws.edge.keepalive import KeptAlive, Watched
from agentws.settings import SettingsError

__all__ = ["Server", "announce", "leave_tools", "load_agents"]

log = logging.getLogger("agentws")

_TOOL_JOIN_S = 1.0


class Server(uvicorn.Server):
    """Starts and stops the service around uvicorn's own phases; signals are handled here.

    uvicorn closes every WebSocket before a lifespan hears of the shutdown, so that the service is no lifespan.

    Args:
        service: not started yet.
        on_ready: called with a socket that it listens on, when it takes connections.
        hurried_by_signals: whether a second signal ends the time that runs are given; else only `hurry` does.
    """

    def __init__(
        self, service: Service, *, on_ready: Callable[[socket.socket], None], hurried_by_signals: bool = True
    ) -> None:
        super().__init__(_config(service))
        self._service = service
        self._on_ready = on_ready
        self._hurried_by_signals = hurried_by_signals
        self._loop: asyncio.AbstractEventLoop | None = None
        self._starting: asyncio.Task[Any] | None = None
        self.failure: Exception | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        self._starting = asyncio.current_task()
        try:
            await self._service.start()
        except EXPECTED as error:
            self.failure = error
            self.should_exit = True
            return
        except asyncio.CancelledError:
            # A signal came while it was waiting for its database.
            if not self.should_exit:
                raise
            return
        finally:
            self._starting = None
        try:
            await super().startup(sockets=sockets)
        except (SystemExit, OSError):
            await self._service.stop()
            raise
        if self.started:
            self._on_ready(self.servers[0].sockets[0])

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await self._service.drain()
        await super().shutdown(sockets=sockets)
        await self._service.stop()
        if left := self._service.left_agents:
            # Their runs are given up by now; the loop would wait for them.
            log.warning("%d agents have not ended; they are left", left)
            _exit_at_once()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._starting is not None:
            self._soon(self._starting.cancel)
        elif self.should_exit and self._hurried_by_signals:
            self.hurry()
        self.should_exit = True

    def hurry(self) -> None:
        """Ends the time that runs are given to end; from any thread."""
        self._soon(self._service.hurry)

    def leave_port(self) -> None:
        """As a signal, and the port is given up at once, for whoever comes next; from any thread."""
        self._soon(self._stop_listening)
        self.handle_exit(signal.SIGTERM, None)

    def _soon(self, call: Callable[[], object]) -> None:
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(call)

    def _stop_listening(self) -> None:
        if self.started:
            for server in self.servers:
                server.close()


def announce(listening: socket.socket) -> None:
    """Prints where it listens, for people and for whoever waits for it."""
    host, port = listening.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    print(f"agentws ready on http://{shown}:{port}", flush=True)


def leave_tools() -> None:
    """Ends the process where a tool in a thread does not end: Python would wait for it."""
    threads = [thread for thread in threading.enumerate() if thread.name.startswith(TOOL_THREAD)]
    for thread in threads:
        thread.join(_TOOL_JOIN_S / len(threads))
    if stuck := sum(thread.is_alive() for thread in threads):
        log.warning("%d tools in threads have not ended; they are left", stuck)
        _exit_at_once()


def _exit_at_once() -> NoReturn:
    logging.shutdown()
    sys.stdout.flush()
    os._exit(0)


def load_agents(place: str | None) -> Mapping[str, Any]:
    """The agents at MODULE:NAME; one that is no mapping is served under its own name.

    Raises:
        SettingsError: if there are none.
    """
    if place is None:
        return {}
    module_name, _, name = place.partition(":")
    if not module_name or not name:
        raise SettingsError(f"--agents: {place!r} is not MODULE:NAME")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found = getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError) as error:
        raise SettingsError(f"--agents: {place!r} cannot be loaded: {error}") from error
    return found if isinstance(found, Mapping) else {getattr(found, "__name__", name): found}


def _config(service: Service) -> uvicorn.Config:
    settings = service.settings
    return uvicorn.Config(
        create_app(settings, service=service),
        host=settings.host,
        port=settings.port,
        loop="uvloop" if os.name == "posix" else "asyncio",
        http=Watched,
        ws=KeptAlive,
        ws_max_size=settings.max_message_bytes,
        ws_ping_interval=settings.heartbeat_interval_s,
        ws_ping_timeout=None,
        ws_per_message_deflate=False,
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        # Whoever waits for the database then is told that it is away.
        timeout_graceful_shutdown=math.ceil(settings.database_timeout_s) + 1,
    )
