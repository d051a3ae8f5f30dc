"""The world that a chaos run happens in: one PostgreSQL, a breakable line to it for each server, and the servers.

All of it is real, on the loopback, and gone at the end.
"""

import asyncio
import logging
import os
import random
import shutil
import socket
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

from scripts.chaos.clock import Clock
from scripts.chaos.database import LOGIN, ChaosDatabase
from scripts.chaos.pgproxy import PgProxy
from scripts.chaos.processes import children_of, is_alive
from scripts.chaos.servers import ChaosServer

__all__ = ["LEASE_S", "World", "free_ports"]

LEASE_S = 2.0
_PORTS = range(21_000, 32_000)  # below those that the kernel gives to clients, so that a restarted server gets its own
_MEMORY = Path("/dev/shm")
_SETTINGS: Mapping[str, str] = {
    "ENV": "development",
    "AUTH": "dev",
    "MIGRATE_AT_START": "false",
    "LEASE_TTL_S": str(LEASE_S),
    "RESTART_DELAY_S": "0.1",
    "DRAIN_GRACE_S": "1",
    "STOP_GRACE_S": "1",
    "DISCONNECT_GRACE_S": "2",
    "DATABASE_TIMEOUT_S": "2",
    "DATABASE_WAIT_S": "60",
    "POOL_SIZE": "6",
    "POLL_INTERVAL_MS": "200",
    "RECONCILE_INTERVAL_MS": "500",
    "SEND_BUFFER_BYTES": "16384",
    "RATE_LIMIT_PER_S": "0",
    "MAX_RUNS_PER_USER": "0",
    "MAX_CONNECTIONS_PER_USER": "0",
    "DEMO_WORDS_PER_S": "0",
    "LOG_FORMAT": "json",
}


class World:
    """An asynchronous context: begun when entered, nothing of it left afterwards.

    Args:
        servers: how many.
        max_runs: how many runs may be at work in each; further ones wait, and are claimed by whoever is free.
        clock: what shifts the servers' clocks.
        rng: for what the lines lose.
    """

    def __init__(self, *, servers: int, max_runs: int, clock: Clock, rng: random.Random) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="agentws-chaos-", dir=_MEMORY if _writable(_MEMORY) else None))
        self.directory.chmod(0o755)
        self.logs = self.directory / "logs"
        self.logs.mkdir()
        self.tool_log = self.logs / "tools.log"
        self.database = ChaosDatabase(self.directory / "data", _quiet_log())
        # One fault at a time has the database.
        self.database_lock = asyncio.Lock()
        ports = free_ports(2 * servers)
        self.servers: list[ChaosServer] = []
        self.proxies: list[PgProxy] = []
        self._ports = ports[:servers]
        self._proxy_ports = ports[servers:]
        self._max_runs = max_runs
        self._clock = clock
        self._rng = rng
        self._processes: set[int] = set()

    @property
    def urls(self) -> list[str]:
        """Where the servers are, whether they run or not."""
        return [f"http://127.0.0.1:{port}" for port in self._ports]

    async def __aenter__(self) -> Self:
        try:
            await self._begin()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _begin(self) -> None:
        await self.database.start()
        for number, (port, proxy_port) in enumerate(zip(self._ports, self._proxy_ports, strict=True), start=1):
            proxy = PgProxy(proxy_port, self.database.socket, random.Random(self._rng.getrandbits(64)))
            await proxy.start()
            self.proxies.append(proxy)
            shift = self._clock.of_server(random.Random(self._rng.getrandbits(64)))
            name = f"server-{number}"
            server = ChaosServer(name, port, self._env(proxy_port), self.logs / f"{name}.log", shift)
            server.start()
            self.servers.append(server)
        await self.all_ready()

    def _env(self, proxy_port: int) -> dict[str, str]:
        settings = {
            **_SETTINGS,
            "DATABASE_URL": f"postgresql://{LOGIN}@127.0.0.1:{proxy_port}/{LOGIN}?sslmode=disable",
            "BROKER": "postgres" if len(self._ports) > 1 else "local",
            "MAX_RUNS": str(self._max_runs),
        }
        return {f"AGENTWS_{name}": value for name, value in settings.items()} | {"CHAOS_TOOL_LOG": str(self.tool_log)}

    async def all_ready(self) -> None:
        """Waits until every server serves."""
        await asyncio.gather(*(server.is_ready() for server in self.servers))

    async def mend(self) -> None:
        """Undoes every fault, and waits until all serves again."""
        for proxy in self.proxies:
            proxy.mend()
        async with self.database_lock:
            await self.database.start_again()
        for server in self.servers:
            async with server.lock:
                server.resume()
        await self.all_ready()

    @property
    def counts(self) -> Counter[str]:
        """What became of servers and lines so far."""
        counts = [server.counts for server in self.servers] + [proxy.counts for proxy in self.proxies]
        return sum(counts, Counter())

    def memory(self) -> dict[str, int]:
        """The bytes that each server holds."""
        return {server.name: server.memory for server in self.servers}

    async def end_servers(self) -> None:
        """Ends the servers as SIGTERM ends them; the database goes on."""
        await asyncio.gather(*(server.close() for server in self.servers))

    async def close(self) -> None:
        """Ends everything that is left."""
        self._processes |= set(children_of(os.getpid()))
        for proxy in self.proxies:
            proxy.mend()
        await self.end_servers()
        await asyncio.gather(*(proxy.close() for proxy in self.proxies))
        self.database.close()

    def left(self) -> list[str]:
        """What is still there after the end: processes and ports, as texts."""
        processes = [f"process {pid}" for pid in sorted(self._processes) if is_alive(pid)]
        ports = [f"port {port}" for port in (*self._ports, *self._proxy_ports) if not _is_free(port)]
        return processes + ports

    def remove(self, keep: Path | None) -> None:
        """Removes its directory; where `keep` is given its logs are moved there."""
        if keep is not None:
            keep.mkdir(parents=True, exist_ok=True)
            for log in (*self.logs.iterdir(), self.directory / "data" / "postgres.log"):
                with suppress(FileNotFoundError):
                    shutil.copy(log, keep)
        shutil.rmtree(self.directory, ignore_errors=True)


def _writable(directory: Path) -> bool:
    return directory.is_dir() and os.access(directory, os.W_OK)


def _quiet_log() -> logging.Logger:
    """The database's starts and ends are what is wanted here, and no news."""
    log = logging.getLogger("chaos.database")
    log.addHandler(logging.NullHandler())
    log.propagate = False
    return log


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def free_ports(count: int) -> Sequence[int]:
    """Ports of the loopback that nobody has, for servers that come and go."""
    # Not of the seed: two runs of one seed at the same time have to differ in this.
    tried = random.SystemRandom().sample(_PORTS, len(_PORTS))
    found: list[int] = []
    for port in tried:
        if _is_free(port):
            found.append(port)
        if len(found) == count:
            return found
    raise OSError(f"no {count} free ports in {_PORTS}")
