"""The database of a start: found, opened, migrated where that is wanted, refused where it cannot keep users apart."""

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from agentws.observe.meters import StoreMeter
from agentws.settings import Settings, default_data_dir, refusal
from agentws.store.embedded import EmbeddedPostgres
from agentws.store.login import powers_of_login
from agentws.store.migrate import MigrationError, login_of, make_database, migrate
from agentws.store.nodes import PgNodes
from agentws.store.pool import Database

__all__ = ["Found", "find_database", "open_database"]

EMBEDDED_LOGIN = "agentws"
# Connections of the embedded PostgreSQL, which refuses whatever is above its number: of each process, and of others.
_BESIDE_POOL, _BESIDE_PROCESSES = 2, 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """Where a database is.

    Args:
        url: to log in with.
        migrate_url: to migrate with; None where that is not done at a start.
        watch: never ends and keeps the database running; None where that is not ours to do.
    """

    url: str
    migrate_url: str | None
    watch: Callable[[], Awaitable[None]] | None = None


async def find_database(settings: Settings, stack: AsyncExitStack, *, prepared: bool = False) -> Found:
    """The database that the settings name; the embedded one is started, and stopped with the stack.

    Args:
        prepared: whether another process has made the embedded one's database and migrates.

    Raises:
        EmbeddedError: if the embedded one cannot be started.
    """
    if settings.database_url is not None and settings.database_url != "embedded":
        migrate_url = settings.migrate_url or settings.database_url
        migrates = settings.migrate_at_start and not prepared
        return Found(url=settings.database_url, migrate_url=migrate_url if migrates else None)
    connections = settings.workers * (settings.pool_size + _BESIDE_POOL) + _BESIDE_PROCESSES
    postgres = EmbeddedPostgres(Path(settings.data_dir or default_data_dir()), most_connections=max(100, connections))
    stack.callback(postgres.stop)
    postgres.start()
    url = postgres.url(user=EMBEDDED_LOGIN, database=EMBEDDED_LOGIN)
    if prepared:
        return Found(url=url, migrate_url=None, watch=postgres.watch)
    superuser = postgres.url(user="postgres", database="postgres")
    await make_database(superuser, database=EMBEDDED_LOGIN, login=EMBEDDED_LOGIN)
    return Found(url=url, migrate_url=postgres.url(user="postgres", database=EMBEDDED_LOGIN), watch=postgres.watch)


async def open_database(found: Found, settings: Settings, stack: AsyncExitStack, *, meter: StoreMeter) -> Database:
    """Opens a database that this code can work on; it is closed with the stack.

    Raises:
        StoreUnavailable: if it is not there in time.
        MigrationError: if its schema is not this version's.
        SettingsError: if the login could bypass row-level security, in production and not forced.
    """
    database = Database(found.url, size=settings.pool_size, timeout_s=settings.database_timeout_s, meter=meter)
    await database.open(wait_s=settings.database_wait_s)
    stack.push_async_callback(database.close)
    if found.migrate_url is not None:
        await migrate(found.migrate_url, login=login_of(found.url))
    if settings.env == "production" and "privileged_login" not in settings.forced:
        await _refuse_powers(database)
    if not await PgNodes(database).schema_is_current():
        raise MigrationError("the schema is not this version's; run `agentws migrate`")
    return database


async def _refuse_powers(database: Database) -> None:
    if powers := await powers_of_login(database):
        why = f"logs in as a role that could bypass row-level security: it {', and '.join(powers)}"
        raise refusal("database_url", why, force="privileged_login")
