"""What tests are given: a PostgreSQL, a database each, a service in this process, a server in its own."""

import asyncio
import itertools
import os
import secrets
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from agentws.app import Service
from agentws.settings import Settings
from agentws.store.embedded import EmbeddedPostgres
from agentws.store.migrate import make_database, migrate

from . import sample_agents
from .faults import Line
from .processes import ServerProcess, running

LOGIN = "agentws"
MEMORY = "/dev/shm"
_numbers = itertools.count(1)


@dataclass(frozen=True)
class TestDatabase:
    """A migrated database of one test: `url` as the server logs in, `owner_url` as whoever migrated."""

    __test__ = False

    name: str
    url: str
    owner_url: str


@pytest.fixture(scope="session")
def cluster() -> Iterator[EmbeddedPostgres]:
    """One PostgreSQL for this process's tests."""
    # In memory where there is such a place: a database is several hundred files, and tests make a thousand of them.
    memory = MEMORY if os.access(MEMORY, os.W_OK) else None
    directory = Path(tempfile.mkdtemp(prefix="agentws-tests-", dir=memory))
    directory.chmod(0o755)
    postgres = EmbeddedPostgres(directory / "data")
    postgres.start()
    asyncio.run(_forget_durability(postgres))
    yield postgres
    postgres.stop()
    shutil.rmtree(directory, ignore_errors=True)


async def _forget_durability(postgres: EmbeddedPostgres) -> None:
    """Tests end processes and never the machine: without waiting for the disk their many databases are made fast."""
    connection = await asyncpg.connect(postgres.url(user="postgres", database="postgres"))
    try:
        for setting in ("fsync", "full_page_writes"):
            await connection.execute(f"ALTER SYSTEM SET {setting} = off")
        await connection.execute("SELECT pg_reload_conf()")
    finally:
        await connection.close()


@pytest.fixture(scope="session")
def template(cluster: EmbeddedPostgres) -> str:
    """The name of a migrated database, to be copied."""

    async def make() -> None:
        owner = cluster.url(user="postgres", database="postgres")
        await make_database(owner, database="template_agentws", login=LOGIN)
        await migrate(cluster.url(user="postgres", database="template_agentws"), login=LOGIN)

    asyncio.run(make())
    return "template_agentws"


async def copy_template(cluster: EmbeddedPostgres, template: str) -> TestDatabase:
    name = f"test_{next(_numbers)}"
    connection = await asyncpg.connect(cluster.url(user="postgres", database="postgres"))
    try:
        await connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
    finally:
        await connection.close()
    return TestDatabase(name, cluster.url(user=LOGIN, database=name), cluster.url(user="postgres", database=name))


@pytest.fixture
async def database(cluster: EmbeddedPostgres, template: str) -> AsyncIterator[TestDatabase]:
    """A database of this test's own; at its end no connection to it is left."""
    made = await copy_template(cluster, template)
    yield made
    connection = await asyncpg.connect(cluster.url(user="postgres", database="postgres"))
    try:
        # A backend is listed for a moment after its client has gone; dropping waits for that, and refuses for others.
        await connection.execute(f"DROP DATABASE {made.name}")
    finally:
        await connection.close()


StartService = Callable[..., Awaitable[Service]]


@pytest.fixture
async def start_service(database: TestDatabase) -> AsyncIterator[StartService]:
    """Starts services on this test's database; at its end they are stopped and no task is left."""
    before = asyncio.all_tasks()
    async with AsyncExitStack() as stack:

        async def start(agents: dict[str, Any] | None = None, **settings: Any) -> Service:
            values: dict[str, Any] = {
                "env": "test",
                "auth": "dev",
                "database_url": database.url,
                "migrate_url": database.owner_url,
                "pool_size": 4,
                "drain_grace_s": 0.0,
                "demo_words_per_s": 0.0,
                # Tests send faster than people do; those of this limit set it.
                "rate_limit_per_s": 0.0,
                **settings,
            }
            service = Service(Settings(**values), sample_agents.agents if agents is None else agents)
            await service.start()
            stack.push_async_callback(service.stop)
            return service

        yield start
    left = {task for task in asyncio.all_tasks() - before - {asyncio.current_task()} if not task.done()}
    assert not left, f"tasks left: {left}"


@pytest.fixture
async def service(start_service: StartService) -> Service:
    """A service with the sample agents."""
    return await start_service()


@pytest.fixture(scope="session")
def server(cluster: EmbeddedPostgres, template: str) -> Iterator[ServerProcess]:
    """A real server process in dev auth, for tests that keep apart by user."""
    yield from _serve(cluster, template, AGENTWS_ENV="development")


@pytest.fixture(scope="session")
def jwt_server(cluster: EmbeddedPostgres, template: str) -> Iterator[ServerProcess]:
    """A real server process that wants tokens."""
    secret = secrets.token_urlsafe(48)
    for each in _serve(cluster, template, AGENTWS_ENV="staging", AGENTWS_JWT_SECRET=secret):
        each.jwt_secret = secret
        yield each


def _serve(cluster: EmbeddedPostgres, template: str, **env: str) -> Iterator[ServerProcess]:
    made = asyncio.run(copy_template(cluster, template))
    with running({"AGENTWS_DATABASE_URL": made.url, "AGENTWS_MIGRATE_URL": made.owner_url, **env}) as process:
        yield process


_skipped: list[str] = []


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.skipped:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        _skipped.append(reason.removeprefix("Skipped: "))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A skipped test fails the run, unless its reason stands in tests/allowed_skips.txt."""
    lines = (Path(__file__).parent / "allowed_skips.txt").read_text().splitlines()
    if set(_skipped) - {line for line in lines if not line.startswith("#")}:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for reason in sorted(set(_skipped)):
        terminalreporter.write_line(f"skipped: {reason} (allowed only if it stands in tests/allowed_skips.txt)")


@pytest.fixture
def line(monkeypatch: pytest.MonkeyPatch) -> Line:
    """The line to the database, to be cut."""
    return Line(monkeypatch)
