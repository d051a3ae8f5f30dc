"""The most connections of a process are not passed, also where many come while their credentials are looked up."""

import asyncio
from contextlib import AsyncExitStack

from starlette.requests import HTTPConnection

from agentws.app import Service
from agentws.settings import Settings

from .. import sample_agents
from ..conftest import TestDatabase
from ..peers import Peer


async def test_upgrades_that_come_at_once_do_not_pass_the_limit(database: TestDatabase) -> None:
    asked, decided = asyncio.Semaphore(0), asyncio.Event()

    async def sign_in(connection: HTTPConnection) -> str:
        asked.release()
        await decided.wait()
        return "ada"

    settings = Settings(
        env="test", auth="host", database_url=database.url, migrate_url=database.owner_url, max_connections=2
    )
    service = Service(settings, sample_agents.agents, authenticate=sign_in)
    await service.start()
    try:
        assert service.edge is not None
        sent: list[list[str]] = []
        async with AsyncExitStack() as stack:
            for _ in range(5):
                client, answers = Peer(), list[str]()
                sent.append(answers)

                async def send(message: dict[str, object], answers: list[str] = answers) -> None:
                    answers.append(str(message["type"]))

                scope = {
                    "type": "websocket", "path": "/ws", "headers": [], "subprotocols": [], "query_string": b"",
                    "extensions": {"websocket.http.response": {}},
                }  # fmt: skip
                client.put({"type": "websocket.connect"})
                upgrade = asyncio.ensure_future(service.edge(scope, client.receive, send))  # type: ignore[arg-type]
                stack.push_async_callback(asyncio.gather, upgrade)
                stack.callback(client.put, {"type": "websocket.disconnect", "code": 1000})
                await asked.acquire()
            decided.set()
            while not all(sent):  # noqa: ASYNC110
                await asyncio.sleep(0)
            assert len(service.connections) == 2
            assert [answers[0] for answers in sent].count("websocket.accept") == 2
    finally:
        await service.stop()
