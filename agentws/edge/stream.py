"""A thread's frames as server-sent events: a connection whose frames go out as an HTTP response."""

import asyncio
from typing import Any

import msgspec
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from agentws.core.limits import refuse
from agentws.edge.connection import Connection, Desk
from agentws.edge.websocket import Connections
from agentws.observe.logs import bound
from agentws.ports import Credentials
from agentws.wire.messages import Subscribe

__all__ = ["Streams"]

_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    # nginx gathers a response otherwise.
    (b"x-accel-buffering", b"no"),
]
_LAST = frozenset({"thread_deleted", "subscription_ended"})


class _Named(msgspec.Struct, frozen=True):
    """What of a frame is told beside it; run events alone have an `event_id`."""

    type: str
    seq: int | None = None
    event_id: str | None = None


_decode = msgspec.json.Decoder(_Named).decode


class Streams:
    """
    Args:
        connections: where streams count among the connections.
        heartbeat_interval_s: how often a comment is sent, so that a peer that is gone is noticed.
    """

    def __init__(self, connections: Connections, desk: Desk, *, heartbeat_interval_s: float) -> None:
        self._connections = connections
        self._desk = desk
        self._heartbeat_interval_s = heartbeat_interval_s

    def open(self, credentials: Credentials, message: Subscribe) -> Response:
        """The response that streams a subscription.

        Raises:
            Refusal: `draining` where this process closes its connections, `overloaded` where there are too many,
                `too_many_subscriptions` where they are the user's own.
        """
        self._connections.check_room()
        if self._connections.is_full_for(credentials.principal):
            raise refuse("too_many_subscriptions")
        return _Stream(self._connections, self._desk, credentials, message, self._heartbeat_interval_s)


class _Stream(Response):
    def __init__(
        self,
        connections: Connections,
        desk: Desk,
        credentials: Credentials,
        message: Subscribe,
        heartbeat_interval_s: float,
    ) -> None:
        super().__init__()
        self._connections = connections
        self._desk = desk
        self._credentials = credentials
        self._message = message
        self._heartbeat_interval_s = heartbeat_interval_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        wire = _Wire(receive, send)
        connection = wire.connection = Connection(self._credentials, wire.send, self._desk)
        self._connections.add(connection)
        with bound(connection_id=connection.connection_id):
            try:
                await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
                await self._serve(connection, wire)
            finally:
                self._connections.discard(connection)

    async def _serve(self, connection: Connection, wire: "_Wire") -> None:
        await self._desk.commands.carry_out(connection, self._message)
        if not connection.is_following:
            # The thread has gone since it was looked up; that has been said.
            connection.close(1000, "no subscription")
        async with asyncio.TaskGroup() as tasks:
            beat = tasks.create_task(wire.beat(self._heartbeat_interval_s))
            await connection.serve(wire.receive)
            beat.cancel()


class _Wire:
    """Turns what a WebSocket connection sends into events of a stream, and the end of the request into its end."""

    connection: Connection

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._turn = asyncio.Lock()
        self._is_closing = False
        self._is_over = False
        self._closed = asyncio.Event()

    async def receive(self) -> Message:
        """The one thing that comes: the end."""
        gone = asyncio.ensure_future(self._until_gone())
        closed = asyncio.ensure_future(self._closed.wait())
        try:
            await asyncio.wait((gone, closed), return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            closed.cancel()
        return {"type": "websocket.disconnect", "code": 1000}

    async def _until_gone(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def send(self, message: Any) -> None:
        """Sends a frame as an event; a close ends the response."""
        if self._is_closing:
            return
        if message["type"] == "websocket.close":
            self._is_closing = True
            # Only then: whoever waits for the end takes away the time to send it.
            await self._body("", more=False)
            self._closed.set()
            return
        named = _decode(message["text"])
        number = f"id: {named.seq}\n" if named.event_id is not None else ""
        await self._body(f"{number}event: {named.type}\ndata: {message['text']}\n\n")
        if named.type in _LAST:
            self.connection.close(1000, "the subscription has ended")

    async def beat(self, interval_s: float) -> None:
        """Sends a comment at intervals until cancelled."""
        while True:
            await asyncio.sleep(interval_s)
            await self._body(": still here\n\n")

    async def _body(self, text: str, *, more: bool = True) -> None:
        # One at a time: what waits until the peer reads must not come after the end.
        async with self._turn:
            if not self._is_over:
                self._is_over = not more
                await self._send({"type": "http.response.body", "body": text.encode(), "more_body": more})
