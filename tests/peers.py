"""A WebSocket client in this process: the server's own ASGI application, without a network between."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, MutableMapping, Sequence
from typing import Any

from agentws.app import Service

__all__ = ["TERMINAL", "Peer", "peer"]

PATIENCE_S = 20.0
TERMINAL = ("agent_completed", "agent_error", "agent_stopped")
Frame = dict[str, Any]


class Peer:
    """`frames` holds all that came. `reading` cleared: what the server sends is not taken."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.closed_with: int | None = None
        self.reading = asyncio.Event()
        self.reading.set()
        self.gone = False
        self._taken = 0
        self._inbox: asyncio.Queue[Frame] = asyncio.Queue()
        self._arrived = asyncio.Event()

    async def receive(self) -> Frame:
        return await self._inbox.get()

    async def deliver(self, message: MutableMapping[str, Any]) -> None:
        """What the server calls to send."""
        await self.reading.wait()
        if self.gone:
            raise OSError("the peer is gone")
        if message["type"] == "websocket.send":
            self.frames.append(json.loads(message["text"]))
        elif message["type"] == "websocket.close":
            self.closed_with = message["code"]
            self._inbox.put_nowait({"type": "websocket.disconnect", "code": message["code"]})
        self._arrived.set()

    def put(self, message: Frame) -> None:
        """Hands the server an ASGI message."""
        self._inbox.put_nowait(message)

    def send(self, **frame: Any) -> None:
        self.put({"type": "websocket.receive", "text": json.dumps(frame)})

    async def until(self, match: Callable[[Frame], bool]) -> Frame:
        """The first frame that matches, among those not yet looked at."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                while self._taken < len(self.frames):
                    frame = self.frames[self._taken]
                    self._taken += 1
                    if match(frame):
                        return frame
                self._arrived.clear()
                await self._arrived.wait()

    async def until_closed(self) -> int:
        """The code with which the server has closed the connection."""
        async with asyncio.timeout(PATIENCE_S):
            while self.closed_with is None:
                self._arrived.clear()
                await self._arrived.wait()
        return self.closed_with

    async def until_type(self, *types: str) -> Frame:
        return await self.until(lambda frame: frame["type"] in types)

    async def ask(self, content: str, **options: Any) -> Frame:
        """Starts a run; returns `request_accepted`, or the error."""
        self.send(type="user_message", payload={"content": content, **options})
        return await self.until_type("request_accepted", "error")

    async def run(self, content: str, **options: Any) -> list[Frame]:
        """Starts a run and waits for its end; returns its events."""
        accepted = await self.ask(content, **options)
        assert accepted["type"] == "request_accepted", accepted
        return await self.ended(accepted["run_id"])

    async def ended(self, run_id: str) -> list[Frame]:
        """Waits for a run's end, also one that came before others were taken; returns its events."""
        async with asyncio.timeout(PATIENCE_S):
            while not any(frame["type"] in TERMINAL and frame["run_id"] == run_id for frame in self.frames):
                self._arrived.clear()
                await self._arrived.wait()
        return [frame for frame in self.frames if "payload" in frame and frame.get("run_id") == run_id]


@contextlib.asynccontextmanager
async def peer(
    service: Service, user: str = "ada", *, subprotocols: Sequence[str] = ("agentws.v1.json",)
) -> AsyncIterator[Peer]:
    """A connection of a user in dev auth, or of whom a subprotocol's token names; closed at the block's end, and
    waited for."""
    assert service.edge is not None
    made = Peer()
    scope = {
        "type": "websocket",
        "path": "/ws",
        "headers": [],
        "subprotocols": [*subprotocols],
        "query_string": f"user={user}".encode(),
        "extensions": {"websocket.http.response": {}},
    }
    made.put({"type": "websocket.connect"})
    task = asyncio.get_running_loop().create_task(service.edge(scope, made.receive, made.deliver))
    try:
        await made.until_type("connection_established")
        yield made
    finally:
        made.put({"type": "websocket.disconnect", "code": 1000})
        async with asyncio.timeout(PATIENCE_S):
            await task
