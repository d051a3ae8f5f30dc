"""The load of the benchmark: users in a closed loop, each with a connection and a thread of its own.

Every run is checked as it arrives. `python -m scripts.bench_load URL` takes an Order a line and answers with a Round.
"""

import asyncio
import base64
import secrets
import sys
import time
from collections.abc import Sequence
from math import ceil
from typing import Any, cast
from urllib.parse import urlsplit

import msgspec
import uvloop
from websockets.frames import Frame, Opcode

__all__ = ["Broken", "Order", "Round", "RunCheck", "Seen", "main", "percentile", "split_frames"]

CRITICAL = ("agent_started", "agent_thinking", "tool_executing", "tool_completed", "agent_completed")
_WAIT_S = 30.0


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """A round: how many users, which agent, and how many seconds; what ends in the `lead_s` before is not counted."""

    users: int
    agent: str
    seconds: float
    lead_s: float


class Round(msgspec.Struct, frozen=True, kw_only=True):
    """What a round came to.

    Args:
        runs: those that ended within the time; `rate` a second.
        all_runs: those of the lead and the last ones of each user too; `early` of them, as a share, had their
            `tool_executing` before the tool returned; `client_ms` of CPU time each cost the load.
        p50_ms, p95_ms: of the times from the user's message to `agent_completed`.
        broken: what was wrong with a run; then nothing else means anything.
    """

    runs: int = 0
    rate: float = 0.0
    all_runs: int = 0
    early: float = 0.0
    client_ms: float = 0.0
    p50_ms: float = 0.0
    p95_ms: float = 0.0
    broken: str = ""


class Broken(Exception):
    """A server did not keep what the protocol promises."""


class _Result(msgspec.Struct):
    text: str = ""
    returned: float = 0.0


class _Payload(msgspec.Struct):
    message: str = ""
    response: str | None = None
    result: _Result | None = None


class Seen(msgspec.Struct):
    """What is looked at in a frame."""

    type: str
    seq: int = 0
    from_seq: int | None = None
    user_id: str = ""
    code: str = ""
    payload: _Payload | None = None


class RunCheck:
    """One run as its user sees it: every number, the five critical events in order, and the user's own text."""

    def __init__(self, user: str, text: str) -> None:
        self.early = False
        self._user = user
        self._text = text
        self._seq: int | None = None
        self._met = 0
        self._executing_at = 0.0

    def take(self, frame: Seen, at: float) -> bool:
        """Takes the next frame, which came `at` this time of the monotonic clock; returns whether the run has ended.

        Raises:
            Broken: if it should not have come, or not now.
        """
        if frame.type == "request_accepted":
            self._seq = frame.seq
            return False
        if self._seq is None or frame.payload is None:
            raise Broken(f"{self._user} was told {frame.type} {frame.code} instead of events of a run")
        if frame.user_id != self._user:
            raise Broken(f"{self._user} was told an event of {frame.user_id}")
        if (frame.from_seq or frame.seq) != self._seq + 1:
            raise Broken(f"{self._user} was told {frame.seq} after {self._seq}")
        self._seq = frame.seq
        if frame.type not in CRITICAL:
            if frame.type != "agent_message":
                raise Broken(f"{self._user} was told {frame.type}")
            return False
        if frame.type != CRITICAL[self._met]:
            raise Broken(f"{self._user} was told {frame.type} where {CRITICAL[self._met]} belongs")
        self._met += 1
        self._check_content(frame.type, frame.payload, at)
        return self._met == len(CRITICAL)

    def _check_content(self, kind: str, payload: _Payload, at: float) -> None:
        match kind:
            case "agent_started":
                told, wanted = payload.message, self._text
            case "tool_executing":
                self._executing_at = at
                return
            case "tool_completed":
                result = payload.result or _Result()
                self.early = self._executing_at < result.returned
                told, wanted = result.text, self._text[::-1]
            case "agent_completed":
                told, wanted = payload.response or "", self._text
            case _:
                return
        if told != wanted:
            raise Broken(f"{self._user} was told {told!r} in {kind} where {wanted!r} belongs")


def split_frames(data: bytes) -> tuple[list[tuple[int, bytes]], bytes]:
    """The whole frames in what a server sent, as opcode and payload, and the rest (RFC 6455, 5.2).

    websockets' own reader does more than this load needs, at several times the cost.
    """
    frames = []
    at = 0
    while len(data) - at >= 2:
        first, size, start = data[at], data[at + 1], at + 2
        if not first & 0x80 or size & 0x80:
            raise Broken("a fragmented or masked frame")
        if size > 125:
            start += 2 if size == 126 else 8
            if len(data) < start:
                break
            size = int.from_bytes(data[at + 2 : start])
        if len(data) < start + size:
            break
        frames.append((first & 0x0F, data[start : start + size]))
        at = start + size
    return frames, data[at:]


def percentile(values: Sequence[float], share: float) -> float:
    """The least value that at least this share of the values does not exceed; 0 where there are none."""
    return sorted(values)[max(0, ceil(share * len(values)) - 1)] if values else 0.0


_decode = msgspec.json.Decoder(Seen).decode
_encode = msgspec.json.Encoder().encode


class User(asyncio.Protocol):
    """One connection; `run` at a time."""

    def __init__(self, name: str, request: bytes) -> None:
        self.name = name
        self.established: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._request = request
        self._upgraded = False
        self._rest = b""
        self._transport: asyncio.Transport | None = None
        self._check: RunCheck | None = None
        self._ended = self.established

    async def run(self, text: str, agent: str) -> RunCheck:
        """Sends a message and returns when its run has ended. Raises Broken."""
        assert self._transport is not None
        check = self._check = RunCheck(self.name, text)
        self._ended = asyncio.get_running_loop().create_future()
        message = {"type": "user_message", "payload": {"content": text, "agent": agent}}
        self._transport.write(Frame(Opcode.TEXT, _encode(message)).serialize(mask=True))
        await self._ended
        return check

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclasses of asyncio's.
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        at = time.monotonic()
        data = self._rest + data
        try:
            if not self._upgraded:
                head, end, data = data.partition(b"\r\n\r\n")
                if not end:
                    self._rest = head
                    return
                if not head.startswith(b"HTTP/1.1 101 "):
                    raise Broken(f"the upgrade was answered {head.decode(errors='replace')}")
                self._upgraded = True
            frames, self._rest = split_frames(data)
            for opcode, payload in frames:
                self._take(opcode, payload, at)
        except (Broken, msgspec.MsgspecError) as error:
            self._settle(error)

    def connection_lost(self, exc: Exception | None) -> None:
        self._settle(Broken(f"{self.name}'s connection was closed"))

    def _take(self, opcode: int, payload: bytes, at: float) -> None:
        if opcode == Opcode.PING:
            assert self._transport is not None
            self._transport.write(Frame(Opcode.PONG, payload).serialize(mask=True))
        elif opcode != Opcode.TEXT:
            raise Broken(f"{self.name} was sent a frame of type {opcode}")
        elif self._check is None:
            if (frame := _decode(payload)).type != "connection_established":
                raise Broken(f"{self.name} was told {frame.type} {frame.code} first of all")
            self._settle(None)
        elif self._check.take(_decode(payload), at):
            self._settle(None)

    def _settle(self, error: Exception | None) -> None:
        if self._ended.done():
            return
        if error is None:
            self._ended.set_result(None)
        else:
            self._ended.set_exception(error)


class Load:
    """All users of one server, connected when first needed."""

    def __init__(self, url: str) -> None:
        self._url = urlsplit(url)
        self._users: list[User] = []
        self._numbers = 0

    async def round(self, order: Order) -> Round:
        """Loads the server as ordered. Raises Broken."""
        while len(self._users) < order.users:
            self._users.append(await self._connect(f"user-{len(self._users)}"))
        cpu = time.process_time()
        began = time.monotonic() + order.lead_s
        until = began + order.seconds
        async with asyncio.timeout(order.lead_s + order.seconds + _WAIT_S), asyncio.TaskGroup() as tasks:
            loops = [tasks.create_task(self._repeat(user, order.agent, until)) for user in self._users[: order.users]]
        done = [each for one in loops for each in one.result()]
        took = [(end - start) * 1000 for start, end, _ in done if began <= end <= until]
        return Round(
            runs=len(took),
            rate=len(took) / order.seconds,
            all_runs=len(done),
            early=sum(early for _, _, early in done) / len(done),
            client_ms=(time.process_time() - cpu) * 1000 / len(done),
            p50_ms=percentile(took, 0.5),
            p95_ms=percentile(took, 0.95),
        )

    async def _repeat(self, user: User, agent: str, until: float) -> list[tuple[float, float, bool]]:
        done = []
        start = time.monotonic()
        while start < until:
            self._numbers += 1
            check = await user.run(f"{user.name} asks for number {self._numbers} of its own", agent)
            end = time.monotonic()
            done.append((start, end, check.early))
            start = end
        return done

    async def _connect(self, name: str) -> User:
        host, port = self._url.hostname or "", self._url.port or 80
        request = (
            f"GET /ws?user={name} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            f"Sec-WebSocket-Key: {base64.b64encode(secrets.token_bytes(16)).decode()}\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: agentws.v1.json\r\n\r\n"
        )
        loop = asyncio.get_running_loop()
        _, user = await loop.create_connection(lambda: User(name, request.encode()), host, port)
        async with asyncio.timeout(_WAIT_S):
            await user.established
        return user


async def _serve(url: str) -> None:
    load = Load(url)
    decode = msgspec.json.Decoder(Order).decode
    # Read beside the loop, which answers the servers' pings between the rounds.
    while line := await asyncio.to_thread(sys.stdin.readline):
        try:
            answer = await load.round(decode(line))
        except* (Broken, TimeoutError, OSError, msgspec.MsgspecError) as group:
            answer = Round(broken="; ".join(_reasons(group)))
        print(_encode(answer).decode(), flush=True)


def _reasons(group: BaseExceptionGroup[Any]) -> list[str]:
    """What went wrong, each once."""
    return sorted({str(error) or type(error).__name__ for error in group.exceptions if isinstance(error, Exception)})


def main() -> None:
    """Serves orders until there are no more."""
    uvloop.run(_serve(sys.argv[1]))


if __name__ == "__main__":
    main()
