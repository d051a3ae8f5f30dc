"""Keeps a connection: a lost one is made again, with pauses; what was followed and asked is taken up where it was.

What the server tells comes out once and in order; a caller that does not take it costs bounded memory.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, NamedTuple, TypeAlias

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from agentws.client.dial import NoConnection, dial, ended_by
from agentws.client.errors import Closed
from agentws.client.frames import Answer, UnreadableFrame
from agentws.client.reader import Event, Gap
from agentws.client.retry import LATER_S, Backoff, Verdict
from agentws.client.session import Answered, Gone, Output, Reset, ResumeLater, Session, Trouble
from agentws.wire.answers import CaughtUp, DrainingNotice

__all__ = ["Connected", "Link", "Lost", "Token", "Update"]

Token: TypeAlias = str | Callable[[], Awaitable[str]] | None

STEADY_S = 5.0
"""A connection that held for so long begins the pauses anew when it is lost."""
MOST_UPDATES = 1000


class Connected(NamedTuple):
    """There is a connection again."""


class Lost(NamedTuple):
    """The connection is lost; it is made again in `retry_in_s` seconds."""

    why: str
    retry_in_s: float


Update: TypeAlias = Event | Reset | CaughtUp | Gone | Trouble | Connected | Lost


class Link:
    """
    Args:
        endpoint: where the server is.
        token: a JWT, or what fetches a fresh one for each connection.
    """

    def __init__(self, endpoint: str, token: Token) -> None:
        self.user_id = ""
        self.session = Session()
        self._endpoint = endpoint
        self._token = token
        self._waiting: dict[str, asyncio.Future[Answer]] = {}
        self._updates: deque[Update] = deque()
        self._failure: Closed | None = None
        self._told = asyncio.Event()
        self._to_send = asyncio.Event()
        self._room = asyncio.Event()
        self._draining = asyncio.Event()
        self._come_back_at = 0.0
        self._timers: list[asyncio.TimerHandle] = []

    async def open(self) -> ClientConnection:
        """Makes the first connection.

        Raises:
            NoConnection: if there is none.
        """
        token = await self._token() if callable(self._token) else self._token
        socket, established = await dial(self._endpoint, token)
        self.user_id = established.user_id
        return socket

    async def keep(self, socket: ClientConnection) -> None:
        """Serves this connection and those that follow it; ends when there will be none any more."""
        backoff = Backoff()
        clock = asyncio.get_running_loop().time
        try:
            while True:
                began = clock()
                ended = await self._serve(socket)
                if clock() - began >= STEADY_S:
                    backoff.reset()
                socket = await self._again(ended, backoff)
        except Closed as closed:
            self._end(closed)
        except Exception as error:
            self._end(Closed(f"the client failed: {type(error).__name__}: {error}"))
            raise
        finally:
            self._end(Closed("the client was closed"))

    async def request(self, kind: str, fields: dict[str, Any]) -> Answer:
        """Asks, on this connection and those that follow it, until there is an answer.

        Raises:
            Closed: if there will be none.
        """
        if self._failure is not None:
            raise self._failure
        frame_id = self.session.request(kind, fields)
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting[frame_id] = future
        self._to_send.set()
        # The answer may stand behind updates that nobody has taken yet.
        self._room.set()
        try:
            return await future
        finally:
            self._waiting.pop(frame_id, None)
            self.session.forget(frame_id)

    async def next(self) -> Update:
        """The next thing that happened.

        Raises:
            Closed: if nothing more will.
        """
        while not self._updates:
            if self._failure is not None:
                raise self._failure
            self._told.clear()
            await self._told.wait()
        self._room.set()
        return self._updates.popleft()

    def taken(self) -> Update | None:
        """What happened already and was not taken; None where there is nothing."""
        if not self._updates:
            return None
        self._room.set()
        return self._updates.popleft()

    def tell(self, update: Update) -> None:
        self._updates.append(update)
        self._told.set()

    def _end(self, closed: Closed) -> None:
        if self._failure is not None:
            return
        self._failure = closed
        self._told.set()
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(closed)

    async def _again(self, ended: NoConnection, backoff: Backoff) -> ClientConnection:
        """A new connection after one that ended."""
        clock = asyncio.get_running_loop().time
        refreshable = callable(self._token)
        while True:
            if ended.verdict is Verdict.FINAL or (ended.verdict is Verdict.RENEW and not refreshable):
                raise Closed(str(ended))
            least = max(ended.after_s, LATER_S if ended.verdict is Verdict.LATER else 0.0, self._come_back_at - clock())
            pause = backoff.next_s(at_least_s=least)
            self.tell(Lost(str(ended), pause))
            await asyncio.sleep(pause)
            try:
                socket = await self.open()
            except NoConnection as error:
                ended = error
                # A token that was fetched for this very connection is no better the next time.
                refreshable = False
                continue
            self.session.connected()
            self.tell(Connected())
            return socket

    async def _serve(self, socket: ClientConnection) -> NoConnection:
        """Serves one connection to its end; returns what ended it."""
        self._draining.clear()
        self._come_back_at = 0.0
        try:
            async with asyncio.TaskGroup() as tasks:
                beside = (tasks.create_task(self._write(socket)), tasks.create_task(self._leave_draining(socket)))
                ended = await self._read(socket)
                for task in beside:
                    task.cancel()
        finally:
            for timer in self._timers:
                timer.cancel()
            self._timers.clear()
            await socket.close()
        return ended

    async def _read(self, socket: ClientConnection) -> NoConnection:
        try:
            while True:
                for output in self.session.receive(await socket.recv()):
                    self._take(output)
                if self.session.outbox:
                    self._to_send.set()
                while len(self._updates) >= MOST_UPDATES and not self._waiting:
                    self._room.clear()
                    await self._room.wait()
        except ConnectionClosed as closed:
            if self._draining.is_set():
                return NoConnection("the server is going away", Verdict.RECONNECT)
            return ended_by(closed)
        except (Gap, UnreadableFrame) as error:
            return NoConnection(f"the server sent what does not fit: {error}", Verdict.RECONNECT)

    async def _write(self, socket: ClientConnection) -> None:
        # A connection that is gone is the reader's to tell; what was not sent is sent on the next one.
        with suppress(ConnectionClosed):
            while True:
                while self.session.outbox:
                    await socket.send(self.session.outbox.popleft())
                self._to_send.clear()
                await self._to_send.wait()

    async def _leave_draining(self, socket: ClientConnection) -> None:
        """Leaves a server that goes away when it has said to."""
        await self._draining.wait()
        await asyncio.sleep(self._come_back_at - asyncio.get_running_loop().time())
        await socket.close()

    def _take(self, output: Output) -> None:
        loop = asyncio.get_running_loop()
        match output:
            case Answered(id=frame_id, answer=answer):
                future = self._waiting.pop(frame_id, None)
                if future is not None and not future.done():
                    future.set_result(answer)
            case ResumeLater(thread_id=thread_id, after_s=after_s):
                self._timers.append(loop.call_later(after_s, self._resume, thread_id))
            case DrainingNotice(retry_after_ms=retry_after_ms):
                self._come_back_at = loop.time() + retry_after_ms / 1000
                self._draining.set()
            case _:
                self.tell(output)

    def _resume(self, thread_id: str) -> None:
        self.session.resume(thread_id)
        self._to_send.set()
