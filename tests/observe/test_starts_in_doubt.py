"""A start that was not answered counts by what became of its run, also where nobody worked on that."""

from agentws.app import Service

from ..conftest import StartService
from ..faults import Line
from ..peers import Peer, peer
from .reading import until


async def in_doubt(client: Peer, line: Line, thread_id: str) -> None:
    """Starts `r2`, which is accepted, though nobody is told."""
    line.lose_answers("accept", 3)
    answer = await client.ask("hi", agent="slow", run_id="r2", thread_id=thread_id)
    assert answer["code"] == "database_unavailable"


def counted(service: Service) -> dict[str, object]:
    read = service.statistics.read()
    return {name: read[name] for name in ("received", "messages_processed", "errors", "duplicates", "runs_stopped")}


async def test_one_that_waits_and_is_stopped_is_processed(start_service: StartService, line: Line) -> None:
    service = await start_service()
    async with peer(service) as client:
        first = await client.ask("hi", agent="slow")
        await in_doubt(client, line, first["thread_id"])
        client.send(type="stop_agent", run_id="r2")
        await client.ended("r2")
        client.send(type="stop_agent", run_id=first["run_id"])
        await client.ended(first["run_id"])
    expected = {"received": 2, "messages_processed": 2, "errors": 0, "duplicates": 0, "runs_stopped": 2}
    assert counted(service) == expected


async def test_one_that_is_deleted_with_its_thread_is_processed(start_service: StartService, line: Line) -> None:
    service = await start_service()
    async with peer(service) as client:
        client.send(type="create_thread", thread_id="t")
        await in_doubt(client, line, "t")
        client.send(type="delete_thread", thread_id="t")
        await client.until_type("thread_deleted")
        await until(lambda: service.statistics.read()["runs_in_flight"] == 0)
    expected = {"received": 1, "messages_processed": 1, "errors": 0, "duplicates": 0, "runs_stopped": 1}
    assert counted(service) == expected
