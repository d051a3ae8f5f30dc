"""The statistics of a service are what its users did: each frame counts once, by what became of it."""

from collections.abc import Awaitable, Callable

import pytest

from agentws.app import Service

from ..conftest import StartService
from ..faults import Line
from ..peers import Peer, peer
from .reading import until


def told(service: Service) -> dict[str, float]:
    """The counters that are not at their beginning; that of the last time without its value."""
    read = {name: value for name, value in service.statistics.read().items() if value and name != "uptime_seconds"}
    if "last_processed_time" in read:
        read["last_processed_time"] = 1
    return {name: float(value or 0) for name, value in read.items()}


def balance(service: Service) -> None:
    """With nothing in flight the sum comes out."""
    read = service.statistics.read()
    assert read["runs_in_flight"] == 0
    parts = [read[name] or 0 for name in ("messages_processed", "errors", "duplicates")]
    assert read["received"] == sum(parts)


async def refused(client: Peer, **frame: object) -> str:
    client.send(**frame)
    return str((await client.until_type("error"))["code"])


@pytest.mark.parametrize(
    ("kind", "text", "name"),
    [
        ("start_agent", "user_request", "start_agent_requests"),
        ("user_message", "content", "user_messages"),
        ("chat", "content", "chat_messages"),
    ],
)
async def test_a_start_counts_as_its_kind_when_its_run_has_ended(
    start_service: StartService, kind: str, text: str, name: str
) -> None:
    service = await start_service()
    async with peer(service) as client:
        client.send(type=kind, payload={text: "hi", "agent": "slow"})
        accepted = await client.until_type("request_accepted")
        await client.until_type("agent_message")
        assert told(service).get("messages_processed") is None
        assert told(service)["received"] == told(service)["runs_in_flight"] == 1
        client.send(type="stop_agent", run_id=accepted["run_id"])
        await client.ended(accepted["run_id"])
        expected = {"messages_processed": 1, name: 1, "received": 1, "runs_stopped": 1, "last_processed_time": 1}
        assert told(service) | expected == told(service)
        assert "errors" not in told(service)
        balance(service)


async def test_a_run_that_fails_counts_as_one_error_and_no_message(start_service: StartService) -> None:
    service = await start_service()
    async with peer(service) as client:
        await client.run("hi", agent="fail")
        assert told(service) == {
            "errors": 1, "received": 1, "runs_failed": 1, "connections": 1, "events_sent": 3,
        }  # fmt: skip
        balance(service)


Fate = Callable[[Peer], Awaitable[object]]
REFUSED: dict[str, Fate] = {
    "no text": lambda client: client.ask(""),
    "no such agent": lambda client: client.ask("hi", agent="nobody"),
    "no such thread": lambda client: client.ask("hi", thread_id="nowhere"),
    "another's name": lambda client: refused(client, type="chat", content="hi", user_id="eve"),
    "a field of a wrong type": lambda client: refused(client, type="chat", content="hi", subscribe=5),
    "an alias without a text": lambda client: refused(client, type="message"),
}


@pytest.mark.parametrize("how", REFUSED)
async def test_a_refused_start_is_received_and_one_error(start_service: StartService, how: str) -> None:
    service = await start_service()
    async with peer(service) as client:
        await REFUSED[how](client)
        deprecated = {"deprecated": 1.0} if "alias" in how else {}
        assert told(service) == {"errors": 1, "received": 1, "connections": 1} | deprecated
        balance(service)


@pytest.mark.parametrize(
    "frame",
    [{"type": "nothing"}, {"type": "subscribe"}, {"type": "stop_agent", "run_id": "none"}, {"type": "pong"}, {}],
)
async def test_another_refused_frame_is_a_frame_error_alone(
    start_service: StartService, frame: dict[str, object]
) -> None:
    service = await start_service()
    async with peer(service) as client:
        await refused(client, **frame)
        assert told(service) == {"frame_errors": 1, "connections": 1}


async def test_frames_that_cannot_be_read_are_frame_errors(start_service: StartService) -> None:
    service = await start_service()
    async with peer(service) as client:
        client.put({"type": "websocket.receive", "bytes": b"x"})
        await client.until_type("error")
        client.put({"type": "websocket.receive", "text": "{"})
        await client.until_type("error")
        assert told(service) == {"frame_errors": 2, "connections": 1}


async def test_a_repeat_is_a_duplicate_and_a_deprecated_name_is_counted(start_service: StartService) -> None:
    service = await start_service()
    async with peer(service) as client:
        for _ in range(2):
            client.send(type="message", content="hi", agent="echo", idempotency_key="k")
            await client.until_type("request_accepted")
        await client.until_type("agent_completed")
        counted = told(service)
        assert (counted["received"], counted["duplicates"], counted["deprecated"]) == (2, 1, 2)
        assert (counted["messages_processed"], counted["user_messages"]) == (1, 1)
        balance(service)


async def test_a_waiting_run_that_is_stopped_counts_by_its_kind(start_service: StartService) -> None:
    service = await start_service()
    async with peer(service) as client:
        first = await client.ask("hi", agent="slow")
        client.send(type="chat", content="waits", agent="echo")
        second = await client.until_type("request_accepted")
        assert second["status"] == "queued"
        client.send(type="stop_agent", run_id=second["run_id"])
        await client.ended(second["run_id"])
        assert told(service)["chat_messages"] == told(service)["runs_stopped"] == 1
        client.send(type="stop_agent", run_id=first["run_id"])
        await client.ended(first["run_id"])
        balance(service)


async def test_a_start_without_an_answer_counts_by_what_became_of_it(start_service: StartService, line: Line) -> None:
    service = await start_service(lease_ttl_s=0.6)
    async with peer(service) as client:
        line.cut("accept")
        assert (await client.ask("hi", agent="echo"))["code"] == "database_unavailable"
        assert told(service)["errors"] == 1
        balance(service)
        line.mend()
        line.lose_answers("accept", 3)
        assert (await client.ask("hi", agent="echo"))["code"] == "database_unavailable"
        await until(lambda: told(service).get("runs_completed") == 1)
        counted = told(service)
        assert (counted["received"], counted["errors"], counted["messages_processed"]) == (2, 1, 1)
        balance(service)
