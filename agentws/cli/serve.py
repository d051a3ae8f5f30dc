"""`agentws serve`: the service around uvicorn's own phases, and a process that ends when it is told to."""

import argparse
import asyncio
import importlib
import logging
import os
import socket
import sys
import threading
from collections.abc import Mapping
from types import FrameType
from typing import Any

import uvicorn

from agentws.app import TOOL_THREAD, Service, create_app
from agentws.cli.options import EXPECTED, Commands, add_serve_options, settings_of
from agentws.edge.keepalive import KeptAlive
from agentws.observe.logs import configure
from agentws.settings import SettingsError

__all__ = ["add_to"]

log = logging.getLogger("agentws")

_TOOL_JOIN_S = 1.0


def add_to(commands: Commands) -> None:
    """Adds the command to a command line."""
    serve = commands.add_parser("serve", help="serve agents")
    add_serve_options(serve)
    serve.set_defaults(run=_serve)


class _Server(uvicorn.Server):
    """Starts and stops the service around uvicorn's own phases; signals are handled here.

    uvicorn closes every WebSocket before a lifespan hears of the shutdown, so that the service is no lifespan.
    """

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service
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
        except SystemExit:
            await self._service.stop()
            raise
        if self.started:
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            shown = f"[{host}]" if ":" in host else host
            print(f"agentws ready on http://{shown}:{port}", flush=True)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await self._service.drain()
        await super().shutdown(sockets=sockets)
        await self._service.stop()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._starting is not None and self._loop is not None:
            self._loop.call_soon_threadsafe(self._starting.cancel)
        elif self.should_exit and self._loop is not None:
            self._loop.call_soon_threadsafe(self._service.hurry)
        self.should_exit = True


def _serve(options: argparse.Namespace) -> int:
    settings = settings_of(options)
    configure(settings.log_level.upper(), form=settings.log_format or "text")
    service = Service(settings, _load_agents(options.agents))
    config = uvicorn.Config(
        create_app(settings, service=service),
        host=settings.host,
        port=settings.port,
        loop="uvloop" if os.name == "posix" else "asyncio",
        http="h11",
        ws=KeptAlive,
        ws_max_size=settings.max_message_bytes,
        ws_ping_interval=settings.heartbeat_interval_s,
        ws_ping_timeout=None,
        ws_per_message_deflate=False,
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=5,
    )
    server = _Server(config, service)
    server.run()
    if server.failure is not None:
        raise server.failure
    _leave_tools()
    return 0


def _leave_tools() -> None:
    """Ends the process where a tool in a thread does not end: Python would wait for it."""
    threads = [thread for thread in threading.enumerate() if thread.name.startswith(TOOL_THREAD)]
    for thread in threads:
        thread.join(_TOOL_JOIN_S / len(threads))
    if stuck := sum(thread.is_alive() for thread in threads):
        log.warning("%d tools in threads have not ended; they are left", stuck)
        logging.shutdown()
        sys.stdout.flush()
        os._exit(0)


def _load_agents(place: str | None) -> Mapping[str, Any]:
    """The agents at MODULE:NAME; one that is no mapping is served under its own name."""
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
