"""`agentws migrate`: brings a database of its own to this version's schema."""

import argparse
import asyncio

from agentws.cli.options import Commands, add_place, settings_of
from agentws.settings import SettingsError
from agentws.store.migrate import login_of, migrate

__all__ = ["add_to"]


def add_to(commands: Commands) -> None:
    """Adds the command to a command line."""
    command = commands.add_parser("migrate", help="bring the database to this version's schema")
    add_place(command)
    command.set_defaults(run=_migrate)


def _migrate(options: argparse.Namespace) -> int:
    settings = settings_of(options)
    url = settings.database_url
    if url is None or url == "embedded":
        raise SettingsError("the embedded PostgreSQL is migrated when it is served; give AGENTWS_DATABASE_URL")
    applied = asyncio.run(migrate(settings.migrate_url or url, login=login_of(url)))
    print("\n".join(f"applied {name}" for name in applied) or "the schema is current")
    return 0
