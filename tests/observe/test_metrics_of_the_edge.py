"""What is counted of connections, frames and starts moves when that happens."""

import asyncio

import pytest

from agentws.app import Service

from ..conftest import StartService
from ..faults import Line
from ..peers import peer
from .reading import moved, until, value


async def test_connections_are_counted_while_they_are_open_and_when_they_open(start_service: StartService) -> None:
    service = await start_service()
    with moved(service, "agentws_connections_opened_total", by=2):
        async with peer(service), peer(service):
            assert value(service, "agentws_connections") == 2
        assert value(service, "agentws_connections") == 0
    async with peer(service):
        with moved(service, "agentws_connections", by=1):
            async with peer(service):
                pass
            other = peer(service)
            await other.__aenter__()
        await other.__aexit__(None, None, None)


async def test_a_refused_upgrade_is_counted_by_its_code(start_service: StartService) -> None:
    service = await start_service(auth="jwt", jwt_secret="s" * 48)
    with moved(service, "agentws_connections_refused_total", by=1, code="unauthorized"):
        await _connect(service)


async def _connect(service: Service) -> None:
    async def receive() -> dict[str, str]:
        return {"type": "websocket.connect"}

    async def send(message: object) -> None:
        pass

    assert service.edge is not None
    scope = {
        "type": "websocket",
        "path": "/ws",
        "headers": [],
        "subprotocols": [],
        "query_string": b"",
        "extensions": {"websocket.http.response": {}},
    }
    await service.edge(scope, receive, send)


@pytest.mark.parametrize(
    ("frame", "counted"),
    [
        ({"type": "ping"}, "ping"),
        ({"type": "message", "content": "hi", "agent": "echo"}, "user_message"),
        ({"type": "chat"}, "chat"),
        ({"type": "respond"}, "unknown"),
        ({"type": "something"}, "unknown"),
        ({"type": 5}, "unknown"),
        ({"type": "agent_started"}, "unknown"),
    ],
)
async def test_a_client_s_frame_is_counted_by_its_type(
    start_service: StartService, frame: dict[str, object], counted: str
) -> None:
    service = await start_service()
    async with peer(service) as client:
        with moved(service, "agentws_frames_received_total", by=1, type=counted):
            client.send(**frame)
            await client.until_type("pong", "request_accepted", "error")


async def test_frames_that_cannot_be_read_are_counted_too(start_service: StartService) -> None:
    service = await start_service()
    async with peer(service) as client:
        with moved(service, "agentws_frames_received_total", by=2, type="unknown"):
            client.put({"type": "websocket.receive", "bytes": b"x"})
            await client.until_type("error")
            client.put({"type": "websocket.receive", "text": "{"})
            await client.until_type("error")


async def test_frames_to_a_client_are_counted_by_type_and_errors_by_code(start_service: StartService) -> None:
    service = await start_service()
    with moved(service, "agentws_frames_sent_total", by=1, type="connection_established"):
        async with peer(service) as client:
            with (
                moved(service, "agentws_frames_sent_total", by=1, type="pong"),
                moved(service, "agentws_frames_sent_total", by=1, type="request_accepted"),
                moved(service, "agentws_frames_sent_total", by=2, type="error"),
                moved(service, "agentws_errors_sent_total", by=1, code="unknown_type"),
                moved(service, "agentws_errors_sent_total", by=1, code="agent_not_found"),
            ):
                client.send(type="ping")
                await client.run("hi", agent="echo")
                client.send(type="nothing")
                await client.until_type("error")
                await client.ask("hi", agent="nobody")


async def test_starts_are_counted_by_how_they_were_answered(start_service: StartService, line: Line) -> None:
    service = await start_service()
    async with peer(service) as client:
        with (
            moved(service, "agentws_starts_total", by=1, kind="user_message", outcome="accepted"),
            moved(service, "agentws_accept_seconds_count", by=1),
            moved(service, "agentws_accept_seconds_sum"),
        ):
            await client.run("hi", agent="echo", idempotency_key="k")
        with moved(service, "agentws_starts_total", by=1, kind="user_message", outcome="duplicate"):
            await client.ask("hi", agent="echo", idempotency_key="k")
        with moved(service, "agentws_starts_total", by=2, kind="user_message", outcome="refused"):
            await client.ask("hi", agent="nobody")
            await client.ask("")
        with moved(service, "agentws_starts_total", by=1, kind="user_message", outcome="in_doubt"):
            line.cut("accept")
            await client.ask("hi", agent="echo")


async def test_a_socket_that_is_dead_when_something_is_sent_is_counted_once(start_service: StartService) -> None:
    service = await start_service()
    async with peer(service) as client:
        await client.ask("hi", agent="slow")
        await client.until_type("agent_message")
        with moved(service, "agentws_send_failures_total", by=1):
            client.gone = True
            client.send(type="ping")
            client.send(type="ping")
            await until(lambda: value(service, "agentws_send_failures_total") > 0)
            client.send(type="ping")
            await asyncio.sleep(0)


async def test_answers_that_are_not_taken_count_as_bytes_that_wait(start_service: StartService) -> None:
    service = await start_service()
    async with peer(service) as client:
        client.reading.clear()
        with moved(service, "agentws_queue_bytes"):
            for _ in range(3):
                client.send(type="ping", payload="x" * 10_000)
            # The first is in the socket's hands.
            await until(lambda: value(service, "agentws_queue_bytes") > 20_000)
        client.reading.set()
        await client.until_type("pong")
        await until(lambda: value(service, "agentws_queue_bytes") == 0)
