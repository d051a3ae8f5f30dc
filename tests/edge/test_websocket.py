"""A connection reads no faster than it may answer, tells the user what went wrong, and leaves nothing behind."""

import asyncio
import gc
import json
import logging
from typing import Any

import pytest

from agentws.app import Service
from agentws.store.threads import PgThreads

from ..conftest import StartService
from ..faults import Line
from ..peers import Peer, peer


async def test_frames_of_one_connection_are_answered_in_their_order(service: Service) -> None:
    async with peer(service) as client:
        for number in range(20):
            client.send(type="create_thread", id=f"c{number}", thread_id=f"t{number}")
            client.send(type="subscribe", id=f"s{number}", thread_id=f"t{number}")
            client.send(type="nonsense", id=f"n{number}")
        await client.until(lambda frame: frame.get("id") == "n19")
        answered = [frame["id"] for frame in client.frames if frame.get("id") and frame["type"] != "caught_up"]
        assert answered == [f"{kind}{number}" for number in range(20) for kind in "csn"]


async def test_the_answer_to_a_start_comes_before_every_event_of_its_run(service: Service) -> None:
    async with peer(service) as client:
        first = await client.ask("m0", agent="echo")
        for number in range(1, 50):
            client.send(type="chat", content=f"m{number}", agent="echo", thread_id=first["thread_id"])
        accepted = [first] + [await client.until_type("request_accepted") for _ in range(49)]
        for each in accepted:
            await client.ended(each["run_id"])
        for each in accepted:
            answered = client.frames.index(each)
            assert not any(frame.get("run_id") == each["run_id"] for frame in client.frames[:answered])


async def test_a_client_that_asks_and_does_not_read_is_not_read_from(start_service: StartService) -> None:
    service = await start_service(send_buffer_bytes=10_000)
    async with peer(service) as client:
        client.reading.clear()
        for number in range(200):
            client.send(type="ping", id=f"p{number}", payload="x" * 1000)
        client.send(type="create_thread", id="last", thread_id="t")
        async with peer(service) as other:
            await other.run("hi", agent="echo")
        assert client._inbox.qsize() > 150
        client.reading.set()
        await client.until(lambda frame: frame.get("id") == "last")
        assert sum(frame["type"] == "pong" for frame in client.frames) == 200


async def test_a_connection_that_breaks_while_it_is_not_reading_is_closed(start_service: StartService) -> None:
    service = await start_service(send_buffer_bytes=1000)
    async with peer(service) as client:
        client.reading.clear()
        for _ in range(20):
            client.send(type="ping", payload="x" * 1000)
        client.gone = True
        client.reading.set()
    assert len(service.connections) == 0


async def test_a_failure_of_the_server_is_told_safely_and_logged_with_its_id(
    service: Service, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr(PgThreads, "create", broken)
    async with peer(service) as client:
        client.send(type="create_thread", id="c")
        error = await client.until_type("error")
        assert error["id"] == "c"
        assert error["code"] == "internal_error"
        assert error["message"] == "Failed to process create_thread. Please try again."
        assert "secret" not in json.dumps(error)
        await client.run("and on", agent="echo")
    correlation_id = error["details"]["correlation_id"]
    logged = [record for record in caplog.records if getattr(record, "correlation_id", None) == correlation_id]
    assert [record.levelno for record in logged] == [logging.ERROR]
    assert logged[0].exc_info is not None


async def test_a_database_that_is_away_is_told_and_the_connection_goes_on(service: Service, line: Line) -> None:
    async with peer(service) as client:
        line.cut("accept")
        error = await client.ask("hi", agent="echo")
        assert (error["code"], error["retryable"]) == ("database_unavailable", True)
        assert error["message"] == "Failed to process user_message. Please try again."
        line.mend()
        await client.run("hi", agent="echo")


async def test_a_client_that_goes_away_does_not_end_its_run(service: Service) -> None:
    async with peer(service) as client:
        accepted = await client.ask("200", agent="stream")
    async with peer(service) as client:
        client.send(type="subscribe", thread_id=accepted["thread_id"])
        assert (await client.ended(accepted["run_id"]))[-1]["type"] == "agent_completed"


async def test_a_hundred_connections_leave_nothing_behind(service: Service) -> None:
    async def once(number: int) -> None:
        async with peer(service, f"user{number}") as client:
            await client.run("hi", agent="tool")

    await asyncio.gather(*(once(number) for number in range(100)))
    assert len(service.connections) == 0
    gc.collect()
    assert service.feed is not None
    assert list(service.feed.buffered()) == []


async def test_an_upgrade_without_credentials_is_refused_before_it_is_accepted(start_service: StartService) -> None:
    service = await start_service(auth="jwt", jwt_secret="s" * 48)
    assert service.edge is not None
    stranger = Peer()
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    stranger.put({"type": "websocket.connect"})
    scope = {
        "type": "websocket",
        "headers": [],
        "subprotocols": [],
        "query_string": b"user=ada",
        "extensions": {"websocket.http.response": {}},
    }
    await service.edge(scope, stranger.receive, send)
    assert [message["type"] for message in sent] == ["websocket.http.response.start", "websocket.http.response.body"]
    assert sent[0]["status"] == 401
    assert json.loads(sent[1]["body"])["code"] == "unauthorized"
    scope["extensions"] = {}
    stranger.put({"type": "websocket.connect"})
    await service.edge(scope, stranger.receive, send)
    assert sent[2]["type"] == "websocket.close"
