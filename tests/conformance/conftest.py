"""The servers of the suite, one a set of settings; and, where somebody else's server is asked, what cannot be."""

import asyncio
import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from agentws.store.embedded import EmbeddedPostgres

from ..conftest import copy_template
from ..processes import ServerProcess, running
from .servers import NEEDS, REMOTE, JwtServer, Server, offered

__all__: list[str] = []

HERE = "tests/conformance/"
# What the servers of these fixtures have that a server of somebody else's has not.
FIXTURE_NEEDS = {
    "jwt_server": "jwt",
    "limited": "settings",
    "unlimited": "settings",
    "strict": "settings",
    "counted": "quiet",
    "own_servers": "process",
}
GRACE_S = "1"


class OwnServers:
    """Starts servers on databases of their own. `database_urls` tells the owner's URL of each server's database."""

    def __init__(self, cluster: EmbeddedPostgres, template: str) -> None:
        self._cluster, self._template = cluster, template

    @contextmanager
    def serving(self, **settings: str) -> Iterator[ServerProcess]:
        """A server with these settings, which are named without `AGENTWS_`."""
        with ThreadPoolExecutor(1) as beside_a_running_loop:
            copied = beside_a_running_loop.submit(asyncio.run, copy_template(self._cluster, self._template))
            made = copied.result()
        env = {"AGENTWS_DATABASE_URL": made.url, "AGENTWS_MIGRATE_URL": made.owner_url}
        secret = settings.get("JWT_SECRET", "")
        named = {"ENV": "staging" if secret else "development", "DISCONNECT_GRACE_S": GRACE_S} | settings
        with running(env | {f"AGENTWS_{name}": value for name, value in named.items()}) as process:
            process.jwt_secret = secret
            yield process


@pytest.fixture(scope="session")
def own_servers(cluster: EmbeddedPostgres, template: str) -> OwnServers:
    return OwnServers(cluster, template)


@pytest.fixture(scope="session")
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server with the settings that everyone gets, but for the grace time of `on_disconnect`."""
    if REMOTE is not None:
        yield REMOTE
    else:
        with request.getfixturevalue("own_servers").serving() as process:
            yield process


@pytest.fixture(scope="session")
def jwt_server(request: pytest.FixtureRequest) -> Iterator[JwtServer]:
    """A server that wants tokens."""
    if REMOTE is not None:
        yield REMOTE
    else:
        with request.getfixturevalue("own_servers").serving(JWT_SECRET=secrets.token_urlsafe(48)) as process:
            yield process


@pytest.fixture(scope="session")
def limited(own_servers: OwnServers) -> Iterator[Server]:
    """A server whose limits are reached at once."""
    limits = {"RATE_LIMIT_PER_S": "20", "RATE_LIMIT_BURST": "40", "MAX_MESSAGE_BYTES": "65536"}
    limits |= {"MAX_CONNECTIONS": "6", "MAX_CONNECTIONS_PER_USER": "2", "MAX_SUBSCRIPTIONS": "2"}
    limits |= {"MAX_THREADS_PER_USER": "3", "MAX_RUNS_PER_USER": "3", "MAX_WAITING_RUNS": "4"}
    with own_servers.serving(**limits, HEARTBEAT_INTERVAL_S="1") as process:
        yield process


@pytest.fixture(scope="session")
def unlimited(own_servers: OwnServers) -> Iterator[Server]:
    """A server whose limits are switched off."""
    names = ["RATE_LIMIT_PER_S", "RATE_LIMIT_BURST", "MAX_CONNECTIONS", "MAX_CONNECTIONS_PER_USER"]
    names += ["MAX_SUBSCRIPTIONS", "MAX_THREADS_PER_USER", "MAX_RUNS_PER_USER", "MAX_WAITING_RUNS"]
    with own_servers.serving(**dict.fromkeys(names, "0")) as process:
        yield process


@pytest.fixture(scope="session")
def strict(own_servers: OwnServers) -> Iterator[JwtServer]:
    """A server with claims of its own names, a list of origins, and a token for its operators."""
    settings = {"TENANT_CLAIM": "org", "USER_CLAIM": "uid", "STATS_TOKEN": "operators-" + "x" * 32}
    settings |= {"ALLOWED_ORIGINS": "https://app.example,https://other.example:8443"}
    with own_servers.serving(JWT_SECRET=secrets.token_urlsafe(48), **settings) as process:
        yield process


@pytest.fixture(scope="session")
def counted(own_servers: OwnServers) -> Iterator[Server]:
    """A server that only those who count its frames speak with."""
    with own_servers.serving() as process:
        yield process


def missing(item: pytest.Item, has: frozenset[str]) -> list[str]:
    """What an item needs and a server does not have."""
    needed = {need for marker in item.iter_markers("needs") for need in marker.args}
    assert needed <= NEEDS.keys(), f"{item.nodeid} needs {needed}"
    needed |= {FIXTURE_NEEDS[name] for name in getattr(item, "fixturenames", []) if name in FIXTURE_NEEDS}
    return sorted(needed - has)


def named(item: pytest.Item) -> str:
    """The test, without the parameters of this item."""
    return item.nodeid.removeprefix(HERE).partition("[")[0]


def reasons(needs: list[str]) -> str:
    return "; ".join(NEEDS[need] for need in needs)


NOT_RUN = pytest.StashKey[dict[str, str]]()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out what a server of somebody else's cannot be asked, and notes why."""
    here = [item for item in items if item.nodeid.startswith(HERE)]
    lacks = {item: missing(item, offered(REMOTE) if REMOTE else frozenset(NEEDS)) for item in here}
    left_out = [item for item in here if lacks[item]]
    run = {named(item) for item in here if not lacks[item]}
    config.stash[NOT_RUN] = {
        item.nodeid.removeprefix(HERE) if named(item) in run else named(item): reasons(lacks[item]) for item in left_out
    }
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not lacks.get(item)]


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A worker of several tells its list to the one that reports."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["not_run"] = session.config.stash.get(NOT_RUN, {})


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    node.config.stash[NOT_RUN] = getattr(node, "workeroutput", {}).get("not_run", {})


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    not_run = config.stash.get(NOT_RUN, {})
    if not_run:
        terminalreporter.section("not run against this server")
        for reason in sorted(set(not_run.values())):
            terminalreporter.write_line(f"{reason}:")
            for name in sorted(name for name, why in not_run.items() if why == reason):
                terminalreporter.write_line(f"  {name}")
