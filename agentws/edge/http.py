"""The HTTP routes: health, and the page, which can load nothing but its own files and run no script but those."""

import gzip
import hashlib
from collections.abc import Awaitable, Callable
from importlib import resources

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

__all__ = ["health_routes", "page_routes"]

# `connect-src 'self'` covers ws: and wss: of the same host (CSP 3). Trusted types take `innerHTML` and its like away.
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:;"
        " base-uri 'none'; form-action 'none'; frame-ancestors 'none';"
        " require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",
    "Vary": "Accept-Encoding",
}
_MODULES = ("page", "composer", "connection", "dom", "drawers", "frames", "notes", "prose", "run", "threads")
_SCRIPTS = ("theme.js", *(f"{name}.js" for name in _MODULES))
_FILES = {"page.css": "text/css"} | dict.fromkeys(_SCRIPTS, "text/javascript")


def health_routes(not_ready: Callable[[], Awaitable[str | None]]) -> list[BaseRoute]:
    """`/healthz` and `/readyz`.

    Args:
        not_ready: says why this process should get no traffic; None where it may.
    """

    async def healthz(request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def readyz(request: Request) -> Response:
        reason = await not_ready()
        if reason is None:
            return JSONResponse({"status": "ready"})
        return JSONResponse({"status": "not_ready", "reason": reason}, status_code=503, headers={"Retry-After": "1"})

    return [Route("/healthz", healthz), Route("/readyz", readyz)]


def page_routes() -> list[BaseRoute]:
    """The page at `/`, its files, and at `/agentws.js` the JavaScript client that it is made with."""
    playground = resources.files("agentws.edge").joinpath("playground")
    client = resources.files("agentws.client").joinpath("js", "agentws.js")
    routes: list[BaseRoute] = [Route("/", _serve(playground.joinpath("index.html").read_bytes(), "text/html"))]
    routes += [
        Route(f"/{name}", _serve(playground.joinpath(name).read_bytes(), media_type))
        for name, media_type in _FILES.items()
    ]
    return [*routes, Route("/agentws.js", _serve(client.read_bytes(), "text/javascript"))]


def _serve(content: bytes, media_type: str) -> Callable[[Request], Awaitable[Response]]:
    """Serves a file that a browser asks for each time, and is sent, compressed, only where it has changed."""
    # Weak: the same for both encodings.
    headers = {**_HEADERS, "ETag": f'W/"{hashlib.sha256(content).hexdigest()[:32]}"'}
    packed = gzip.compress(content, mtime=0)

    async def answer(request: Request) -> Response:
        held = request.headers.get("if-none-match", "").split(",")
        if headers["ETag"] in (each.strip() for each in held):
            return Response(status_code=304, headers=headers)
        if "gzip" in request.headers.get("accept-encoding", ""):
            return Response(packed, media_type=media_type, headers={**headers, "Content-Encoding": "gzip"})
        return Response(content, media_type=media_type, headers=headers)

    return answer
