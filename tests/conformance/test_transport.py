"""Section 1: the endpoint, its subprotocol, and what a frame may be before anyone reads its JSON."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator

import pytest
from websockets.exceptions import ConnectionClosed

from .client import SUBPROTOCOL, Client, Server, connect, fresh

MAX_BYTES = 1024 * 1024


def ping_of(size: int) -> bytes:
    """A ping frame of exactly `size` bytes."""
    bare = json.dumps({"type": "ping", "id": "big", "payload": ""}).encode()
    padding = b"x" * (size - len(bare))
    return bare[:-2] + padding + bare[-2:]


async def in_fragments(raw: bytes, size: int) -> AsyncIterator[bytes]:
    for at in range(0, len(raw), size):
        yield raw[at : at + size]


async def test_the_offered_subprotocol_is_taken(server: Server) -> None:
    async with connect(server, subprotocols=[SUBPROTOCOL]) as client:
        assert client.socket.subprotocol == SUBPROTOCOL
        await client.still_serves()


async def test_the_known_subprotocol_is_taken_among_unknown_ones(server: Server) -> None:
    async with connect(server, subprotocols=["something.v9", SUBPROTOCOL]) as client:
        assert client.socket.subprotocol == SUBPROTOCOL


async def test_a_client_that_offers_no_subprotocol_gets_none_and_is_served(server: Server) -> None:
    async with connect(server, subprotocols=None) as client:
        assert client.socket.response is not None
        assert "Sec-WebSocket-Protocol" not in client.socket.response.headers
        await client.still_serves()


async def test_a_binary_frame_is_refused_and_the_connection_stays_open(server: Server) -> None:
    async with connect(server) as client:
        await client.socket.send(json.dumps({"type": "ping", "id": "p"}).encode(), text=False)
        refusal = await client.answer_to(None)
        assert (refusal["type"], refusal["code"]) == ("error", "unsupported_frame")
        await client.still_serves()


async def test_a_frame_of_exactly_the_limit_is_served(server: Server) -> None:
    async with connect(server) as client:
        await client.send_text(ping_of(MAX_BYTES))
        assert (await client.answer_to("big"))["type"] == "pong"


async def send_until_closed(client: Client, message: bytes | AsyncIterator[bytes]) -> int | None:
    with contextlib.suppress(ConnectionClosed):
        await client.socket.send(message, text=True)
    return await client.closed()


async def test_a_larger_frame_closes_with_1009(server: Server) -> None:
    async with connect(server) as client:
        assert await send_until_closed(client, ping_of(MAX_BYTES + 1)) == 1009


async def test_fragments_that_are_too_large_together_close_with_1009(server: Server) -> None:
    async with connect(server) as client:
        assert await send_until_closed(client, in_fragments(ping_of(MAX_BYTES + 1), 200_000)) == 1009


async def test_a_frame_in_fragments_is_one_frame(server: Server) -> None:
    async with connect(server) as client:
        raw = json.dumps({"type": "ping", "id": "parts", "payload": "äöü🎈"}, ensure_ascii=False).encode()
        await client.socket.send(in_fragments(raw, 7), text=True)
        assert (await client.answer_to("parts"))["payload"] == "äöü🎈"


@pytest.mark.parametrize(
    "garbage",
    [b"\xff", b"\xc3\x28", b"\xed\xa0\x80", b"\xf8\x88\x80\x80\x80", b"\xc0\x80"],
    ids=["no such byte", "broken sequence", "surrogate", "five bytes", "overlong"],
)
async def test_text_that_is_not_utf8_closes_with_1007(server: Server, garbage: bytes) -> None:
    async with connect(server) as client:
        raw = b'{"type": "ping", "payload": "' + garbage + b'"}'
        assert await send_until_closed(client, raw) == 1007


async def test_the_fault_of_one_connection_leaves_the_users_others_open(server: Server) -> None:
    user = fresh("u")
    async with connect(server, user) as faulty, connect(server, user) as other:
        assert await send_until_closed(faulty, b"\xff") == 1007
        await other.still_serves()


async def test_websocket_pings_are_answered(server: Server) -> None:
    async with connect(server) as client:
        async with asyncio.timeout(20):
            await (await client.socket.ping())
        await client.still_serves()
