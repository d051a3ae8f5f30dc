"""An application that mounts agentws below a prefix, as a host would."""

from starlette.applications import Starlette
from starlette.routing import Mount

from agentws.app import create_app, lifespan
from agentws.settings import load

__all__ = ["app"]

inner = create_app(load())
app = Starlette(routes=[Mount("/inside", inner)], lifespan=lambda _: lifespan(inner))
