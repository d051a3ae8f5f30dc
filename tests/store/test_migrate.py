"""Migrations: each applied once, by whoever comes first, and refused where the result could not be trusted."""

import asyncio
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest

import agentws
from agentws.store.embedded import EmbeddedPostgres
from agentws.store.migrate import NEWEST, ROLES, MigrationError, login_of, make_database, migrate, migrations
from agentws.store.pool import Database

from .conftest import ANN, LIMIT_S, NODE, Connection, Store, until

NAMES = [each.name for each in migrations()]
MIGRATOR = "schema owner"  # has to be quoted
SIGHT = "application_name = 'agentws migrate'"
PROCESS = "import asyncio, sys; from agentws.store.migrate import migrate; print(asyncio.run(migrate(*sys.argv[1:])))"


class Bare:
    """A PostgreSQL in which nothing of ours is; what a test makes in it is removed after it."""

    def __init__(self, postgres: EmbeddedPostgres, connection: Connection) -> None:
        self._postgres = postgres
        self.connection = connection

    def url(self, database: str = "postgres", *, user: str = "postgres") -> str:
        return self._postgres.url(user=user, database=database)

    async def make(self, *databases: str) -> list[str]:
        """URLs of new databases, and the role `login`."""
        for name in databases:
            await make_database(self.url(), database=name, login="login")
        return [self.url(name) for name in databases]

    async def clean(self) -> None:
        rows = await self.connection.fetch("SELECT datname FROM pg_database WHERE datname !~ '^(postgres|template.*)$'")
        for row in rows:
            await self.connection.execute(f'DROP DATABASE "{row["datname"]}"')
        for role in (*ROLES, MIGRATOR, "login", "other"):
            await self.connection.execute(f'DROP ROLE IF EXISTS "{role}"')


@pytest.fixture(scope="module")
def bare_cluster() -> Iterator[EmbeddedPostgres]:
    """A PostgreSQL beside the one of the other tests, because roles belong to all of it."""
    directory = Path(tempfile.mkdtemp(prefix="agentws-bare-"))
    directory.chmod(0o755)
    postgres = EmbeddedPostgres(directory / "data")
    postgres.start()
    yield postgres
    postgres.stop()
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
async def bare(bare_cluster: EmbeddedPostgres) -> AsyncIterator[Bare]:
    connection: Connection = await asyncpg.connect(bare_cluster.url(user="postgres", database="postgres"))
    made = Bare(bare_cluster, connection)
    yield made
    await made.clean()
    await connection.close()


async def works(url: str) -> None:
    """A run goes from its start to its end over this URL."""
    pool = Database(url, size=1, timeout_s=LIMIT_S)
    await pool.open(wait_s=LIMIT_S)
    store = Store.over(pool)
    assert await store.nodes.schema_is_current()
    await store.finish(await store.claimed())
    assert [type_ for _, type_, _ in await store.events()] == ["agent_started", "agent_completed"]
    await store.nodes.register(NODE, "host", ttl_s=1, agents=["demo"])
    await pool.close()


async def fetchval(url: str, sql: str) -> object:
    connection: Connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(sql)
    finally:
        await connection.close()


# The files


def test_the_numbers_have_no_gap_and_each_says_from_which_code_on_it_is_read() -> None:
    found = migrations()
    assert [each.number for each in found] == list(range(1, NEWEST + 1))
    files = Path(agentws.__file__).parent.glob("store/migrations/*.sql")
    assert [f"{each.number:04d}_{each.name}.sql" for each in found] == sorted(file.name for file in files)
    assert all(1 <= each.readable_from <= each.number for each in found)


@pytest.mark.parametrize(
    ("name", "sql", "says"),
    [
        ("9999_later.sql", "-- readable from: 1\n", "the numbers of the migrations have a gap"),
        (f"{NEWEST + 1:04d}_next.sql", "SELECT 1;\n", "does not say from which code on it can be read"),
    ],
)
def test_files_that_do_not_follow_the_rules_are_refused(tmp_path: Path, name: str, sql: str, says: str) -> None:
    finished = run_copy(tmp_path, name, sql)
    assert finished.returncode != 0
    assert says in finished.stderr


def run_copy(place: Path, name: str, sql: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Migrates with a copy of the package that has one more migration."""
    shutil.copytree(Path(agentws.__file__).parent, place / "agentws", ignore=shutil.ignore_patterns("__pycache__"))
    (place / "agentws/store/migrations" / name).write_text(sql)
    return subprocess.run(
        [sys.executable, "-c", PROCESS, *arguments], cwd=place, text=True, capture_output=True, timeout=60, check=False
    )


# Applying


async def test_a_bare_database_is_brought_to_the_newest_schema(bare: Bare) -> None:
    [url] = await bare.make("one")
    assert await migrate(url, login="login") == NAMES
    await works(bare.url("one", user="login"))


async def test_migrating_again_changes_nothing(bare: Bare) -> None:
    [url] = await bare.make("one")
    await migrate(url, login="login")
    facts = (
        "SELECT array_agg(x::text ORDER BY x::text) FROM (SELECT relname, relacl FROM pg_class WHERE relnamespace ="
        " 'agentws'::regnamespace UNION ALL SELECT proname, proacl FROM pg_proc WHERE pronamespace ="
        " 'agentws'::regnamespace UNION ALL SELECT name, NULL FROM agentws.schema_migration) x"
    )
    before = await fetchval(url, facts)
    assert await migrate(url, login="login") == []
    assert await fetchval(url, facts) == before


async def test_a_second_login_role_is_let_in_beside_the_first(bare: Bare) -> None:
    [url] = await bare.make("one")
    await migrate(url, login="login")
    await make_database(bare.url(), database="one", login="other")
    assert await migrate(url, login="other") == []
    await works(bare.url("one", user="other"))
    assert await fetchval(bare.url("one", user="login"), "SELECT newest FROM agentws.schema_state()") == NEWEST


async def test_two_who_migrate_one_database_at_once_apply_each_once(bare: Bare) -> None:
    [url] = await bare.make("one")
    await migrate((await bare.make("other"))[0], login="login")  # the roles are there
    connection: Connection = await asyncpg.connect(url)
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1)", 0x6167656E747773)
        both = [asyncio.ensure_future(migrate(url, login="login")) for _ in range(2)]
        await until(
            connection, "SELECT count(*) = 2 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        )  # fmt: skip
    await connection.close()
    assert sorted(await asyncio.gather(*both)) == [[], NAMES]
    await works(bare.url("one", user="login"))


async def test_two_processes_on_one_database_apply_each_once(bare: Bare) -> None:
    [url] = await bare.make("one")
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", PROCESS, url, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        for _ in range(2)
    ]
    async with asyncio.timeout(LIMIT_S):
        told = await asyncio.gather(*(process.communicate() for process in processes))
    assert [error for _, error in told] == [b"", b""]
    assert sorted(out.decode().strip() for out, _ in told) == [str(NAMES), "[]"]


@pytest.mark.parametrize("role", ROLES)
async def test_two_databases_of_a_cluster_are_migrated_at_once_though_both_make_a_role(bare: Bare, role: str) -> None:
    urls = await bare.make("one", "two")
    making = bare.connection.transaction()
    await making.start()
    await bare.connection.execute(f"CREATE ROLE {role}")
    both = [asyncio.ensure_future(migrate(url, login="login")) for url in urls]
    watcher: Connection = await asyncpg.connect(bare.url())
    await until(watcher, f"SELECT count(*) = 2 FROM pg_stat_activity WHERE {SIGHT} AND wait_event_type = 'Lock'")
    await watcher.close()
    await making.rollback()
    assert await asyncio.gather(*both) == [NAMES, NAMES]
    for name in ("one", "two"):
        await works(bare.url(name, user="login"))


async def test_many_databases_of_a_cluster_are_migrated_at_once(bare: Bare) -> None:
    names = [f"d{number}" for number in range(6)]
    urls = await bare.make(*names)
    assert await asyncio.gather(*(migrate(url, login="login") for url in urls)) == [NAMES] * len(urls)


async def test_a_migration_that_fails_leaves_nothing(bare: Bare, tmp_path: Path) -> None:
    [url] = await bare.make("one")
    finished = run_copy(tmp_path, f"{NEWEST + 1:04d}_broken.sql", "-- readable from: 1\nSELECT 1 / 0;", url)
    assert "DivisionByZeroError" in finished.stderr
    assert await fetchval(url, "SELECT count(*) FROM pg_namespace WHERE nspname = 'agentws'") == 0
    assert await migrate(url, login="login") == NAMES


async def test_a_next_migration_is_applied_alone_and_read_by_older_code(bare: Bare, tmp_path: Path) -> None:
    [url] = await bare.make("one")
    await migrate(url, login="login")
    sql = "-- readable from: 1\nCREATE TABLE later (number integer);"
    finished = run_copy(
        tmp_path,
        f"{NEWEST + 1:04d}_next.sql",
        sql,
        url,
    )
    assert finished.stdout.strip() == "['next']", finished.stderr
    assert await migrate(url, login="login") == []
    await works(bare.url("one", user="login"))


# Refusing


async def test_a_schema_that_is_newer_than_this_code_can_read_is_left_alone(bare: Bare) -> None:
    [url] = await bare.make("one")
    await migrate(url, login="login")
    newer = (
        f"INSERT INTO agentws.schema_migration (number, name, readable_from) VALUES ({NEWEST + 1}, 'n', {NEWEST + 1})"
    )
    await fetchval(url, f"{newer} RETURNING 1")
    await make_database(bare.url(), database="one", login="other")
    with pytest.raises(MigrationError, match=f"the schema is at {NEWEST + 1}.*this code knows {NEWEST}"):
        await migrate(url, login="other")
    assert await fetchval(url, "SELECT has_schema_privilege('other', 'agentws', 'USAGE')") is False


@pytest.mark.parametrize("power", ["LOGIN", "SUPERUSER", "BYPASSRLS", "CREATEROLE", "CREATEDB", "REPLICATION"])
@pytest.mark.parametrize("role", ROLES)
async def test_a_role_of_ours_that_has_powers_is_refused(bare: Bare, role: str, power: str) -> None:
    [url] = await bare.make("one")
    await bare.connection.execute(f"CREATE ROLE {role} NOLOGIN; ALTER ROLE {role} {power}")
    with pytest.raises(MigrationError, match=f"role {role} has powers of its own"):
        await migrate(url, login="login")
    assert await fetchval(url, "SELECT count(*) FROM pg_namespace WHERE nspname = 'agentws'") == 0


# Who migrates


async def make_migrator(bare: Bare, *databases: str) -> None:
    await bare.connection.execute(f'CREATE ROLE "{MIGRATOR}" LOGIN CREATEROLE')
    await bare.make("unused")
    for name in databases:
        await bare.connection.execute(f'CREATE DATABASE {name} OWNER "{MIGRATOR}"')


async def test_a_migrator_that_is_no_superuser_migrates_and_the_login_role_may_only_call(bare: Bare) -> None:
    await make_migrator(bare, "one")
    url = bare.url("one", user=MIGRATOR)
    assert await migrate(url, login="login") == NAMES
    assert await migrate(url, login="login") == []
    await works(bare.url("one", user="login"))
    tables = "FROM pg_class WHERE relnamespace = 'agentws'::regnamespace AND relkind = 'r'"
    rights = "'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER'"
    assert await fetchval(url, f"SELECT bool_or(has_table_privilege('login', oid, {rights})) {tables}") is False
    assert await fetchval(url, f"SELECT count(*) {tables} AND pg_get_userbyid(relowner) <> current_user") == 0
    may_call = "SELECT bool_and(has_function_privilege('login', oid, 'EXECUTE') = prosecdef) FROM pg_proc"
    assert await fetchval(url, f"{may_call} WHERE pronamespace = 'agentws'::regnamespace") is True
    may_be = "SELECT bool_or(pg_has_role('login', rolname, 'MEMBER')) FROM pg_roles WHERE rolname ~ '^agentws|owner'"
    assert await fetchval(url, may_be) is False


async def test_a_migrator_that_is_no_superuser_migrates_two_databases(bare: Bare) -> None:
    await make_migrator(bare, "one", "two")
    both = (migrate(bare.url(name, user=MIGRATOR), login="login") for name in ("one", "two"))
    assert await asyncio.gather(*both) == [NAMES, NAMES]
    await works(bare.url("two", user="login"))


async def test_without_a_login_role_the_migrators_own_is_let_in(bare: Bare) -> None:
    await make_migrator(bare, "one")
    url = bare.url("one", user=MIGRATOR)
    await migrate(url)
    await works(url)


async def test_an_owner_of_the_tables_is_bound_to_a_principal_too(bare: Bare) -> None:
    await make_migrator(bare, "one")
    url = bare.url("one", user=MIGRATOR)
    await migrate(url)
    await works(url)
    assert await fetchval(bare.url("one"), "SELECT user_id FROM agentws.event LIMIT 1") == ANN.user_id
    for table in ("thread", "run", "start_key", "message", "event"):
        assert await fetchval(url, f"SELECT count(*) FROM agentws.{table}") == 0, table


async def test_a_database_and_its_login_role_are_made_once(bare: Bare) -> None:
    for _ in range(2):
        await asyncio.gather(*(make_database(bare.url(), database='a "b"', login="login") for _ in range(2)))
    assert await fetchval(bare.url('a "b"', user="login"), "SELECT current_user") == "login"
    row = await bare.connection.fetchrow(
        "SELECT rolsuper OR rolbypassrls OR rolcreaterole FROM pg_roles WHERE rolname = 'login'"
    )
    assert row is not None
    assert row[0] is False
    await bare.connection.execute('DROP DATABASE "a ""b"""')


@pytest.mark.parametrize(
    ("url", "login"),
    [("postgresql://a%20b@h/d", "a b"), ("postgresql://u:p@h:1/d", "u"), ("postgresql:///d", None)],
)
def test_the_login_role_is_in_the_url(url: str, login: str | None) -> None:
    assert login_of(url) == login
