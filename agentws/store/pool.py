"""Connections to PostgreSQL, handed out one call at a time: a call is a round trip and a transaction of its own.

Three doors: `user` acts for one principal, whose names are always the call's first arguments; `system` sees no
content; `listen` gives a connection outside of the pool, for notifications alone.
Whatever keeps a call from being answered in time is StoreUnavailable, and only that.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import asyncpg

from agentws.core.context import Principal
from agentws.observe.meters import StoreMeter
from agentws.ports import StoreUnavailable

__all__ = ["Database"]

log = logging.getLogger("agentws.store")

Row = asyncpg.Record

# PostgreSQL's way of saying that it is not there, is going, or could not answer in time; with what asyncpg and the
# socket say of the same. Anything else that it answers is a fault of ours.
_AWAY = (
    OSError,
    TimeoutError,
    asyncpg.InternalClientError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.TransactionRollbackError,
    asyncpg.LockNotAvailableError,
    asyncpg.ReadOnlySQLTransactionError,
)


if TYPE_CHECKING:
    _Connection = asyncpg.Connection[asyncpg.Record]
else:  # asyncpg's classes are generic in their stubs only
    _Connection = asyncpg.Connection


class Database:
    """A pool of connections, by hand: asyncpg's own costs a task and a turn of the loop at each release, which was
    measured to be a twelfth of a run.

    Args:
        url: PostgreSQL URL.
        size: number of connections.
        timeout_s: how long a call may take, waiting for a connection included.
        meter: told how long calls wait and take.
    """

    def __init__(self, url: str, *, size: int, timeout_s: float, meter: StoreMeter | None = None) -> None:
        self._url = url
        self.size = size
        self._timeout_s = timeout_s
        self._meter = meter or StoreMeter()
        self._calls = 0
        self._idle: list[_Connection] = []
        self._busy: set[_Connection] = set()
        self._free = asyncio.Semaphore(size)
        self._open = False

    @property
    def idle(self) -> int:
        """How many connections nobody uses now."""
        return len(self._idle)

    @property
    def busy(self) -> int:
        """How many connections are at work on a call."""
        return len(self._busy)

    @property
    def waiting(self) -> int:
        """How many calls wait for a connection."""
        return max(0, self._calls - self.size)

    async def open(self, *, wait_s: float) -> None:
        """Connects, waiting up to `wait_s` seconds for a database that is not there yet.

        Raises:
            StoreUnavailable: if it is not there by then, with what it said last.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + wait_s
        said = ""
        while len(self._idle) < self.size:
            try:
                async with asyncio.timeout(max(1.0, until - loop.time())):
                    self._idle.append(await self._connect())
            except _AWAY as error:
                if loop.time() >= until:
                    await self.close()
                    raise StoreUnavailable(f"no database within {wait_s:g} s: {error}") from error
                if said != str(error):
                    log.warning("waiting for the database: %s", error)
                    said = str(error)
                await asyncio.sleep(0.2)
            except BaseException:
                await self.close()
                raise
        self._open = True

    async def close(self) -> None:
        """Closes all connections; those that do not close in a second, or are at work, are dropped."""
        self._open = False
        idle, self._idle = self._idle, []
        for connection in self._busy:
            connection.terminate()
        await asyncio.gather(*(connection.close(timeout=1) for connection in idle), return_exceptions=True)

    async def user(self, principal: Principal, call: str, *args: Any) -> Sequence[Row]:
        """Calls a unit of work of one principal.

        Args:
            principal: for whom; fills the call's $1 (tenant) and $2 (user).
            call: one SELECT over one function, with parameters from $1 on.
            args: from $3 on.

        Raises:
            StoreUnavailable: if there was no answer in time; the call may have taken effect.
            asyncpg.PostgresError: if the database refuses what it was asked.
        """
        return await self._fetch(call, principal.tenant_id, principal.user_id, *args)

    async def system(self, call: str, *args: Any) -> Sequence[Row]:
        """Calls a unit of work of the system; as `user`, with `args` from $1 on."""
        return await self._fetch(call, *args)

    async def listen(self) -> _Connection:
        """Opens a connection of the caller's own, to listen and to notify; the caller ends it.

        Raises:
            StoreUnavailable: if there was none in time.
        """
        try:
            return await self._connect("agentws listen")
        except _AWAY as error:
            raise StoreUnavailable(str(error) or type(error).__name__) from error

    async def _fetch(self, call: str, *args: Any) -> Sequence[Row]:
        asked = time.monotonic()
        self._calls += 1
        try:
            async with asyncio.timeout(self._timeout_s), self._free:
                self._meter.waited(time.monotonic() - asked)
                return await self._fetch_on_one(call, *args)
        except StoreUnavailable:
            self._meter.unavailable()
            raise
        except _AWAY as error:
            self._meter.unavailable()
            raise StoreUnavailable(str(error) or type(error).__name__) from error
        finally:
            self._calls -= 1

    async def _fetch_on_one(self, call: str, *args: Any) -> Sequence[Row]:
        connection = await self._take()
        self._busy.add(connection)
        try:
            began = time.monotonic()
            rows: list[Row] = await connection.fetch(call, *args)
            self._meter.answered(call, time.monotonic() - began)
        except asyncpg.PostgresError:
            # The server has answered: the connection is as good as before, unless this was its last word.
            raise
        except asyncpg.InterfaceError as error:
            # Said of a connection that is closed, and of calls that are wrong in themselves.
            if connection.is_closed():
                raise StoreUnavailable(str(error)) from error
            raise
        except BaseException:
            # What the server is doing with it is not known, so that nobody else gets it. Nothing is waited for here: a
            # line that carries nothing would keep this call beyond its time.
            connection.terminate()
            raise
        finally:
            self._busy.discard(connection)
            self._give_back(connection)
        return rows

    async def _take(self) -> _Connection:
        if not self._open:
            raise StoreUnavailable("not connected")
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_closed():
                return connection
        return await self._connect()

    def _give_back(self, connection: _Connection) -> None:
        if self._open and not connection.is_closed():
            self._idle.append(connection)
        elif not connection.is_closed():
            connection.terminate()

    async def _connect(self, name: str = "agentws") -> _Connection:
        # Every setting of a unit of work ends with its transaction, so that nothing has to be reset between two.
        return await asyncpg.connect(
            self._url,
            timeout=self._timeout_s,
            max_cached_statement_lifetime=0,
            server_settings={"jit": "off", "application_name": name},
        )
