"""The composition root: the one place that picks implementations and joins them."""

from agentws.app.asgi import create_app, lifespan
from agentws.app.assembly import TOOL_THREAD
from agentws.app.service import Service

__all__ = ["TOOL_THREAD", "Service", "create_app", "lifespan"]
