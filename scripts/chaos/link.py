"""One WebSocket of a client, recorded frame by frame, that resets its socket after so many frames.

A link never hides anything: what it asked is answered, refused (`Refused`), or in doubt because it is gone (`Lost`).
"""

import asyncio
import json
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage, InvalidStatus

from scripts.chaos.record import Log

__all__ = ["Frame", "Link", "Lost", "Refused", "reset"]

Frame = dict[str, Any]

OPEN_S = 10.0
_FULL = 503
_SMALL_BUFFER = 4096


class Lost(Exception):
    """The connection is gone; what was asked may have happened."""


class Refused(Exception):
    """The server answered with an error."""

    def __init__(self, error: Frame) -> None:
        super().__init__(error)
        self.code = str(error.get("code"))
        self.retryable = error.get("retryable") is True


def reset(peer: socket.socket) -> None:
    """Lets the closing of a socket be a reset (RST)."""
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


class Link:
    """Made by `open`. Its reader ends with the connection; `frames_left` counts down to the reset."""

    def __init__(self, log: Log, connection: ClientConnection, *, frames_left: int | None, bytes_per_s: float) -> None:
        self.log = log
        self.is_open = True
        self._connection = connection
        self._frames_left = frames_left
        self._bytes_per_s = bytes_per_s
        self._asked = 0
        self.frames = 0
        self._waiting: list[tuple[Callable[[Frame], bool], asyncio.Future[Frame]]] = []
        self.reader = asyncio.create_task(self._read())

    @classmethod
    async def open(cls, log: Log, url: str, *, frames_left: int | None = None, bytes_per_s: float = 0) -> "Link":
        """Connects as the log's user. With `bytes_per_s` it reads so slowly, through small buffers.

        Raises:
            Lost: if it cannot.
        """
        parts = urlsplit(url)
        peer = socket.socket()
        peer.setblocking(False)
        try:
            if bytes_per_s:
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SMALL_BUFFER)
            async with asyncio.timeout(OPEN_S):
                await asyncio.get_running_loop().sock_connect(peer, (parts.hostname, parts.port))
                connection = await connect(
                    f"ws://{parts.netloc}/ws?user={log.user}",
                    sock=peer,
                    compression=None,
                    max_size=None,
                    max_queue=1 if bytes_per_s else 16,
                    ping_interval=None,
                    close_timeout=1,
                    proxy=None,
                )
        except InvalidStatus as error:
            peer.close()
            if error.response.status_code != _FULL:
                log.fault("closes", f"the upgrade was answered {error.response.status_code}")
            raise Lost from error
        except (OSError, InvalidHandshake, InvalidMessage, EOFError) as error:
            peer.close()
            raise Lost from error
        except BaseException:
            peer.close()
            raise
        return cls(log, connection, frames_left=frames_left, bytes_per_s=bytes_per_s)

    async def _read(self) -> None:
        try:
            while True:
                raw = await self._connection.recv()
                if not self.is_open:
                    return
                self.frames += 1
                self._take(self.log.heard(raw))
                if self._bytes_per_s:
                    await asyncio.sleep(len(raw) / self._bytes_per_s)
                if self._frames_left is not None:
                    self._frames_left -= 1
                    if self._frames_left <= 0:
                        self.cut()
        except ConnectionClosed as closed:
            self._closed(closed)
        finally:
            self._end()

    def _take(self, frame: Frame) -> None:
        for wanted, future in list(self._waiting):
            if not future.done() and wanted(frame):
                future.set_result(frame)

    def _closed(self, closed: ConnectionClosed) -> None:
        """Both who reads and who sends may be the first to hear of it."""
        if self.is_open:
            told = closed.rcvd
            self.log.closed(told.code if told else 1006, told.reason if told else "", by_client=False)
        self._end()

    def _end(self) -> None:
        self.is_open = False
        for _, future in self._waiting:
            if not future.done():
                future.set_exception(Lost())

    def keep(self) -> None:
        """Lets it read on to the end, as fast as it can."""
        self._frames_left, self._bytes_per_s = None, 0.0

    def cut(self) -> None:
        """Resets the socket at once."""
        if not self.is_open:
            return
        self.log.closed(1006, "", by_client=True)
        self._end()
        peer = self._connection.transport.get_extra_info("socket")
        if peer is not None and peer.fileno() >= 0:
            reset(peer)
        self._connection.transport.abort()

    @contextmanager
    def expected(self, wanted: Callable[[Frame], bool]) -> Iterator[asyncio.Future[Frame]]:
        """The next frame of that kind, to be awaited within the block; it fails with Lost."""
        if not self.is_open:
            raise Lost
        waiting = (wanted, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        try:
            yield waiting[1]
        finally:
            self._waiting.remove(waiting)
            # Nobody may be left to hear of its failure.
            if not waiting[1].cancel() and not waiting[1].cancelled():
                waiting[1].exception()

    async def until(self, wanted: Callable[[Frame], bool], *, timeout_s: float) -> Frame:
        """The next frame of that kind.

        Raises:
            Lost: if the connection ended before.
            TimeoutError: if none came in time.
        """
        with self.expected(wanted) as coming:
            async with asyncio.timeout(timeout_s):
                return await coming

    async def send(self, frame: Frame, *, may: frozenset[str] = frozenset()) -> None:
        """Records the frame and sends it. Frames leave in the order of the calls.

        Raises:
            Lost: if the connection is gone.
        """
        self.log.sent(frame, may=may)
        try:
            await self._connection.send(json.dumps(frame))
        except ConnectionClosed as error:
            self._closed(error)
            raise Lost from error

    async def ask(self, frame: Frame, *, timeout_s: float, may: frozenset[str] = frozenset()) -> Frame:
        """Sends the frame with an id, and returns the answer. A connection that does not answer in time is cut.

        Raises:
            Lost: if none came.
            Refused: if it is an error.
        """
        self._asked += 1
        name = f"q{self._asked}"
        with self.expected(lambda told: told.get("id") == name) as coming:
            try:
                async with asyncio.timeout(timeout_s):
                    await self.send({**frame, "id": name}, may=may)
                    answer = await coming
            except TimeoutError:
                self.log.recording.counts["unanswered"] += 1
                self.cut()
                raise Lost from None
        if answer.get("type") == "error":
            raise Refused(answer)
        return answer
