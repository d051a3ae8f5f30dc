"""Brings a database to this version's schema: roles, numbered migrations in one transaction, rights of the login role.

Two processes may migrate one database, and two databases of one cluster may be migrated, at the same time.
"""

import asyncio
import logging
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import resources
from urllib.parse import unquote, urlsplit

import asyncpg

__all__ = ["NEWEST", "Migration", "MigrationError", "login_of", "make_database", "migrate", "migrations"]

log = logging.getLogger("agentws.store")

ROLES = ("agentws_app", "agentws_system")
_LOCK = 0x6167656E747773  # "agentws": the key of the advisory lock under which migrations are applied
_FILE = re.compile(r"(\d{4})_(\w+)\.sql")
# A superuser counts as a member of every role, and whoever migrates has to be one of ours.
_HAS_OURS = (
    "SELECT bool_or(pg_has_role(u.oid, o.oid, 'MEMBER')) FROM pg_roles u, pg_roles o"
    " WHERE u.rolname = $1 AND o.rolname = ANY ($2) AND NOT u.rolsuper AND u.rolname <> current_user"
)
_READABLE = re.compile(r"^-- readable from: (\d+)$", re.MULTILINE)
# Roles belong to the cluster, which has no lock of ours: a concurrent creation shows as one of these; it is repeated.
_ROLE_RACES = (asyncpg.UniqueViolationError, asyncpg.DuplicateObjectError, asyncpg.InternalServerError)


class MigrationError(RuntimeError):
    """The database cannot be brought to this schema; the text says why and what to do."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Migration:
    """One numbered file: `readable_from` is the oldest code, by its newest migration, that can work on its result."""

    number: int
    name: str
    sql: str
    readable_from: int


def migrations() -> Sequence[Migration]:
    """All migrations of this version, in order.

    Raises:
        MigrationError: if the numbers have a gap or a file does not say from which code on it can be read.
    """
    found = []
    for file in resources.files("agentws.store").joinpath("migrations").iterdir():
        if match := _FILE.fullmatch(file.name):
            sql = file.read_text(encoding="utf-8")
            if not (readable := _READABLE.search(sql)):
                raise MigrationError(f"{file.name} does not say from which code on it can be read")
            found.append(Migration(number=int(match[1]), name=match[2], sql=sql, readable_from=int(readable[1])))
    found.sort(key=lambda each: each.number)
    if [each.number for each in found] != list(range(1, len(found) + 1)):
        raise MigrationError("the numbers of the migrations have a gap")
    return found


NEWEST = len(migrations())


async def migrate(url: str, *, login: str | None = None) -> list[str]:
    """Migrates the database behind `url` and lets `login` call the units of work.

    Args:
        url: PostgreSQL URL of a role that may create roles and a schema.
        login: the role that the server logs in with; None: the role of `url`.

    Returns:
        The names of the migrations that were applied now, in order.

    Raises:
        MigrationError: if the schema is newer than this code can work on, or a role of ours has been given powers.
        asyncpg.PostgresError, OSError: if the database refuses or cannot be reached.
    """
    connection = await asyncpg.connect(
        url, server_settings={"application_name": "agentws migrate", "lock_timeout": "10s"}
    )
    try:
        await _make_roles(connection)
        async with connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
            applied = await _apply(connection)
            await _grant(connection, login or await connection.fetchval("SELECT current_user"))
    finally:
        await connection.close()
    return applied


async def make_database(url: str, *, database: str, login: str) -> None:
    """Makes a database and the role that the server logs in with, unless they are there.

    Args:
        url: of a superuser, to another database of the cluster.
        database: the database's name.
        login: the role's name.
    """
    connection = await asyncpg.connect(url)
    try:
        with suppress(asyncpg.DuplicateObjectError, asyncpg.UniqueViolationError):
            await connection.execute(f"CREATE ROLE {_quote(login)} LOGIN")
        with suppress(asyncpg.DuplicateDatabaseError, asyncpg.UniqueViolationError):
            await connection.execute(f"CREATE DATABASE {_quote(database)}")
    finally:
        await connection.close()


def login_of(url: str) -> str | None:
    """The role that a PostgreSQL URL logs in with; None where it names none."""
    user = urlsplit(url).username
    return unquote(user) if user else None


def _quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


async def _make_roles(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    for role in ROLES:
        for delay in (0.05, 0.1, 0.2, 0.4, 0.8, None):
            try:
                await _make_role(connection, role)
            except _ROLE_RACES:
                if delay is None:
                    raise
                await asyncio.sleep(delay)
            else:
                break
        powers = await connection.fetchrow(
            "SELECT rolsuper OR rolbypassrls OR rolcanlogin OR rolcreaterole OR rolcreatedb OR rolreplication"
            " OR EXISTS (SELECT 1 FROM pg_auth_members WHERE member = r.oid) AS any FROM pg_roles r WHERE rolname = $1",
            role,
        )
        if powers is None or powers["any"]:
            raise MigrationError(
                f"role {role} has powers of its own (login, superuser, BYPASSRLS, CREATEROLE, CREATEDB, REPLICATION,"
                " or another role's); take them from it first"
            )


async def _make_role(connection: "asyncpg.Connection[asyncpg.Record]", role: str) -> None:
    if not await connection.fetchval("SELECT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = $1)", role):
        await connection.execute(f"CREATE ROLE {role} NOLOGIN NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE")
    # To hand a function to a role one has to be its member; a superuser is one of every role.
    if not await connection.fetchval("SELECT pg_has_role(current_user, $1, 'USAGE')", role):
        await connection.execute(f"GRANT {role} TO CURRENT_USER")


async def _apply(connection: "asyncpg.Connection[asyncpg.Record]") -> list[str]:
    roles = ", ".join(ROLES)
    await connection.execute("CREATE SCHEMA IF NOT EXISTS agentws")
    await connection.execute("SET LOCAL search_path = agentws; SET LOCAL client_min_messages = warning")
    await connection.execute(
        "CREATE TABLE IF NOT EXISTS schema_migration (number integer PRIMARY KEY, name text NOT NULL,"
        " readable_from integer NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())"
    )
    row = await connection.fetchrow("SELECT number, readable_from FROM schema_migration ORDER BY number DESC LIMIT 1")
    if row is not None and row["readable_from"] > NEWEST:
        raise MigrationError(
            f"the schema is at {row['number']}, readable from {row['readable_from']} on; this code knows {NEWEST}"
        )
    pending = [each for each in migrations() if row is None or each.number > row["number"]]
    if pending:
        await connection.execute(f"GRANT USAGE, CREATE ON SCHEMA agentws TO {roles}")
        for each in pending:
            await connection.execute(each.sql)
            await connection.execute(
                "INSERT INTO schema_migration (number, name, readable_from) VALUES ($1, $2, $3)",
                each.number,
                each.name,
                each.readable_from,
            )
            log.info("applied migration %04d %s", each.number, each.name)
        await connection.execute(f"REVOKE CREATE ON SCHEMA agentws FROM {roles}")
    return [each.name for each in pending]


async def _grant(connection: "asyncpg.Connection[asyncpg.Record]", login: str) -> None:
    quoted = _quote(login)
    if await connection.fetchval(_HAS_OURS, login, list(ROLES)):
        raise MigrationError(
            f"role {login} is a member of {' or '.join(ROLES)}; a login must not be, revoke that first"
        )
    await connection.execute("REVOKE ALL ON ALL FUNCTIONS IN SCHEMA agentws FROM PUBLIC")
    await connection.execute(f"GRANT USAGE ON SCHEMA agentws TO {quoted}")
    for function in await connection.fetch(
        "SELECT p.oid::regprocedure::text AS name FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace"
        " WHERE n.nspname = 'agentws' AND p.prosecdef"
    ):
        await connection.execute(f"GRANT EXECUTE ON FUNCTION {function['name']} TO {quoted}")
