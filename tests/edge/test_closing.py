"""A process that closes its connections takes none any more: it says so, with a time after which to come back."""

from collections.abc import MutableMapping
from typing import Any

from starlette.requests import HTTPConnection

from agentws.app import Service
from agentws.settings import Settings

from .. import sample_agents
from ..conftest import StartService, TestDatabase
from ..peers import Peer, peer


async def upgrade(service: Service) -> list[MutableMapping[str, Any]]:
    """What an upgrade is answered that comes now."""
    assert service.edge is not None
    client, answers = Peer(), list[MutableMapping[str, Any]]()

    async def send(message: MutableMapping[str, Any]) -> None:
        answers.append(message)

    scope = {
        "type": "websocket", "path": "/ws", "headers": [], "subprotocols": [], "query_string": b"user=ada",
        "extensions": {"websocket.http.response": {}},
    }  # fmt: skip
    client.put({"type": "websocket.connect"})
    client.put({"type": "websocket.disconnect", "code": 1000})
    await service.edge(scope, client.receive, send)
    return answers


def refused(answers: list[MutableMapping[str, Any]]) -> bool:
    start, body = answers
    return start["status"] == 503 and (b"retry-after", b"1") in start["headers"] and b'"draining"' in body["body"]


async def test_an_upgrade_after_the_connections_were_closed_is_refused(start_service: StartService) -> None:
    service = await start_service()
    async with peer(service) as client:
        assert (await upgrade(service))[0]["type"] == "websocket.accept"
        service.connections.close_all(1001, "going away", within_s=1)
        assert await client.until_closed() == 1001
        assert refused(await upgrade(service))


async def test_an_upgrade_whose_credentials_are_looked_up_then_is_refused_too(database: TestDatabase) -> None:
    async def sign_in(connection: HTTPConnection) -> str:
        service.connections.close_all(1001, "going away", within_s=1)
        return "ada"

    settings = Settings(env="test", auth="host", database_url=database.url, migrate_url=database.owner_url)
    service = Service(settings, sample_agents.agents, authenticate=sign_in)
    await service.start()
    try:
        assert refused(await upgrade(service))
        assert len(service.connections) == 0
    finally:
        await service.stop()
