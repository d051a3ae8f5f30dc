"""How a lost connection is made again, against a peer that does what a test wants at the right moment."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from http import HTTPStatus
from typing import Any

import msgspec
import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from agentws.client import link
from agentws.client.connection import Client
from agentws.client.errors import Closed, ConnectFailed
from agentws.client.link import Connected, Lost
from agentws.client.reader import Event

from .events import event_frame, frame
from .test_session import SUBSCRIBED

ESTABLISHED: dict[str, Any] = {
    "type": "connection_established",
    "timestamp": "now",
    "connection_id": "c",
    "user_id": "ada",
    "expires_at": None,
    "protocol": "agentws.v1",
    "server_version": "1",
    "heartbeat_interval_s": 10.0,
    "limits": {},
}
Act = Callable[[ServerConnection], Awaitable[None]]
PATIENCE_S = 20.0


class Peer:
    """Serves the n-th connection by the n-th act; `acts` that are a status refuse it."""

    def __init__(self, *acts: Act | HTTPStatus) -> None:
        self.acts = list(acts)
        self.protocols: list[list[str]] = []
        self.times: list[float] = []
        self.url = ""

    def refuse(self, connection: ServerConnection, request: Request) -> Response | None:
        self.times.append(time.monotonic())
        self.protocols.append([item.strip() for item in request.headers["Sec-WebSocket-Protocol"].split(",")])
        status = self.acts[0]
        if isinstance(status, HTTPStatus):
            self.acts.pop(0)
            response = connection.respond(status, "")
            response.headers["Retry-After"] = "0"
            return response
        return None

    async def serve(self, connection: ServerConnection) -> None:
        act = self.acts.pop(0)
        assert not isinstance(act, HTTPStatus)
        await connection.send(frame(ESTABLISHED))
        await act(connection)


@contextlib.asynccontextmanager
async def peer(*acts: Act | HTTPStatus) -> AsyncIterator[Peer]:
    made = Peer(*acts)
    async with serve(
        made.serve,
        "127.0.0.1",
        0,
        subprotocols=[Subprotocol("agentws.v1.json")],
        process_request=made.refuse,
        compression=None,
    ) as server:
        made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield made


def closing(code: int) -> Act:
    async def act(connection: ServerConnection) -> None:
        await connection.close(code, "as told")

    return act


async def holding(connection: ServerConnection) -> None:
    await connection.wait_closed()


async def asked(connection: ServerConnection) -> dict[str, Any]:
    made: dict[str, Any] = msgspec.json.decode(await connection.recv())
    return made


async def until_connected(client: Client) -> list[object]:
    told: list[object] = []
    async with asyncio.timeout(PATIENCE_S):
        while not told or not isinstance(told[-1], Connected):
            told.append(await anext(client))
    return told


@pytest.mark.parametrize("code", [1000, 1007, 1008, 1009, 4401, 4409])
async def test_a_close_that_is_final_ends_the_client_and_says_why(code: int) -> None:
    async with peer(closing(code)) as server, Client(server.url, token="a.b.c") as client:
        waiting = asyncio.create_task(client.list_threads())
        with pytest.raises(Closed, match=rf"closed with {code} \(as told\)"):
            await anext(client)
        with pytest.raises(Closed):
            await waiting
    assert len(server.times) == 1


@pytest.mark.parametrize("code", [1001, 1011, 1012, 4999])
async def test_any_other_close_is_come_back_from(code: int) -> None:
    async with peer(closing(code), holding) as server, Client(server.url) as client:
        lost, _ = await until_connected(client)
        assert isinstance(lost, Lost)
        assert lost.why == f"closed with {code} (as told)"


@pytest.mark.parametrize("code", [1013, 4429])
async def test_an_overloaded_server_is_left_alone_for_a_while(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "LATER_S", 0.7)
    async with peer(closing(code), holding) as server, Client(server.url) as client:
        lost, _ = await until_connected(client)
        assert isinstance(lost, Lost)
        assert lost.retry_in_s >= 0.7
        assert server.times[1] - server.times[0] >= 0.7


async def test_expired_credentials_are_fetched_anew() -> None:
    tokens = iter(["first.a.b", "second.a.b"])

    async def fetch() -> str:
        return next(tokens)

    async with peer(closing(4401), holding) as server, Client(server.url, token=fetch) as client:
        await until_connected(client)
        assert [protocols[1:] for protocols in server.protocols] == [["bearer.first.a.b"], ["bearer.second.a.b"]]


async def test_a_fresh_token_that_is_refused_is_not_tried_for_ever() -> None:
    async def fetch() -> str:
        return "fresh.a.b"

    async with peer(closing(4401), HTTPStatus.UNAUTHORIZED) as server, Client(server.url, token=fetch) as client:
        assert isinstance(await anext(client), Lost)
        with pytest.raises(Closed, match="credentials"):
            await anext(client)


async def test_a_server_that_is_not_ready_is_tried_again_after_the_first_connection_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(link, "LATER_S", 0.1)
    unavailable = HTTPStatus.SERVICE_UNAVAILABLE
    acts = (closing(1001), unavailable, HTTPStatus.BAD_GATEWAY, holding)
    async with peer(*acts) as server, Client(server.url) as client:
        assert len(await until_connected(client)) == 4
    async with peer(unavailable) as server:
        with pytest.raises(ConnectFailed, match="full or going away"):
            async with Client(server.url):
                pass


async def test_a_draining_server_is_left_when_it_said_and_not_before() -> None:
    async def drain(connection: ServerConnection) -> None:
        await connection.send(frame({"type": "draining", "timestamp": "now", "retry_after_ms": 600}))
        await connection.wait_closed()

    async with peer(drain, holding) as server, Client(server.url) as client:
        lost, _ = await until_connected(client)
        assert isinstance(lost, Lost)
        assert lost.why == "the server is going away"
        assert server.times[1] - server.times[0] >= 0.6


async def test_a_draining_server_that_closes_is_not_come_back_to_before_the_time() -> None:
    async def drain(connection: ServerConnection) -> None:
        await connection.send(frame({"type": "draining", "timestamp": "now", "retry_after_ms": 600}))
        await connection.close(1001)

    async with peer(drain, holding) as server, Client(server.url) as client:
        await until_connected(client)
        assert server.times[1] - server.times[0] >= 0.6


async def test_a_gap_makes_a_new_connection_that_goes_on_where_the_events_were_whole() -> None:
    def message(seq: int, text: str, offset: int) -> str:
        return frame(event_frame(seq, "agent_message", {"text": text, "offset": offset}))

    async def leave_out(connection: ServerConnection) -> None:
        request = await asked(connection)
        await connection.send(frame({**SUBSCRIBED, "id": request["id"], "after_seq": 0}))
        await connection.send(message(1, "a", 0))
        await connection.send(message(3, "c", 2))
        await connection.wait_closed()

    async def resume(connection: ServerConnection) -> None:
        request = await asked(connection)
        assert request["payload"] == {"thread_id": "t", "after_seq": 1, "epoch": "e1"}
        await connection.send(frame({**SUBSCRIBED, "id": request["id"], "after_seq": 1}))
        await connection.send(message(2, "b", 1))
        await connection.send(message(3, "c", 2))
        await connection.wait_closed()

    async with peer(leave_out, resume) as server, Client(server.url) as client:
        await client.follow("t")
        told: list[int] = []
        async with asyncio.timeout(PATIENCE_S):
            while len(told) < 3:
                update = await anext(client)
                if isinstance(update, Event):
                    told.append(update.seq)
        assert told == [1, 2, 3]


async def test_a_resume_that_cannot_be_done_now_is_asked_again() -> None:
    async def first(connection: ServerConnection) -> None:
        request = await asked(connection)
        await connection.send(frame({**SUBSCRIBED, "id": request["id"], "after_seq": 0}))
        await connection.close(1012)

    async def second(connection: ServerConnection) -> None:
        request = await asked(connection)
        refusal = {"type": "error", "code": "database_unavailable", "message": "m", "retryable": True}
        await connection.send(frame({**refusal, "id": request["id"], "retry_after_ms": 50}))
        again = await asked(connection)
        assert again["payload"] == request["payload"]
        await connection.send(frame({**SUBSCRIBED, "id": again["id"], "after_seq": 0}))
        await connection.send(frame(event_frame(1, "agent_queued", {"position": 1})))
        await connection.wait_closed()

    async with peer(first, second) as server, Client(server.url) as client:
        await client.follow("t")
        async with asyncio.timeout(PATIENCE_S):
            async for update in client:
                if isinstance(update, Event):
                    assert update.seq == 1
                    break


async def test_a_passing_trouble_is_told_and_the_same_start_is_sent_again() -> None:
    async def act(connection: ServerConnection) -> None:
        request = await asked(connection)
        refusal = {"type": "error", "code": "rate_limited", "message": "m", "retryable": True, "retry_after_ms": 10}
        await connection.send(frame({**refusal, "id": request["id"]}))
        again = await asked(connection)
        assert again["payload"] == request["payload"]
        assert "idempotency_key" in again["payload"]
        await connection.send(
            frame(
                {
                    "type": "request_accepted",
                    "id": again["id"],
                    "timestamp": "now",
                    "request_id": "req",
                    "thread_id": "t",
                    "epoch": "e1",
                    "run_id": "r",
                    "seq": 0,
                    "duplicate": False,
                    "status": "running",
                    "position": 0,
                }
            )
        )
        await connection.wait_closed()

    async with peer(act) as server, Client(server.url) as client:
        accepted = await client.start("hi")
        assert accepted.run_id == "r"


async def test_what_is_no_agentws_server_is_said() -> None:
    async def greet_otherwise(connection: ServerConnection) -> None:
        await connection.send('{"hello": "world"}')

    async with serve(greet_otherwise, "127.0.0.1", 0, subprotocols=[Subprotocol("agentws.v1.json")]) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        with pytest.raises(ConnectFailed, match="no agentws server"):
            async with Client(url):
                pass
