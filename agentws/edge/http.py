"""The HTTP routes: health, and the page."""

from collections.abc import Awaitable, Callable
from importlib import resources

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

__all__ = ["health_routes", "page_routes"]

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self' ws: wss:; img-src 'self';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_PAGE = {
    "/": ("index.html", "text/html"),
    "/page.js": ("page.js", "text/javascript"),
    "/page.css": ("page.css", "text/css"),
}


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
    """The page at `/` and its two files."""

    def serve(name: str, media_type: str) -> Callable[[Request], Awaitable[Response]]:
        content = resources.files("agentws.edge").joinpath("playground", name).read_bytes()

        async def answer(request: Request) -> Response:
            headers = {"Content-Security-Policy": _POLICY, "X-Content-Type-Options": "nosniff"}
            return Response(content, media_type=media_type, headers=headers)

        return answer

    return [Route(path, serve(name, media_type)) for path, (name, media_type) in _PAGE.items()]
