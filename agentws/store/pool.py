"""Connections to PostgreSQL, handed out one call at a time: a call is a round trip and a transaction of its own.

Two doors: `user` acts for one principal, whose names are always the call's first arguments; `system` sees no content.
Whatever keeps a call from being answered in time is StoreUnavailable, and only that.
"""

import asyncio
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import asyncpg

from agentws.core.context import Principal
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
    _Plain = asyncpg.Connection[asyncpg.Record]
else:  # asyncpg's classes are generic in their stubs only
    _Plain = asyncpg.Connection


class _Connection(_Plain):
    """Every setting here ends with its transaction, so that a released connection has nothing to be reset."""

    def get_reset_query(self) -> str:
        return ""


class Database:
    """A pool of connections.

    Args:
        url: PostgreSQL URL.
        size: number of connections.
        timeout_s: how long a call may take, waiting for a connection included.
    """

    def __init__(self, url: str, *, size: int, timeout_s: float) -> None:
        self._url = url
        self._size = size
        self._timeout_s = timeout_s
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None

    async def open(self, *, wait_s: float) -> None:
        """Connects, waiting up to `wait_s` seconds for a database that is not there yet.

        Raises:
            StoreUnavailable: if it is not there by then, with what it said last.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + wait_s
        said = ""
        while True:
            try:
                async with asyncio.timeout(max(1.0, until - loop.time())):
                    self._pool = await asyncpg.create_pool(
                        self._url,
                        min_size=self._size,
                        max_size=self._size,
                        max_inactive_connection_lifetime=0,
                        max_cached_statement_lifetime=0,
                        connection_class=_Connection,
                        server_settings={"jit": "off", "application_name": "agentws"},
                    )
                return
            except _AWAY as error:
                if loop.time() >= until:
                    raise StoreUnavailable(f"no database within {wait_s:g} s: {error}") from error
                if said != str(error):
                    log.warning("waiting for the database: %s", error)
                    said = str(error)
                await asyncio.sleep(0.2)

    async def close(self) -> None:
        """Closes all connections; those that do not close in a second are dropped."""
        pool, self._pool = self._pool, None
        if pool is None:
            return
        try:
            async with asyncio.timeout(1):
                await pool.close()
        except TimeoutError:
            pool.terminate()

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

    async def _fetch(self, call: str, *args: Any) -> Sequence[Row]:
        pool = self._pool
        if pool is None:
            raise StoreUnavailable("not connected")
        connection = None
        try:
            async with asyncio.timeout(self._timeout_s):
                connection = await pool.acquire()
                try:
                    rows: list[Row] = await connection.fetch(call, *args)
                finally:
                    # A release waits for the end of a call that was cut short; on a dead line that needs a limit too.
                    await pool.release(connection, timeout=self._timeout_s)
            return rows
        except _AWAY as error:
            raise StoreUnavailable(str(error) or type(error).__name__) from error
        except asyncpg.InterfaceError as error:
            # Said of a connection or a pool that is closed, and of calls that are wrong in themselves.
            if connection is not None and not connection.is_closed() and not pool.is_closing():
                raise
            raise StoreUnavailable(str(error)) from error
