"""A login that could bypass row-level security is known by what it could do, however it came by that."""

from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import asyncpg
import pytest

from agentws.store.embedded import EmbeddedPostgres
from agentws.store.login import powers_of_login
from agentws.store.pool import Database

from ..conftest import TestDatabase
from .conftest import Connection

LOGIN = "login_with_powers"


@pytest.fixture
async def owner(database: TestDatabase) -> AsyncIterator[Connection]:
    """The connection of a superuser; the roles that a test made are gone after it."""
    connection = await asyncpg.connect(database.owner_url)
    await connection.execute(f"CREATE ROLE {LOGIN} LOGIN; CREATE ROLE {LOGIN}_group")
    yield connection
    for role in (LOGIN, f"{LOGIN}_group"):
        await connection.execute(f"REASSIGN OWNED BY {role} TO postgres; DROP OWNED BY {role}; DROP ROLE {role}")
    await connection.close()


async def powers(cluster: EmbeddedPostgres, database: TestDatabase, login: str = LOGIN) -> list[str]:
    pool = Database(cluster.url(user=login, database=database.name), size=1, timeout_s=20)
    await pool.open(wait_s=20)
    try:
        return [text.split(",")[0] for text in await powers_of_login(pool)]
    finally:
        await pool.close()


SUPERUSER, BYPASS = "is a superuser", "has BYPASSRLS"
OWNER, MEMBER, MAKER = (
    "owns the schema or what is in it",
    "is a member of agentws_app or agentws_system",
    "has CREATEROLE",
)


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("SELECT 1", []),
        ("ALTER ROLE {login} SUPERUSER", [SUPERUSER]),
        ("ALTER ROLE {login} BYPASSRLS", [BYPASS]),
        ("ALTER ROLE {login}_group BYPASSRLS; GRANT {login}_group TO {login} WITH INHERIT FALSE", [BYPASS]),
        ("ALTER ROLE {login}_group SUPERUSER; GRANT {login}_group TO {login}", [BYPASS]),
        ("GRANT postgres TO {login}", [BYPASS, OWNER]),
        ("ALTER SCHEMA agentws OWNER TO {login}", [OWNER]),
        ("ALTER TABLE agentws.event OWNER TO {login}", [OWNER]),
        ("ALTER TABLE agentws.event OWNER TO {login}_group; GRANT {login}_group TO {login}", [OWNER]),
        ("ALTER FUNCTION agentws.queue_position OWNER TO {login}", [OWNER]),
        ("GRANT agentws_app TO {login}", [MEMBER]),
        ("GRANT agentws_system TO {login} WITH INHERIT FALSE", [MEMBER]),
        ("ALTER ROLE {login} CREATEROLE", [MAKER]),
        ("ALTER ROLE {login} BYPASSRLS CREATEROLE", [BYPASS, MAKER]),
        ("ALTER ROLE {login} CREATEDB; GRANT SELECT ON agentws.event TO {login}", []),
    ],
)
async def test_what_a_login_could_do_is_found(
    cluster: EmbeddedPostgres, database: TestDatabase, owner: Connection, given: str, found: list[str]
) -> None:
    await owner.execute(given.format(login=LOGIN))
    assert await powers(cluster, database) == found


async def test_the_login_that_migration_provides_for_has_no_powers(
    cluster: EmbeddedPostgres, database: TestDatabase
) -> None:
    assert await powers(cluster, database, urlsplit(database.url).username or "") == []


async def test_before_the_first_migration_there_is_nothing_to_own(
    cluster: EmbeddedPostgres, database: TestDatabase, owner: Connection
) -> None:
    await owner.execute("DROP SCHEMA agentws CASCADE")
    assert await powers(cluster, database) == []
