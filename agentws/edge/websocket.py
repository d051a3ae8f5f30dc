"""The WebSocket route: frames in, frames out, in order; what is to be sent is bounded, and so is what is taken in.

A connection has two tasks. One reads frames and carries out each before it reads the next; the other sends.
"""

import asyncio
import logging
import secrets
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any, NamedTuple

from starlette.datastructures import Headers, QueryParams
from starlette.types import Receive, Scope, Send

from agentws.core.context import Principal
from agentws.core.session import Command, Handled, Reply, Session, error_frame
from agentws.feed import Feed, Subscription
from agentws.ports import Authenticator, Credentials, StoreUnavailable, ThreadKey
from agentws.runtime.dispatcher import Dispatcher
from agentws.version import VERSION
from agentws.wire.codec import encode, encode_text, timestamp
from agentws.wire.errors import CATALOGUE, Fault
from agentws.wire.ids import ConnectionId, ThreadId, new_connection_id
from agentws.wire.messages import ConnectionEstablished, DrainingNotice, ServerMessage

__all__ = ["Connection", "Connections", "WebSocketEdge"]

log = logging.getLogger("agentws.edge")

_LAST_READS_S = 1.0


class _Close(NamedTuple):
    code: int
    reason: str


class Connection:
    """One connection: the caller of its commands and the follower of its threads.

    Args:
        credentials: whose it is.
        send: where its frames go.
        buffer_bytes: how much may wait to be sent before no further frame is read.
    """

    def __init__(
        self, credentials: Credentials, send: Send, *, feed: Feed, dispatcher: Dispatcher, buffer_bytes: int
    ) -> None:
        self._session = Session(credentials.principal, new_connection_id())
        self._credentials = credentials
        self._send = send
        self._feed = feed
        self._dispatcher = dispatcher
        self._buffer_bytes = buffer_bytes
        self._queue: deque[str | Subscription | _Close] = deque()
        self._queued: set[Subscription] = set()
        self._bytes = 0
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._subscriptions: dict[ThreadId, Subscription] = {}

    # As a caller

    @property
    def principal(self) -> Principal:
        return self._session.principal

    @property
    def connection_id(self) -> ConnectionId:
        return self._session.connection_id

    @property
    def current_thread(self) -> ThreadId | None:
        return self._session.current_thread

    def make_current(self, thread_id: ThreadId) -> None:
        self._session.current_thread = thread_id

    def answer(self, frame: ServerMessage) -> None:
        self.tell(encode_text(frame))

    @contextmanager
    def hold(self, thread_id: ThreadId) -> Iterator[None]:
        subscription = self._subscriptions.get(thread_id)
        if subscription is None:
            yield
            return
        subscription.hold()
        try:
            yield
        finally:
            subscription.release()

    def follow(self, thread_id: ThreadId, *, epoch: str, after_seq: int, behind: bool) -> None:
        existing = self._subscriptions.get(thread_id)
        if existing is None or existing.is_closed:
            self._subscriptions[thread_id] = self._feed.subscribe(
                self,
                ThreadKey(self.principal, thread_id),
                epoch=epoch,
                cursor=after_seq,
                behind=behind,
                announce=None,
            )

    def replay(self, thread_id: ThreadId, *, frame_id: str | None, epoch: str, after_seq: int) -> None:
        self._subscriptions[thread_id] = self._feed.subscribe(
            self,
            ThreadKey(self.principal, thread_id),
            epoch=epoch,
            cursor=after_seq,
            behind=True,
            announce=(frame_id,),
        )

    def unfollow(self, thread_id: ThreadId) -> None:
        if subscription := self._subscriptions.pop(thread_id, None):
            subscription.close()

    # As a follower

    def ready(self, subscription: Subscription) -> None:
        if subscription not in self._queued:
            self._queued.add(subscription)
            self._queue.append(subscription)
            self._wake.set()

    def tell(self, text: str) -> None:
        self._queue.append(text)
        self._bytes += len(text)
        self._wake.set()

    # The connection itself

    def close(self, code: int, reason: str) -> None:
        """Closes the connection when everything before has been sent."""
        self._queue.append(_Close(code, reason))
        self._wake.set()

    async def serve(self, receive: Receive, established: ConnectionEstablished) -> None:
        """Serves an accepted connection until either side closes it."""
        self.answer(established)
        try:
            async with asyncio.TaskGroup() as tasks:
                sender = tasks.create_task(self._send_all())
                await self._read_all(receive)
                sender.cancel()
        finally:
            for thread_id in tuple(self._subscriptions):
                self.unfollow(thread_id)

    async def _read_all(self, receive: Receive) -> None:
        while True:
            event = await receive()
            if event["type"] == "websocket.disconnect":
                return
            text = event.get("text")
            step = self._session.receive_bytes() if text is None else self._session.receive_text(text, timestamp())
            match step:
                case Reply(frame):
                    self.answer(frame)
                case Command(message):
                    await self._carry_out(message)
            while self._bytes > self._buffer_bytes:
                self._room.clear()
                await self._room.wait()

    async def _carry_out(self, message: Handled) -> None:
        try:
            await self._dispatcher.dispatch(self, message)
        except Fault as fault:
            self._answer_fault(fault, message)
        except StoreUnavailable as error:
            log.warning("connection %s: %s: database unavailable: %s", self.connection_id, message.type, error)
            self._answer_fault(Fault("database_unavailable", text=_failed(message)), message)
        except Exception:
            failure = Fault("internal_error", text=_failed(message))
            correlation_id = secrets.token_hex(8)
            failure.details = {"correlation_id": correlation_id}
            log.exception(
                "connection %s: %s failed inside the server (correlation_id=%s)",
                self.connection_id,
                message.type,
                correlation_id,
            )
            self._answer_fault(failure, message)

    def _answer_fault(self, fault: Fault, message: Handled) -> None:
        self.answer(error_frame(fault, frame_id=message.id))

    async def _send_all(self) -> None:
        """Sends what is queued, until the connection is closed; a peer that is gone ends it."""
        try:
            while True:
                while self._queue:
                    item = self._queue.popleft()
                    if isinstance(item, _Close):
                        await self._send_rest()
                        await self._send({"type": "websocket.close", "code": item.code, "reason": item.reason})
                        return
                    await self._send_item(item)
                self._wake.clear()
                await self._wake.wait()
        except OSError:
            log.debug("connection %s: the peer is gone", self.connection_id)
        finally:
            # Nobody will take anything any more; a reader that waits for room must not wait for ever.
            self._buffer_bytes = 1 << 62
            self._room.set()

    async def _send_rest(self) -> None:
        """Sends what the journal is being asked for now, if it comes soon; the client would get it by resuming."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_LAST_READS_S):
                while self._queue or any(each.is_reading for each in self._subscriptions.values()):
                    if not self._queue:
                        self._wake.clear()
                        await self._wake.wait()
                    item = self._queue.popleft()
                    if not isinstance(item, _Close):
                        await self._send_item(item)

    async def _send_item(self, item: str | Subscription) -> None:
        if isinstance(item, str):
            self._bytes -= len(item)
            self._room.set()
            await self._send({"type": "websocket.send", "text": item})
            return
        self._queued.discard(item)
        for text in item.take():
            await self._send({"type": "websocket.send", "text": text})


def _failed(message: Handled) -> str:
    return f"Failed to process {message.type}. Please try again."


class Connections:
    """The connections that are open now."""

    def __init__(self) -> None:
        self._open: set[Connection] = set()
        self._none_open = asyncio.Event()
        self._none_open.set()

    def __len__(self) -> int:
        return len(self._open)

    def add(self, connection: Connection) -> None:
        self._open.add(connection)
        self._none_open.clear()

    def discard(self, connection: Connection) -> None:
        self._open.discard(connection)
        if not self._open:
            self._none_open.set()

    async def none_open(self) -> None:
        """Waits until no connection is open."""
        await self._none_open.wait()

    def announce_drain(self, *, within_ms: int) -> None:
        """Tells all that this process goes away, each with a time of its own after which to come back."""
        for connection in tuple(self._open):
            retry_after_ms = secrets.randbelow(max(1, within_ms)) + 1
            connection.answer(DrainingNotice(timestamp=timestamp(), retry_after_ms=retry_after_ms))

    def close_all(self, code: int, reason: str) -> None:
        """Closes all connections, each after what it still has to send."""
        for connection in tuple(self._open):
            connection.close(code, reason)


class WebSocketEdge:
    """The ASGI application of the route.

    Args:
        heartbeat_interval_s: how often the server pings, for clients to know.
        limits: what is told of the limits in `connection_established`.
    """

    def __init__(
        self,
        *,
        authenticate: Authenticator,
        connections: Connections,
        feed: Feed,
        dispatcher: Dispatcher,
        heartbeat_interval_s: float,
        send_buffer_bytes: int,
        limits: dict[str, int],
    ) -> None:
        self._authenticate = authenticate
        self._connections = connections
        self._feed = feed
        self._dispatcher = dispatcher
        self._heartbeat_interval_s = heartbeat_interval_s
        self._send_buffer_bytes = send_buffer_bytes
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        try:
            credentials = self._authenticate(
                Headers(scope=scope), scope["subprotocols"], QueryParams(scope["query_string"])
            )
        except Fault as fault:
            await refuse(scope, send, fault)
            return
        connection = Connection(
            credentials,
            send,
            feed=self._feed,
            dispatcher=self._dispatcher,
            buffer_bytes=self._send_buffer_bytes,
        )
        await send({"type": "websocket.accept", "subprotocol": credentials.subprotocol})
        self._connections.add(connection)
        log.info("connection %s opened", connection.connection_id)
        try:
            await connection.serve(receive, self._established(connection, credentials))
        finally:
            self._connections.discard(connection)
            log.info("connection %s closed", connection.connection_id)

    def _established(self, connection: Connection, credentials: Credentials) -> ConnectionEstablished:
        expires_at = credentials.expires_at
        return ConnectionEstablished(
            timestamp=timestamp(),
            connection_id=connection.connection_id,
            user_id=connection.principal.user_id,
            expires_at=None if expires_at is None else timestamp(datetime.fromtimestamp(expires_at, UTC)),
            protocol="agentws.v1",
            server_version=VERSION,
            heartbeat_interval_s=self._heartbeat_interval_s,
            limits=self._limits,
        )


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
