"""agentws: a server for AI agents over WebSockets.

What authors of agents need is here at once; what embeds a server is imported when it is first asked for.
"""

import importlib
from typing import TYPE_CHECKING, Any

from agentws.core.agent import agent
from agentws.core.context import UserExecutionContext
from agentws.core.run import Message
from agentws.ports import Run
from agentws.runtime.process import ProcessError, ProcessResult, run_process
from agentws.runtime.tools import stopping
from agentws.version import VERSION as __version__
from agentws.wire.errors import AgentError

if TYPE_CHECKING:
    from agentws.app import create_app, lifespan
    from agentws.edge.host import SignedIn
    from agentws.settings import Settings, SettingsError
    from agentws.settings import load as load_settings

__all__ = [
    "AgentError",
    "Message",
    "ProcessError",
    "ProcessResult",
    "Run",
    "Settings",
    "SettingsError",
    "SignedIn",
    "UserExecutionContext",
    "__version__",
    "agent",
    "create_app",
    "lifespan",
    "load_settings",
    "run_process",
    "stopping",
]

_LATER = {
    "Settings": ("agentws.settings", "Settings"),
    "SettingsError": ("agentws.settings", "SettingsError"),
    "SignedIn": ("agentws.edge.host", "SignedIn"),
    "create_app": ("agentws.app", "create_app"),
    "lifespan": ("agentws.app", "lifespan"),
    "load_settings": ("agentws.settings", "load"),
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _LATER[name]
    return getattr(importlib.import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted(__all__)
