"""agentws: a server for AI agents over WebSockets."""

from agentws.core.agent import agent
from agentws.core.context import UserExecutionContext
from agentws.core.run import Message
from agentws.ports import Run
from agentws.version import VERSION as __version__
from agentws.wire.errors import AgentError

__all__ = ["AgentError", "Message", "Run", "UserExecutionContext", "__version__", "agent"]
