"""Section 1, idle: the server pings, and closes a peer that has missed two. Its interval is one second here."""

import asyncio
import base64
import secrets
import time
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

from .client import Server, connect, fresh

PING, CLOSE = 0x9, 0x8


async def upgraded(server: Server) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection whose peer answers nothing by itself."""
    address = urlsplit(server.http_url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    key = base64.b64encode(secrets.token_bytes(16)).decode()
    head = [
        f"GET /ws?user={fresh('u')} HTTP/1.1",
        f"Host: {address.netloc}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Key: {key}",
    ]
    writer.write("\r\n".join([*head, "", ""]).encode())
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
    return reader, writer


async def opcodes(reader: asyncio.StreamReader) -> AsyncIterator[int]:
    """The opcodes of the server's frames, until its close or the end of the line."""
    while True:
        try:
            first, length = await reader.readexactly(2)
            if length >= 126:
                length = int.from_bytes(await reader.readexactly(2 if length == 126 else 8))
            await reader.readexactly(length)
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        yield first & 0xF
        if first & 0xF == CLOSE:
            return


async def test_a_peer_that_misses_two_pings_is_closed_and_one_that_answers_stays(limited: Server) -> None:
    async with connect(limited) as client, asyncio.timeout(20):
        assert client.established["heartbeat_interval_s"] == 1
        began = time.monotonic()
        reader, writer = await upgraded(limited)
        told = [opcode async for opcode in opcodes(reader)]
        writer.close()
        assert told.count(PING) >= 2
        assert time.monotonic() - began > 1.5
        await client.still_serves()
