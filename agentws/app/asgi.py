"""The ASGI application around a service, to serve or to mount."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import BaseRoute, WebSocketRoute
from starlette.types import Receive, Scope, Send

from agentws.app.service import Service
from agentws.edge.api import api_routes
from agentws.edge.host import Authenticate
from agentws.edge.http import health_routes, page_routes
from agentws.edge.operators import operator_routes
from agentws.edge.origins import Origins
from agentws.edge.started import OnceStarted
from agentws.settings import Settings

__all__ = ["create_app", "lifespan"]

_SENT_BY_PAGES = ("Authorization", "Content-Type", "Idempotency-Key", "Last-Event-ID")


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

    routes: list[BaseRoute] = [
        *health_routes(own.not_ready),
        WebSocketRoute("/ws", _Raw(websocket)),
        *operator_routes(settings, own.metrics, own.statistics),
        *api_routes(lambda: own.api),
    ]
    if settings.page:
        routes += page_routes()
    middleware = [*_middleware(settings), Middleware(OnceStarted, is_started=lambda: own.edge is not None)]
    app = Starlette(routes=routes, middleware=middleware, lifespan=None if service else lifespan)
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


def _middleware(settings: Settings) -> list[Middleware]:
    """Where pages of other origins may call, browsers are told so."""
    if not settings.origins:
        return []
    return [
        Middleware(
            CORSMiddleware,
            allow_origin_regex=Origins(settings.origins).pattern,
            allow_methods=("GET", "POST"),
            allow_headers=_SENT_BY_PAGES,
            expose_headers=("Retry-After",),
        )
    ]


class _Raw:
    """An ASGI application as a route's endpoint: Starlette wraps functions, and leaves objects as they are."""

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]]) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)
