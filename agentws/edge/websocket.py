"""The WebSocket route: who may connect is decided before the upgrade is accepted, and how many."""

import asyncio
import logging
import secrets
from collections import Counter
from collections.abc import Iterator
from typing import Any

from starlette.requests import HTTPConnection
from starlette.types import Receive, Scope, Send

from agentws.core.context import Principal
from agentws.core.limits import refuse as limit
from agentws.core.session import error_frame
from agentws.edge.admission import Admission
from agentws.edge.connection import Connection, Desk
from agentws.observe.logs import bound
from agentws.version import VERSION
from agentws.wire.answers import ConnectionEstablished, DrainingNotice, HandshakeResponse, ServerMessage
from agentws.wire.codec import encode, timestamp, timestamp_at
from agentws.wire.errors import CATALOGUE, Fault
from agentws.wire.ids import new_number

__all__ = ["Connections", "WebSocketEdge", "refuse"]

log = logging.getLogger("agentws.edge")


class Connections:
    """The connections that are open now.

    Args:
        most: how many there may be; 0: any number.
        most_per_user: how many a user may have; 0: any number.
    """

    def __init__(self, *, most: int = 0, most_per_user: int = 0) -> None:
        self._most = most
        self._most_per_user = most_per_user
        self._open: set[Connection] = set()
        self._of_user: Counter[Principal] = Counter()
        self._is_closing = False
        self._none_open = asyncio.Event()
        self._none_open.set()

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[Connection]:
        return iter(tuple(self._open))

    @property
    def buffered(self) -> int:
        """How many bytes wait to be sent."""
        return sum(connection.buffered for connection in self._open)

    @property
    def is_full(self) -> bool:
        """Whether no further connection is taken."""
        return bool(self._most) and len(self._open) >= self._most

    def is_full_for(self, principal: Principal) -> bool:
        """Whether a user has as many connections as a user may have."""
        return bool(self._most_per_user) and self._of_user[principal] >= self._most_per_user

    def check_room(self) -> None:
        """Raises Refusal where no further connection is taken: `draining`, `overloaded`."""
        if self._is_closing:
            raise limit("draining")
        if self.is_full:
            raise limit("overloaded")

    def add(self, connection: Connection) -> None:
        self._open.add(connection)
        self._of_user[connection.principal] += 1
        self._none_open.clear()

    def discard(self, connection: Connection) -> None:
        self._open.discard(connection)
        self._of_user[connection.principal] -= 1
        if not self._of_user[connection.principal]:
            del self._of_user[connection.principal]
        if not self._open:
            self._none_open.set()

    async def none_open(self) -> None:
        """Waits until no connection is open."""
        await self._none_open.wait()

    def announce_drain(self, *, within_ms: int) -> None:
        """Tells all that this process goes away, each with a time of its own after which to come back."""
        for connection in self:
            retry_after_ms = secrets.randbelow(max(1, within_ms)) + 1
            connection.answer(DrainingNotice(timestamp=timestamp(), retry_after_ms=retry_after_ms))

    def close_all(self, code: int, reason: str, *, within_s: float) -> None:
        """Closes all connections, each after what it still has to send, and takes none from now on.

        `within_s`: as `Connection.close`.
        """
        self._is_closing = True
        for connection in self:
            connection.close(code, reason, within_s=within_s)


class WebSocketEdge:
    """The ASGI application of the route.

    Args:
        heartbeat_interval_s: how often the server pings, for clients to know.
        limits: what is told of the limits in `connection_established`.
    """

    def __init__(
        self,
        *,
        admission: Admission,
        connections: Connections,
        desk: Desk,
        heartbeat_interval_s: float,
        limits: dict[str, float],
    ) -> None:
        self._admission = admission
        self._connections = connections
        self._desk = desk
        self._meter = desk.commands.tally.meter
        self._heartbeat_interval_s = heartbeat_interval_s
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        try:
            self._connections.check_room()
            credentials = await self._admission.admit(HTTPConnection(scope))
            # Others came in meanwhile.
            self._connections.check_room()
        except Fault as fault:
            self._meter.refused(fault.code)
            await refuse(scope, send, fault)
            return
        connection = Connection(credentials, send, self._desk)
        if self._connections.is_full_for(credentials.principal):
            await send({"type": "websocket.accept", "subprotocol": credentials.subprotocol})
            await send({"type": "websocket.close", "code": 4409, "reason": "too many connections of this user"})
            return
        # Counted from here on, so that two upgrades at once do not both take the last place.
        self._connections.add(connection)
        with bound(connection_id=connection.connection_id):
            try:
                await send({"type": "websocket.accept", "subprotocol": credentials.subprotocol})
                self._meter.opened()
                log.info("connection opened")
                await connection.serve(receive, *self._greetings(connection))
            finally:
                self._connections.discard(connection)
                log.info("connection closed")

    def _greetings(self, connection: Connection) -> list[ServerMessage]:
        greetings: list[ServerMessage] = [
            ConnectionEstablished(
                timestamp=timestamp(),
                connection_id=connection.connection_id,
                user_id=connection.principal.user_id,
                expires_at=timestamp_at(connection.expires_at),
                protocol="agentws.v1",
                server_version=VERSION,
                heartbeat_interval_s=self._heartbeat_interval_s,
                limits=self._limits,
            )
        ]
        if connection.reserved_thread is not None:
            greetings.append(
                HandshakeResponse(
                    thread_id=connection.reserved_thread[0],
                    run_id=None,
                    request_id=f"req-{new_number():016x}",
                    session_token=secrets.token_urlsafe(24),
                    timestamp=timestamp(),
                    message="Handshake accepted.",
                )
            )
        return greetings


async def refuse(scope: Scope, send: Send, fault: Fault) -> None:
    """Answers an upgrade with the HTTP status of a fault and its error frame as the body."""
    if "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": 1008, "reason": fault.code})
        return
    body = encode(error_frame(fault, frame_id=None))
    headers: list[tuple[bytes, bytes]] = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
    ]
    if fault.retry_after_ms is not None:
        headers.append((b"retry-after", str(-(-fault.retry_after_ms // 1000)).encode()))
    start: dict[str, Any] = {"status": CATALOGUE[fault.code].status, "headers": headers}
    await send({"type": "websocket.http.response.start", **start})
    await send({"type": "websocket.http.response.body", "body": body})
