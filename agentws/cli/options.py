"""What commands have in common: the options that are settings, and the failures that are told in one line."""

import argparse
from typing import Protocol

import asyncpg

from agentws.ports import StoreUnavailable
from agentws.settings import Settings, SettingsError, load
from agentws.store.embedded import EmbeddedError
from agentws.store.migrate import MigrationError

__all__ = ["EXPECTED", "Commands", "add_place", "settings_of"]

EXPECTED = (SettingsError, StoreUnavailable, EmbeddedError, MigrationError, asyncpg.PostgresError, OSError)
"""What goes wrong outside of this program: its text says what, and no stack is shown."""


class Commands(Protocol):
    """The commands of a command line, as argparse keeps them."""

    def add_parser(self, name: str, *, help: str) -> argparse.ArgumentParser:
        """Adds one."""


def add_place(command: argparse.ArgumentParser) -> None:
    """Adds the options that say where the data are."""
    place = command.add_mutually_exclusive_group()
    place.add_argument("--database-url", help="PostgreSQL URL, or 'embedded'")
    place.add_argument("--data-dir", help="where the embedded PostgreSQL keeps its data")


def settings_of(options: argparse.Namespace) -> Settings:
    """The settings, with what the command line gave of them.

    Raises:
        SettingsError: if a value cannot be used.
    """
    flags = {name: getattr(options, name, None) for name in ("host", "port", "env", "database_url", "data_dir")}
    return load(**flags)
