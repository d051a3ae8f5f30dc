"""One WebSocket connection: frames in, frames out, in order; what is to be sent is bounded, and so is what is taken in.

It has two tasks. One reads frames and carries out each before it reads the next; the other sends. Closing takes a
bounded time, whatever the peer does.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from starlette.types import Receive, Send

from agentws.core.context import Principal
from agentws.core.limits import Buckets, Patience
from agentws.core.run import Deleted
from agentws.core.session import Command, Reply, Session, error_frame
from agentws.edge.commands import Commands
from agentws.edge.expiry import Expiry
from agentws.edge.following import Following
from agentws.edge.outbox import Outbox
from agentws.feed import Budget, Feed, Subscription
from agentws.ports import Credentials
from agentws.wire.answers import CredentialsExpiring, ServerMessage
from agentws.wire.codec import encode_text, timestamp, timestamp_at
from agentws.wire.errors import Fault
from agentws.wire.ids import ConnectionId, ThreadId, ThreadNo, new_connection_id, new_number, new_thread_id

__all__ = ["Connection", "ConnectionLimits", "Desk"]

log = logging.getLogger("agentws.edge")

_CLOSE_S = 10.0
_MOST_REFUSALS, _REFUSALS_S = 100, 10.0


@dataclass(frozen=True, kw_only=True, slots=True)
class ConnectionLimits:
    """What a connection may hold.

    `buffer_bytes` wait to be sent, of answers and events together, before no further frame is read and no event is
    taken, but from the journal later. `subscriptions`: how many threads it may follow; 0: any number.
    """

    buffer_bytes: int
    subscriptions: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Desk:
    """What connections are served with.

    Args:
        feed: where their threads' events come from.
        commands: where their messages go.
        buckets: how many frames their users may send.
        check_token: the credentials of a token that `authenticate` brings. Raises Fault.
    """

    feed: Feed
    commands: Commands
    buckets: Buckets
    check_token: Callable[[str], Credentials]
    limits: ConnectionLimits


class Connection:
    """The caller of its commands and the follower of its threads.

    Args:
        credentials: whose it is.
        send: where its frames go.
    """

    def __init__(self, credentials: Credentials, send: Send, desk: Desk) -> None:
        reserved = None
        if credentials.original:
            thread_no = ThreadNo(new_number())
            reserved = new_thread_id(thread_no), thread_no
        self._session = Session(credentials.principal, new_connection_id(), reserved)
        self._desk = desk
        self._tally = desk.commands.tally
        self._expiry = Expiry(credentials.expires_at, warn=self._warn_of_expiry, end=self._expire)
        self._budget = Budget(desk.limits.buffer_bytes)
        self._outbox = outbox = Outbox(send, self._budget, expects=lambda: self._following.is_reading)
        self._following = Following(
            desk.feed, self, credentials.principal, most=desk.limits.subscriptions, postpone=outbox.postpone
        )
        self._patience = Patience(most=_MOST_REFUSALS, seconds=_REFUSALS_S)
        self._closing = False
        self._end = asyncio.timeout(None)
        self._is_served = False

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

    @property
    def reserved_thread(self) -> tuple[ThreadId, ThreadNo] | None:
        return self._session.reserved

    @property
    def expires_at(self) -> float | None:
        """When its credentials expire, in seconds since the epoch; None: never."""
        return self._expiry.at

    def make_current(self, thread_id: ThreadId) -> None:
        self._session.make_current(thread_id)

    def forget(self, thread_id: ThreadId) -> None:
        self._session.forget(thread_id)

    @property
    def is_following(self) -> bool:
        """Whether it has a subscription."""
        return len(self._following) > 0

    @property
    def buffered(self) -> int:
        """How many bytes wait to be sent: of answers, and of the events of its subscriptions."""
        return self._budget.held

    def answer(self, frame: ServerMessage) -> None:
        self._tally.sent(frame)
        self.tell(encode_text(frame))

    def hold(self, thread_id: ThreadId) -> AbstractContextManager[None]:
        return self._following.held(thread_id)

    def leave_older(self, thread_id: ThreadId, *, epoch: str) -> None:
        self._following.leave_older(thread_id, epoch=epoch)

    def may_follow(self, thread_id: ThreadId) -> bool:
        return self._following.may_add(thread_id)

    def follow(self, thread_id: ThreadId, *, epoch: str, after_seq: int, behind: bool) -> None:
        self._following.add(thread_id, epoch=epoch, after_seq=after_seq, behind=behind)

    def replay(self, thread_id: ThreadId, *, frame_id: str | None, epoch: str, after_seq: int) -> None:
        self._following.replay(thread_id, frame_id=frame_id, epoch=epoch, after_seq=after_seq)

    def unfollow(self, thread_id: ThreadId) -> None:
        self._following.remove(thread_id)

    def finish(self, thread_id: ThreadId, deleted: Deleted, last: ServerMessage) -> Awaitable[None]:
        self.leave_older(thread_id, epoch=deleted.epoch)
        subscription = self._following.of(thread_id, deleted.epoch)
        if subscription is None or not subscription.answer(deleted.last_seq, encode_text(last)):
            self.answer(last)
            return asyncio.sleep(0)
        return subscription.closed()

    async def authenticate(self, token: str) -> Credentials:
        if self._expiry.at is None:
            raise Fault("validation_error", "token", text="These credentials do not expire.")
        fresh = self._desk.check_token(token)
        if fresh.principal != self.principal:
            raise Fault("identity_mismatch")
        self._expiry.renew(fresh.expires_at)
        return fresh

    # As a follower

    @property
    def budget(self) -> Budget:
        return self._budget

    def ready(self, subscription: Subscription) -> None:
        self._outbox.ready(subscription)

    def tell(self, text: str) -> None:
        self._outbox.put(text)

    def ended(self, subscription: Subscription, *, deleted: bool) -> None:
        self._following.forget(subscription)
        if deleted:
            self.forget(subscription.key.thread_id)

    # The connection itself

    def close(self, code: int, reason: str, *, within_s: float = _CLOSE_S) -> None:
        """Closes the connection when everything before has been sent; no frame is carried out any more.

        Args:
            within_s: for how many seconds that is waited for, where the peer does not take it.
        """
        self._closing = True
        self._outbox.close(code, reason)
        self._end_within(within_s)

    def _end_within(self, seconds: float) -> None:
        if self._is_served and not self._end.expired():
            at = asyncio.get_running_loop().time() + seconds
            self._end.reschedule(at if (before := self._end.when()) is None else min(at, before))

    async def serve(self, receive: Receive, *greetings: ServerMessage) -> None:
        """Serves an accepted connection until either side closes it."""
        for greeting in greetings:
            self.answer(greeting)
        self._expiry.start()
        try:
            async with self._end, asyncio.TaskGroup() as tasks:
                self._is_served = True
                if self._closing:
                    self._end_within(_CLOSE_S)
                sender = tasks.create_task(self._send_all())
                await self._read_all(receive)
                sender.cancel()
        except TimeoutError:
            if not self._end.expired():
                raise
            log.info("the peer takes nothing, and is not told that the connection is closed")
        finally:
            self._is_served = False
            self._expiry.stop()
            self._following.end()
            self._budget.close()

    async def _read_all(self, receive: Receive) -> None:
        while True:
            event = await receive()
            if event["type"] == "websocket.disconnect":
                return
            if self._closing:
                continue
            await self._take(event.get("text"))
            await self._budget.room()

    async def _take(self, text: str | None) -> None:
        """Takes a frame; None: a binary one."""
        # Not the loop's clock, which may stand still while frames are taken.
        now = time.monotonic()
        refusal = self._desk.buckets.take(self.principal, now)
        step = self._session.receive_bytes() if text is None else self._session.receive_text(text, timestamp(), refusal)
        match step:
            case Reply(frame=frame):
                self._tally.came(step.type, deprecated=step.deprecated)
                if step.is_error:
                    self._tally.rejected(step.type)
                self.answer(frame)
            case Command(message=message):
                self._tally.came(message.type, deprecated=step.deprecated)
                await self._desk.commands.carry_out(self, message)
        if isinstance(step, Reply) and step.is_limited and self._patience.is_at_an_end(now):
            self.close(4429, "too many messages")

    def _warn_of_expiry(self) -> None:
        expires_at = timestamp_at(self._expiry.at)
        if expires_at is not None:
            self.answer(CredentialsExpiring(timestamp=timestamp(), expires_at=expires_at))

    def _expire(self) -> None:
        log.info("the connection's credentials have expired")
        self.answer(error_frame(Fault("token_expired"), frame_id=None))
        self.close(4401, "credentials expired")

    async def _send_all(self) -> None:
        """Sends what is queued, until the connection is closed; a peer that is gone ends it."""
        try:
            await self._outbox.send_all()
        except OSError:
            self._tally.meter.send_failed()
            log.debug("the peer is gone")
        finally:
            # Nobody will take anything any more; a reader that waits for that must not wait for ever.
            self._budget.close()
            self._following.end()
