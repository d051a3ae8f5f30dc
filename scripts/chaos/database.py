"""A real PostgreSQL that can be killed as a crash kills it, stopped for a while, and started again on the same data."""

import asyncio
import logging
import os
import random
import signal
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import asyncpg

from agentws.store.embedded import EmbeddedPostgres
from agentws.store.migrate import make_database, migrate
from scripts.chaos.processes import children_of, is_alive

__all__ = ["LOGIN", "ChaosDatabase"]

LOGIN = "agentws"
_UP_S = 60.0
_PAUSE_S = 0.05
_SERVED = "SELECT pid FROM pg_stat_activity WHERE usename = $1 ORDER BY pid"


class ChaosDatabase:
    """The PostgreSQL of one directory. `log`: told when it is started again."""

    def __init__(self, directory: Path, log: logging.Logger) -> None:
        self._postgres = EmbeddedPostgres(directory, log=log)

    async def start(self) -> None:
        """Makes the cluster and a migrated database; from the main thread only."""
        self._postgres.start()
        superuser = self._postgres.url(user="postgres", database="postgres")
        await make_database(superuser, database=LOGIN, login=LOGIN)
        await migrate(self._superuser_url, login=LOGIN)

    def close(self) -> None:
        """Stops it for good."""
        self._postgres.stop()

    @property
    def _superuser_url(self) -> str:
        return self._postgres.url(user="postgres", database=LOGIN)

    @property
    def socket(self) -> Path:
        """The Unix socket that it listens on."""
        (directory,) = parse_qs(urlsplit(self._superuser_url).query)["host"]
        return Path(directory, ".s.PGSQL.5432")

    @property
    def _root(self) -> Path:
        return self.socket.parent.parent

    @property
    def log_text(self) -> str:
        """What it has logged."""
        return (self._root / "postgres.log").read_text(errors="replace")

    def _postmaster(self) -> int:
        return int((self._root / "data" / "postmaster.pid").read_text().split()[0])

    async def kill(self) -> None:
        """SIGKILL for all its processes at once: the next start recovers from a crash."""
        postmaster = self._postmaster()
        os.kill(postmaster, signal.SIGSTOP)
        pids = [postmaster, *children_of(postmaster)]
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        await _gone(pids)

    async def stop(self) -> None:
        """PostgreSQL's fast shutdown, which ends every connection."""
        postmaster = self._postmaster()
        os.kill(postmaster, signal.SIGINT)
        try:
            await _gone([postmaster])
        except TimeoutError:
            await self.kill()

    async def start_again(self) -> None:
        """Starts it, unless it runs, and waits until it takes connections."""
        keeping = asyncio.ensure_future(self._postgres.watch())
        try:
            await _until(self._answers)
        finally:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)

    async def _answers(self) -> bool:
        with suppress(OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return bool(await self.fetch("SELECT 1"))
        return False

    async def fetch(self, query: str, *args: Any) -> Sequence[asyncpg.Record]:
        """Asks as a superuser, beside the line that servers use."""
        connection = await asyncpg.connect(self._superuser_url, timeout=5, command_timeout=30)
        try:
            rows: list[asyncpg.Record] = await connection.fetch(query, *args)
            return rows
        finally:
            connection.terminate()

    async def terminate(self, share: float, rng: random.Random) -> int:
        """Ends a share of the connections that servers have, at least one; returns how many."""
        pids = [row["pid"] for row in await self.fetch(_SERVED, LOGIN)]
        chosen = rng.sample(pids, min(len(pids), max(1, round(share * len(pids)))))
        if chosen:
            await self.fetch("SELECT pg_terminate_backend(pid) FROM unnest($1::integer[]) AS x (pid)", chosen)
        return len(chosen)


async def _gone(pids: Sequence[int]) -> None:
    async def holds() -> bool:
        return not any(is_alive(pid) for pid in pids)

    await _until(holds)


async def _until(holds: Callable[[], Awaitable[bool]]) -> None:
    """Waits for another process, which tells nobody: so it is asked for."""
    async with asyncio.timeout(_UP_S):
        while True:
            if await holds():
                return
            await asyncio.sleep(_PAUSE_S)
