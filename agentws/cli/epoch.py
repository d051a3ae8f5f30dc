"""`agentws new-epoch`: tells every client, after a restore or a failover, that the past is not what it was."""

import argparse
import asyncio
from contextlib import AsyncExitStack

from agentws.cli.options import Commands, add_place, settings_of
from agentws.observe.metrics import Metrics
from agentws.settings import Settings
from agentws.store.nodes import PgNodes
from agentws.store.opening import find_database, open_database

__all__ = ["add_to"]


def add_to(commands: Commands) -> None:
    """Adds the command to a command line."""
    command = commands.add_parser("new-epoch", help="after a restore or failover: let clients drop what they hold")
    add_place(command)
    command.set_defaults(run=_new_epoch)


def _new_epoch(options: argparse.Namespace) -> int:
    count = asyncio.run(_renew(settings_of(options)))
    print(f"{count} threads have a new epoch")
    return 0


async def _renew(settings: Settings) -> int:
    async with AsyncExitStack() as stack:
        found = await find_database(settings, stack)
        database = await open_database(found, settings, stack, meter=Metrics().store)
        return await PgNodes(database).new_epochs()
