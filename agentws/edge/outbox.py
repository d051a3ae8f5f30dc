"""What a connection has still to send, in order, as frames and as subscriptions that have some to give.

Many subscriptions that have much to give have turns, so that none waits until another has given all.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from starlette.types import Send

from agentws.feed import Budget, Frame, Subscription
from agentws.wire.codec import size_of

__all__ = ["Outbox"]

_LAST_READS_S = 1.0
_TURN_BYTES = 16 * 1024


class _Close(NamedTuple):
    code: int
    reason: str


class Outbox:
    """
    Args:
        send: where frames go.
        budget: what counts until it has been sent.
        expects: whether a subscription will have something to give soon.
    """

    def __init__(self, send: Send, budget: Budget, *, expects: Callable[[], bool]) -> None:
        self._send = send
        self._budget = budget
        self._expects = expects
        self._queue: deque[Frame | Subscription | _Close] = deque()
        self._queued: set[Subscription] = set()
        self._wake = asyncio.Event()

    def put(self, text: str) -> None:
        """A frame, after everything that is queued."""
        frame = Frame(text, size_of(text))
        self._budget.add(frame.size)
        self._put(frame)

    def ready(self, subscription: Subscription) -> None:
        """What a subscription has to give, after everything that is queued; where it is queued, it keeps its place."""
        if subscription not in self._queued:
            self._queued.add(subscription)
            self._put(subscription)

    def postpone(self, subscription: Subscription) -> None:
        """Takes a subscription out, until it is ready again."""
        if subscription in self._queued:
            self._queued.discard(subscription)
            self._queue.remove(subscription)

    def close(self, code: int, reason: str) -> None:
        """Ends the connection, after everything that is queued."""
        self._put(_Close(code, reason))

    async def send_all(self) -> None:
        """Sends what is queued, until the connection is closed.

        Raises:
            OSError: the peer is gone.
        """
        while True:
            item = await self._next()
            if isinstance(item, _Close):
                await self._send_rest()
                await self._send({"type": "websocket.close", "code": item.code, "reason": item.reason})
                return
            await self._send_item(item)

    def _put(self, item: Frame | Subscription | _Close) -> None:
        self._queue.append(item)
        self._wake.set()

    async def _next(self) -> Frame | Subscription | _Close:
        while not self._queue:
            self._wake.clear()
            await self._wake.wait()
        return self._queue.popleft()

    async def _send_rest(self) -> None:
        """Sends what the journal is being asked for now, if it comes soon; the client would get it by resuming."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_LAST_READS_S):
                while self._queue or self._expects():
                    item = await self._next()
                    if not isinstance(item, _Close):
                        await self._send_item(item)

    async def _send_item(self, item: Frame | Subscription) -> None:
        if isinstance(item, Frame):
            await self._send_frame(item)
            return
        self._queued.discard(item)
        for frame in item.take(_TURN_BYTES):
            await self._send_frame(frame)

    async def _send_frame(self, frame: Frame) -> None:
        await self._send({"type": "websocket.send", "text": frame.text})
        self._budget.remove(frame.size)
