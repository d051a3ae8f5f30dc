"""While the database is away starts are refused or in doubt, subscribers hear it once, and afterwards all is told."""

import asyncio
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentws.store.embedded import EmbeddedPostgres
from agentws.store.migrate import make_database

from ..processes import running
from .api import Api, anonymous, calling
from .client import Client, Server, connect, fresh
from .shapes import Frame
from .told import until

CHAT: Frame = {"type": "chat", "content": "hi"}

pytestmark = pytest.mark.needs("process")


@pytest.fixture
def postgres() -> Iterator[EmbeddedPostgres]:
    """A PostgreSQL that the test may stop, with an empty database `agentws`."""
    directory = Path(tempfile.mkdtemp(prefix="agentws-outage-"))
    directory.chmod(0o755)
    own = EmbeddedPostgres(directory / "data")
    own.start()
    asyncio.run(make_database(own.url(user="postgres", database="postgres"), database="agentws", login="agentws"))
    yield own
    own.stop()
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def fragile(postgres: EmbeddedPostgres) -> Iterator[Server]:
    """A server on that database, which waits for it for a second."""
    env = {
        "AGENTWS_DATABASE_URL": postgres.url(user="agentws", database="agentws"),
        "AGENTWS_MIGRATE_URL": postgres.url(user="postgres", database="agentws"),
        "AGENTWS_DATABASE_TIMEOUT_S": "1",
        "AGENTWS_LEASE_TTL_S": "60",
    }
    with running(env) as process:
        yield process


def is_outage(frame: Frame) -> bool:
    """What is told to subscribers, unasked."""
    return frame.get("code") == "database_unavailable" and frame["id"] is None


async def repeated(client: Client, key: str) -> Frame:
    """The answer to a start that is repeated with its key until it is answered otherwise."""
    asked = CHAT | {"idempotency_key": key}
    return await until(lambda: client.ask(asked), lambda answer: answer.get("code") != "database_unavailable")


async def refused_over_http(api: Api) -> None:
    await api.refused("POST", "/api/runs", "database_unavailable", json=CHAT)
    await api.refused("GET", "/api/threads", "database_unavailable")


async def test_while_the_database_is_away(fragile: Server, postgres: EmbeddedPostgres) -> None:
    async with connect(fragile) as client, connect(fragile, client.user_id) as other:
        accepted = await client.start("600", agent="stream")
        await client.event(accepted["run_id"], "agent_message")
        subscribed, _ = await other.replay(accepted["thread_id"])
        postgres.stop()
        key = fresh("key")
        refusal = await client.refused(CHAT | {"idempotency_key": key}, "database_unavailable")
        assert refusal["retryable"] is True
        await client.refused({"type": "list_threads"}, "database_unavailable")
        for each in (client, other):
            await each.next(is_outage, "a word to subscribers")
            await each.granted({"type": "ping"}, "pong")
        async with calling(fragile, client.user_id) as api, anonymous(fragile) as http:
            assert (await http.get("/healthz")).status_code == 200
            assert (await http.get("/readyz")).status_code == 503
            await refused_over_http(api)
        postgres.start()
        for each, since in ((client, accepted), (other, subscribed)):
            ended = await each.ended(accepted["run_id"])
            assert ended["payload"]["response"] == "".join(f"w{number} " for number in range(600))
            each.reader(accepted["thread_id"], after_seq=0, since=since)
            assert sum(map(is_outage, each.log)) == 1
        once = await repeated(client, key)
        again = await repeated(client, key)
        assert (once["type"], again["duplicate"], again["run_id"]) == ("request_accepted", True, once["run_id"])
