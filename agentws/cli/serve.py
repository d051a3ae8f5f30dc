"""`agentws serve`: one process that serves, or a parent of several; the same settings, messages and exit status."""

import argparse

from agentws.app import Service
from agentws.cli.options import Commands, add_serve_options, settings_of
from agentws.cli.parent import serve_with_workers
from agentws.cli.server import Server, announce, leave_tools, load_agents
from agentws.observe.logs import configure

__all__ = ["add_to"]


def add_to(commands: Commands) -> None:
    """Adds the command to a command line."""
    serve = commands.add_parser("serve", help="serve agents")
    add_serve_options(serve)
    serve.set_defaults(run=_serve)


def _serve(options: argparse.Namespace) -> int:
    settings = settings_of(options)
    configure(settings.log_level.upper(), form=settings.log_format or "text")
    if settings.workers > 1:
        return serve_with_workers(settings, options.agents)
    server = Server(Service(settings, load_agents(options.agents)), on_ready=announce)
    server.run()
    if server.failure is not None:
        raise server.failure
    leave_tools()
    return 0
