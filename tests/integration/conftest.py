"""A PostgreSQL that a test may stop and kill, and servers on it."""

import asyncio
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from agentws.store.embedded import EmbeddedPostgres
from agentws.store.migrate import make_database

from ..conformance.client import Client
from ..processes import ServerProcess, running

LEASE_TTL_S = "3"
Serve = Callable[..., ServerProcess]


async def answered_again(client: Client) -> None:
    """Asks until the server reaches its database again; each refusal says why."""
    async with asyncio.timeout(30):
        while True:
            answer = await client.ask({"type": "chat", "payload": {"content": "back?", "agent": "echo"}})
            if answer["type"] == "request_accepted":
                await client.ended(answer["run_id"])
                return
            assert answer["code"] == "database_unavailable"
            assert answer["message"] == "Failed to process chat. Please try again."


@pytest.fixture
def postgres() -> Iterator[EmbeddedPostgres]:
    """A PostgreSQL of this test's own, with an empty database `agentws`."""
    directory = Path(tempfile.mkdtemp(prefix="agentws-own-"))
    directory.chmod(0o755)
    own = EmbeddedPostgres(directory / "data")
    own.start()
    asyncio.run(make_database(own.url(user="postgres", database="postgres"), database="agentws", login="agentws"))
    yield own
    own.stop()
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """Where a server's embedded PostgreSQL keeps its data."""
    directory = Path(tempfile.mkdtemp(prefix="agentws-data-"))
    directory.chmod(0o755)
    yield directory / "data"
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def serve(postgres: EmbeddedPostgres) -> Iterator[Serve]:
    """Starts servers on `postgres`; keyword arguments are settings."""
    with ExitStack() as stack:

        def start(**settings: str) -> ServerProcess:
            env = {
                "AGENTWS_DATABASE_URL": postgres.url(user="agentws", database="agentws"),
                "AGENTWS_MIGRATE_URL": postgres.url(user="postgres", database="agentws"),
                "AGENTWS_LEASE_TTL_S": LEASE_TTL_S,
                "AGENTWS_DRAIN_GRACE_S": "1",
                "AGENTWS_RATE_LIMIT_PER_S": "0",
                **{f"AGENTWS_{name.upper()}": value for name, value in settings.items()},
            }
            return stack.enter_context(running(env))

        yield start
