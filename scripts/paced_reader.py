"""A WebSocket client that reads as fast or as slowly as it is told, and answers a ping when it has read that far."""

import asyncio
import base64
import secrets
import socket
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import msgspec
from websockets.frames import Frame, Opcode

from scripts.bench_load import split_frames

__all__ = ["PacedReader"]

_encode = msgspec.json.Encoder().encode
_MOST = 64 * 1024


class PacedReader:
    """One connection.

    Args:
        opened: connected and upgraded; it is closed with this.
        rest: what has been read of it beyond the upgrade.

    `chunk` bytes at most are read at once, and after each reading nothing for `pause_s` seconds; both may be changed.
    `pongs` came so far. `closed_with` is the server's close code, None where it has sent none.
    """

    def __init__(self, opened: socket.socket, rest: bytes) -> None:
        self.chunk = _MOST
        self.pause_s = 0.0
        self.pongs = 0
        self.closed_with: int | None = None
        self._socket = opened
        self._rest = rest

    @classmethod
    async def connect(cls, url: str, user: str, *, receive_buffer: int = 0) -> "PacedReader":
        """Connects to a server in dev auth.

        Args:
            url: of its endpoint, `ws://HOST:PORT/ws`.
            receive_buffer: SO_RCVBUF in bytes; 0: the system's.
        """
        loop, address = asyncio.get_running_loop(), urlsplit(url)
        opened = socket.socket()
        opened.setblocking(False)
        if receive_buffer:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        key = base64.b64encode(secrets.token_bytes(16)).decode()
        head = (
            f"GET {address.path}?user={user} HTTP/1.1\r\nHost: {address.netloc}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
        )
        try:
            await loop.sock_connect(opened, (address.hostname, address.port))
            await loop.sock_sendall(opened, head.encode())
            answer = b""
            while b"\r\n\r\n" not in answer:
                answer += await _receive(opened, _MOST)
        except BaseException:
            opened.close()
            raise
        head_of_answer, rest = answer.split(b"\r\n\r\n", 1)
        if not head_of_answer.startswith(b"HTTP/1.1 101 "):
            opened.close()
            raise ConnectionError(head_of_answer.decode(errors="replace"))
        return cls(opened, rest)

    def close(self) -> None:
        """Breaks the connection."""
        self._socket.close()

    async def send(self, **frame: Any) -> None:
        """Sends a frame."""
        await self._write(Frame(Opcode.TEXT, _encode(frame)))

    async def ping(self) -> None:
        """Sends a WebSocket ping."""
        await self._write(Frame(Opcode.PING, secrets.token_bytes(4)))

    async def frames(self) -> AsyncIterator[bytes]:
        """The text frames as they come, until the server closes. Raises ConnectionError where the line breaks."""
        while True:
            frames, self._rest = split_frames(self._rest)
            for opcode, payload in frames:
                match opcode:
                    case Opcode.TEXT:
                        yield payload
                    case Opcode.PING:
                        await self._write(Frame(Opcode.PONG, payload))
                    case Opcode.PONG:
                        self.pongs += 1
                    case Opcode.CLOSE:
                        self.closed_with = int.from_bytes(payload[:2]) or None
                        return
            self._rest += await _receive(self._socket, self.chunk)
            if self.pause_s:
                await asyncio.sleep(self.pause_s)

    async def _write(self, frame: Frame) -> None:
        await asyncio.get_running_loop().sock_sendall(self._socket, frame.serialize(mask=True))


async def _receive(opened: socket.socket, most: int) -> bytes:
    data = await asyncio.get_running_loop().sock_recv(opened, most)
    if not data:
        raise ConnectionResetError("the server has closed the line")
    return data
