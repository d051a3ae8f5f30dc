"""`agentws new-epoch`: tells every client, after a restore or a failover, that the past is not what it was."""

import argparse
import asyncio

from agentws.cli.options import Commands, add_database_options, settings_of
from agentws.settings import SettingsError
from agentws.store.nodes import PgNodes
from agentws.store.pool import Database

__all__ = ["add_to"]
