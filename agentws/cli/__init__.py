"""The command line: one module a command, which adds itself; `main` runs the one that was asked for."""

import argparse
import sys
from collections.abc import Sequence

from agentws.cli import config, epoch, explain, migrate, serve, token
from agentws.cli.options import EXPECTED
from agentws.client.commands import add_commands
from agentws.observe.logs import configure
from agentws.version import VERSION

__all__ = ["main"]

_COMMANDS = (serve, migrate, token, config, epoch, explain)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns the exit status: 0, or 1 with a line on standard error that says what is wrong."""
    parser = argparse.ArgumentParser(prog="agentws", description="A server for AI agents over WebSockets.")
    parser.add_argument("--version", action="version", version=f"agentws {VERSION}")
    commands = parser.add_subparsers(required=True, metavar="command")
    for command in _COMMANDS:
        command.add_to(commands)
    add_commands(commands)
    options = parser.parse_args(arguments)
    configure()
    try:
        status: int = options.run(options)
    except EXPECTED as error:
        print(f"agentws: {error}", file=sys.stderr)
        return 1
    return status
