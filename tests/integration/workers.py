"""A server of several processes, and what can be known of each of them from outside."""

import asyncio
import os
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path

from ..conformance.client import Client, connect
from ..processes import ServerProcess

__all__ = ["begun", "is_alive", "process_of", "processes", "serving", "two_clients", "until"]

PATIENCE_S = 30.0


async def until(condition: Callable[[], object]) -> None:
    """Looks until it is so: what other processes do, and what they write to a log, nobody here is told of."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            if condition():
                return
            await asyncio.sleep(0.02)


def begun(server: ServerProcess) -> list[tuple[int, int]]:
    """Number and process id of each worker that was begun, in order."""
    found = (re.search(r"worker (\d+) is process (\d+)$", line.strip()) for line in [*server.log])
    return [(int(match[1]), int(match[2])) for match in found if match]


def processes(server: ServerProcess) -> dict[int, int]:
    """The process of each worker's number, the last that was begun."""
    return dict(begun(server))


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@contextmanager
def serving(env: dict[str, str], *arguments: str) -> Iterator[ServerProcess]:
    """Two workers with the agents of `worker_agents`; at the end none of their processes may be left."""
    server = ServerProcess(
        {
            "AGENTWS_WORKERS": "2",
            "AGENTWS_LEASE_TTL_S": "3",
            "AGENTWS_DRAIN_GRACE_S": "1",
            "AGENTWS_RATE_LIMIT_PER_S": "0",
            "AGENTWS_MAX_CONNECTIONS_PER_USER": "0",
            **env,
        },
        ("--agents", "tests.integration.worker_agents:agents", *arguments),
    )
    server.start()
    try:
        yield server
    finally:
        server.stop()
        left = [pid for _, pid in begun(server) if is_alive(pid)]
        for pid in left:
            os.kill(pid, 9)
        assert not left


async def process_of(client: Client) -> int:
    """Where a connection's runs are worked on: a run begins in the process that accepted it."""
    return int((await client.run("which?", agent="process"))[-1]["payload"]["response"])


@asynccontextmanager
async def two_clients(server: ServerProcess, user: str) -> AsyncIterator[tuple[Client, int, Client, int]]:
    """Two connections of a user, each with the id of its process, which are not the same."""
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(connect(server, user))
        here = await process_of(first)
        async with asyncio.timeout(PATIENCE_S):
            while True:
                second = await stack.enter_async_context(connect(server, user))
                there = await process_of(second)
                if there != here:
                    break
        yield first, here, second, there
