"""A service starts and stops whole, alone, mounted, or not at all."""

import contextlib
from collections.abc import AsyncIterator

import asyncpg
import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from agentws.app import Service, create_app, lifespan
from agentws.ports import StoreUnavailable
from agentws.settings import Settings, SettingsError
from agentws.store.migrate import MigrationError

from . import sample_agents
from .conftest import TestDatabase


def settings_for(database: TestDatabase, **more: object) -> Settings:
    values: dict[str, object] = {
        "env": "test",
        "auth": "dev",
        "database_url": database.url,
        "migrate_url": database.owner_url,
        "pool_size": 2,
    }
    return Settings(**{**values, **more})  # type: ignore[arg-type]


async def status_of(app: Starlette, path: str) -> int:
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://agentws.test") as client:
        return (await client.get(path)).status_code


async def test_a_mounted_application_runs_in_its_host_s_lifespan(database: TestDatabase) -> None:
    app = create_app(settings_for(database), sample_agents.agents)

    @contextlib.asynccontextmanager
    async def host_lifespan(host: Starlette) -> AsyncIterator[None]:
        async with lifespan(app):
            yield

    host = Starlette(routes=[Mount("/agents", app)], lifespan=host_lifespan)
    assert await status_of(host, "/agents/healthz") == 200
    assert await status_of(host, "/agents/readyz") == 503
    async with host.router.lifespan_context(host):
        assert await status_of(host, "/agents/readyz") == 200
    assert await status_of(host, "/agents/readyz") == 503


async def test_an_application_that_was_never_started_says_so(database: TestDatabase) -> None:
    app = create_app(settings_for(database))
    sent = []

    async def send(message: object) -> None:
        sent.append(message)

    async def receive() -> dict[str, str]:
        return {"type": "websocket.connect"}

    scope = {
        "type": "websocket",
        "path": "/ws",
        "headers": [],
        "subprotocols": [],
        "query_string": b"",
        "extensions": {"websocket.http.response": {}},
    }
    await app(scope, receive, send)
    assert sent[0]["status"] == 503  # type: ignore[index]


async def test_a_service_without_its_schema_does_not_start_and_leaves_nothing(database: TestDatabase) -> None:
    owner = await asyncpg.connect(database.owner_url)
    await owner.execute("DROP SCHEMA agentws CASCADE")
    await owner.close()
    service = Service(settings_for(database, env="production", auth="jwt", jwt_secret="s" * 48))
    with pytest.raises(MigrationError, match="agentws migrate"):
        await service.start()
    assert service.edge is None


async def test_a_service_without_a_database_does_not_start() -> None:
    settings = Settings(
        env="production",
        auth="jwt",
        jwt_secret="s" * 48,
        database_url="postgresql://x@127.0.0.1:1/x",
        database_wait_s=0.1,
    )
    with pytest.raises(StoreUnavailable, match=r"no database within 0\.1 s"):
        await Service(settings).start()


async def test_a_service_can_be_stopped_twice_and_leaves_no_lease(database: TestDatabase) -> None:
    service = Service(settings_for(database))
    await service.start()
    await service.stop()
    await service.stop()
    owner = await asyncpg.connect(database.owner_url)
    assert await owner.fetchval("SELECT count(*) FROM agentws.node WHERE expires_at > now()") == 0
    await owner.close()


def test_a_host_s_own_sign_in_has_to_be_given() -> None:
    with pytest.raises(SettingsError, match="auth is 'host'"):
        create_app(Settings(auth="host"))
    create_app(Settings(auth="host"), authenticate=lambda connection: None)


PRODUCTION = {"env": "production", "auth": "jwt", "jwt_secret": "s" * 48}


async def test_production_refuses_a_login_that_could_bypass_the_database_s_wall(database: TestDatabase) -> None:
    service = Service(settings_for(database, **PRODUCTION, database_url=database.owner_url))
    with pytest.raises(SettingsError, match=r"database_url .* is a superuser; AGENTWS_FORCE=privileged_login lifts"):
        await service.start()
    assert service.edge is None


@pytest.mark.parametrize("more", [{**PRODUCTION, "force": "privileged_login"}, {**PRODUCTION, "env": "staging"}])
async def test_a_privileged_login_is_taken_where_that_is_lifted_and_outside_of_production(
    database: TestDatabase, more: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    service = Service(settings_for(database, **more, database_url=database.owner_url))
    for _ in range(2):
        caplog.clear()
        await service.start()
        await service.stop()
        said = [message for message in caplog.messages if message.startswith("AGENTWS_FORCE lifts privileged_login: ")]
        assert len(said) == ("force" in more)


@pytest.mark.parametrize(("migrates", "env"), [(None, "test"), (True, "staging"), (False, "test"), (None, "staging")])
async def test_a_start_migrates_where_it_is_told_to(database: TestDatabase, migrates: bool | None, env: str) -> None:
    owner = await asyncpg.connect(database.owner_url)
    await owner.execute("DROP SCHEMA agentws CASCADE")
    await owner.close()
    service = Service(settings_for(database, **{**PRODUCTION, "env": env}, migrate_at_start=migrates))
    if migrates or (migrates is None and env == "test"):
        await service.start()
        await service.stop()
    else:
        with pytest.raises(MigrationError):
            await service.start()


async def test_the_page_is_off_in_production_unless_switched_on(database: TestDatabase) -> None:
    assert await status_of(create_app(settings_for(database)), "/") == 200
    assert await status_of(create_app(settings_for(database, **PRODUCTION)), "/") == 404
    assert await status_of(create_app(settings_for(database, **PRODUCTION, page=True)), "/") == 200


def test_the_first_agent_of_a_mapping_is_the_default_one() -> None:
    assert next(iter(Service(Settings(), {"mine": sample_agents.agents["echo"]}).agents)) == "mine"
    assert list(Service(Settings()).agents) == ["demo"]
