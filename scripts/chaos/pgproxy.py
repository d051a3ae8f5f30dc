"""A line to PostgreSQL that breaks as lines do: reset, silent, its answers or requests or hints lost, each on purpose.

It reads just enough of the wire protocol to know which unit of work a message calls and when it has been answered.
"""

import asyncio
import contextlib
import random
import re
import socket
import struct
from collections import Counter
from collections.abc import Iterator
from enum import Enum
from pathlib import Path

__all__ = ["Doubt", "PgProxy"]

_CALL = re.compile(rb"agentws\.(\w+)\(")
_SSL_REQUESTS = (80877103, 80877104)
_CANCEL_REQUEST = 80877102
_CHUNK = 1 << 16
# Texts that an answer holds where a call has written something; of other units of work that is not told apart.
_WROTE = {"append": b"written", "accept": b"accepted", "stop": b"stopping"}
_ANSWER_WAIT_S = 30.0
_LATEST_S = 4.0
_ENDS = b"completed"


class Doubt(Enum):
    """What becomes of a call whose caller is left in doubt: LOST: it took effect; UNSENT: it never came; LATE: it comes
    after its caller has been told that the line is broken; STUCK: one that ends a run, and comes when others have long
    taken over."""

    LOST = "lost"
    UNSENT = "unsent"
    LATE = "late"
    STUCK = "stuck"


class PgProxy:
    """
    Args:
        port: where it listens, on the loopback.
        target: PostgreSQL's Unix socket.
        rng: which hints are lost, and how late what is late comes.

    `counts`: `ambiguous` (commits whose answer was lost), `lost` (other answers), `unsent`, `late` and `stuck` calls,
    lost `hints`, and `reset` connections. `caught`: a call is stuck; it comes `stuck_s` seconds later.
    """

    def __init__(self, port: int, target: Path, rng: random.Random) -> None:
        self.port = port
        self.target = target
        self.rng = rng
        self.counts: Counter[str] = Counter()
        self.flowing = asyncio.Event()
        self.flowing.set()
        self.hint_loss = 0.0
        self.lag_s = 0.0
        self.caught = asyncio.Event()
        self.stuck_s = 0.0
        self._armed: list[tuple[str, Doubt]] = []
        self._lines: set[_Line] = set()
        self._serving: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def close(self) -> None:
        """Ends every connection and listens no more."""
        if self._server is not None:
            self._server.close()
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    def reset(self) -> None:
        """Breaks all connections at once."""
        for line in tuple(self._lines):
            self.counts["reset"] += 1
            line.end()

    def doubt(self, unit: str, doubt: Doubt) -> None:
        """Leaves the caller of the next call of a unit of work in doubt."""
        self._armed.append((unit, doubt))

    def mend(self) -> None:
        """From now on everything passes."""
        self._armed.clear()
        self.hint_loss = 0.0
        self.lag_s = 0.0
        self.flowing.set()

    def take_doubt(self, unit: str, message: bytes) -> Doubt | None:
        """What becomes of a call that comes now; None: it is answered."""
        for place, (wanted, doubt) in enumerate(self._armed):
            if wanted == unit and (doubt is not Doubt.STUCK or _ENDS in message):
                del self._armed[place]
                return doubt
        return None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        line = _Line(self, reader, writer)
        self._lines.add(line)
        try:
            await line.serve()
        except (OSError, asyncio.IncompleteReadError):
            pass  # A broken line is what this is for.
        finally:
            line.end()
            self._lines.discard(line)
            self._serving.discard(task)


class _Line:
    """One connection: `near` to the server under test, `far` to PostgreSQL."""

    def __init__(self, proxy: PgProxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._proxy = proxy
        self._near_reader, self._near = reader, writer
        self._far: asyncio.StreamWriter | None = None
        self._statements: dict[bytes, str] = {}
        self._doubt: Doubt | None = None
        self._unit = ""
        self._kept = bytearray()
        self._has_completed = False
        self._answered = asyncio.Event()

    async def serve(self) -> None:
        startup = await self._read_startup()
        await self._proxy.flowing.wait()
        far_reader, self._far = await asyncio.open_unix_connection(str(self._proxy.target))
        self._far.write(startup)
        pumps = [asyncio.ensure_future(self._up(self._far)), asyncio.ensure_future(self._down(far_reader))]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)

    def end(self) -> None:
        """Breaks it at once, with a reset where there is something to reset."""
        self._reset_near()
        if self._far is not None:
            self._far.transport.abort()

    def _reset_near(self) -> None:
        with contextlib.suppress(OSError):
            self._near.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._near.transport.abort()

    async def _read_startup(self) -> bytes:
        while True:
            head = await self._near_reader.readexactly(8)
            length, code = struct.unpack("!ii", head)
            if code not in _SSL_REQUESTS:
                return head + await self._near_reader.readexactly(length - 8)
            self._near.write(b"N")

    async def _up(self, far: asyncio.StreamWriter) -> None:
        rest = bytearray()
        while chunk := await self._near_reader.read(_CHUNK):
            rest += chunk
            passed = bytearray()
            for kind, message in _messages(rest):
                self._note(kind, message)
                if self._doubt in (Doubt.UNSENT, Doubt.LATE, Doubt.STUCK):
                    self._kept += message
                    if kind == b"S":
                        await self._leave_in_doubt(far)
                        return
                else:
                    if kind == b"S" and self._proxy.lag_s:
                        # What was called has its locks by then, and keeps them until its end arrives.
                        far.write(passed)
                        passed.clear()
                        await asyncio.sleep(self._proxy.rng.uniform(0, self._proxy.lag_s))
                    passed += message
            await self._proxy.flowing.wait()
            far.write(passed)
            await far.drain()

    def _note(self, kind: bytes, message: bytes) -> None:
        if kind == b"P":
            name, query, _ = message[5:].split(b"\0", 2)
            found = _CALL.search(query)
            self._statements[name] = found[1].decode() if found else ""
        elif kind == b"B" and self._doubt is None:
            name = message[5:].split(b"\0", 2)[1]
            self._unit = self._statements.get(name, "")
            self._doubt = self._proxy.take_doubt(self._unit, message)

    def _late_s(self) -> float:
        if self._doubt is Doubt.STUCK:
            self._proxy.caught.set()
            return self._proxy.stuck_s
        return self._proxy.rng.choice((0.0, self._proxy.rng.uniform(0, 1.5), _LATEST_S))

    async def _leave_in_doubt(self, far: asyncio.StreamWriter) -> None:
        self._proxy.counts[self._doubt.value if self._doubt else ""] += 1
        self._reset_near()
        if self._doubt is not Doubt.UNSENT:
            await asyncio.sleep(self._late_s())
            far.write(self._kept)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_ANSWER_WAIT_S):
                    await self._answered.wait()

    async def _down(self, far_reader: asyncio.StreamReader) -> None:
        rest = bytearray()
        while chunk := await far_reader.read(_CHUNK):
            rest += chunk
            passed = bytearray()
            for kind, message in _messages(rest):
                if self._doubt is Doubt.LOST:
                    if self._lose(kind, message):
                        return
                    passed += self._give_back()
                elif self._doubt is not None:
                    if kind == b"Z":
                        self._answered.set()
                elif kind == b"A" and self._proxy.rng.random() < self._proxy.hint_loss:
                    self._proxy.counts["hints"] += 1
                else:
                    passed += message
            await self._proxy.flowing.wait()
            self._near.write(passed)
            await self._near.drain()

    def _lose(self, kind: bytes, message: bytes) -> bool:
        """Keeps an answer back; whether it is one to a call that has committed, so that the line breaks now."""
        self._kept += message
        self._has_completed |= kind == b"C"
        # The commit is made between CommandComplete and ReadyForQuery.
        if kind != b"Z" or not self._has_completed:
            return False
        wrote = _WROTE.get(self._unit)
        self._proxy.counts["ambiguous" if wrote is not None and wrote in self._kept else "lost"] += 1
        return True

    def _give_back(self) -> bytes:
        """What was kept, where the call was refused: there is no doubt about it; the next one is left in it."""
        if not self._kept.endswith(b"Z\0\0\0\5I"):
            return b""
        kept = bytes(self._kept)
        self._kept.clear()
        self._doubt = None
        self._proxy.doubt(self._unit, Doubt.LOST)
        return kept


def _messages(rest: bytearray) -> Iterator[tuple[bytes, bytes]]:
    """Takes the whole messages out of what has come: kind and bytes, header included."""
    start = 0
    while len(rest) - start >= 5:
        end = start + 1 + int.from_bytes(rest[start + 1 : start + 5], "big")
        if len(rest) < end:
            break
        message = bytes(rest[start:end])
        start = end
        yield message[:1], message
    del rest[:start]
