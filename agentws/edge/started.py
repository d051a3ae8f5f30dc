"""An application that was not started says so: to whoever calls, and once in the log with what is missing."""

import logging
from collections.abc import Callable

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from agentws.core.session import error_frame
from agentws.edge.websocket import refuse
from agentws.wire.codec import encode
from agentws.wire.errors import CATALOGUE, Refusal

__all__ = ["OnceStarted"]

log = logging.getLogger("agentws")

_OPEN = ("/api/protocol.json",)
_RETRY_AFTER_MS = 1000


class OnceStarted:
    """Lets WebSockets and the API through once the application behind it has been started.

    What says how it is, and what is the same for everybody, passes at any time.
    """

    def __init__(self, app: ASGIApp, *, is_started: Callable[[], bool]) -> None:
        self._app = app
        self._is_started = is_started
        self._has_told = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._is_started() or not _needs_a_start(scope):
            await self._app(scope, receive, send)
            return
        if not self._has_told:
            self._has_told = True
            log.warning("refused: not started; a host enters agentws.lifespan(app) in its own lifespan")
        fault = Refusal("overloaded", retry_after_ms=_RETRY_AFTER_MS)
        fault.text = "This server has not been started."
        if scope["type"] == "websocket":
            await receive()
            await refuse(scope, send, fault)
            return
        answer = Response(
            encode(error_frame(fault, frame_id=None)),
            status_code=CATALOGUE[fault.code].status,
            media_type="application/json",
            headers={"Retry-After": str(_RETRY_AFTER_MS // 1000)},
        )
        await answer(scope, receive, send)


def _needs_a_start(scope: Scope) -> bool:
    if scope["type"] == "websocket":
        return True
    # A mounted application is given the whole path, with the part that is the host's in root_path.
    path = scope.get("path", "").removeprefix(scope.get("root_path", ""))
    return scope["type"] == "http" and path.startswith("/api/") and path not in _OPEN
