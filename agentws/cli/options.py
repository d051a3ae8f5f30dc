"""What commands have in common: the options that are settings, and the failures that are told in one line."""

import argparse
import logging
from typing import Protocol

import asyncpg

from agentws.ports import StoreUnavailable
from agentws.settings import FIELDS, Loaded, Settings, SettingsError, read
from agentws.store.embedded import EmbeddedError
from agentws.store.migrate import MigrationError

__all__ = ["EXPECTED", "Commands", "WorkerError", "add_place", "add_serve_options", "loaded_of", "settings_of"]

log = logging.getLogger("agentws")


class WorkerError(RuntimeError):
    """A process that should serve cannot; the text is what it would have said if it were alone."""


EXPECTED = (
    SettingsError,
    StoreUnavailable,
    EmbeddedError,
    MigrationError,
    WorkerError,
    asyncpg.PostgresError,
    OSError,
)
"""What goes wrong outside of this program: its text says what, and no stack is shown."""


class Commands(Protocol):
    """The commands of a command line, as argparse keeps them."""

    def add_parser(self, name: str, *, help: str) -> argparse.ArgumentParser:
        """Adds one."""


def add_place(command: argparse.ArgumentParser) -> None:
    """Adds the options that say for which environment, by which file, and where the data are."""
    command.add_argument("--env", help="development, test, staging or production")
    command.add_argument("--config", metavar="FILE", help="a TOML file of settings (default: AGENTWS_CONFIG)")
    place = command.add_mutually_exclusive_group()
    place.add_argument("--database-url", help="PostgreSQL URL, or 'embedded'")
    place.add_argument("--data-dir", help="where the embedded PostgreSQL keeps its data")


def add_serve_options(command: argparse.ArgumentParser) -> None:
    """Adds the options of `serve`."""
    command.add_argument("--host", help="address to listen on (default 127.0.0.1)")
    command.add_argument("--port", type=int, help="port to listen on (default 8000; 0: a free one)")
    command.add_argument("--workers", type=int, metavar="N", help="processes that serve the port (default 1)")
    command.add_argument("--agents", metavar="MODULE:NAME", help="a mapping of names to agents, or one agent")
    add_place(command)


def loaded_of(options: argparse.Namespace) -> Loaded:
    """The settings with their origins, with what the command line gave of them.

    Raises:
        SettingsError: if a value cannot be used.
    """
    flags = {name: value for name, value in vars(options).items() if name in FIELDS}
    return read(config=getattr(options, "config", None), **flags)


def settings_of(options: argparse.Namespace) -> Settings:
    """As `loaded_of`, the settings alone; what should be told of them is logged."""
    loaded = loaded_of(options)
    for warning in loaded.unknown:
        log.warning("%s", warning)
    return loaded.settings
