"""What operators see: metrics and statistics. No user's name is in them, and users cannot read them."""

import hmac
import ipaddress

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from agentws.edge.caller import refusal
from agentws.observe.metrics import CONTENT_TYPE, Metrics
from agentws.observe.statistics import Statistics
from agentws.settings import Settings
from agentws.wire.errors import Fault

__all__ = ["operator_routes"]

_PROXIED = ("forwarded", "x-real-ip")


def operator_routes(settings: Settings, metrics: Metrics, statistics: Statistics) -> list[BaseRoute]:
    """`/metrics` and `/api/stats`, for whoever has the `stats_token`; where none is set and not in production, for this
    machine, unless a proxy stands between."""

    async def read_metrics(request: Request) -> Response:
        if not _may_see(settings, request):
            return refusal(Fault("unauthorized"))
        return Response(metrics.render(), media_type=CONTENT_TYPE)

    async def read_statistics(request: Request) -> Response:
        if not _may_see(settings, request):
            return refusal(Fault("unauthorized"))
        return JSONResponse(statistics.read())

    return [Route("/metrics", read_metrics), Route("/api/stats", read_statistics)]


def _may_see(settings: Settings, request: Request) -> bool:
    if settings.stats_token:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        return scheme.lower() == "bearer" and hmac.compare_digest(token.strip().encode(), settings.stats_token.encode())
    return settings.env != "production" and _is_local(request)


def _is_local(request: Request) -> bool:
    """Whether a program on this machine asks by itself."""
    if any(name in _PROXIED or name.startswith("x-forwarded-") for name in request.headers):
        return False
    try:
        return request.client is not None and ipaddress.ip_address(request.client.host).is_loopback
    except ValueError:
        return False
