"""WebSocket pings at a steady interval; a peer that has missed two is closed (section 1), and one that takes nothing.

What waits for a peer that reads slowly is no reason to close it: a ping that is on its way behind it is not missed. A
peer that reads nothing is given up in a bounded time, also while it is being closed, and also one of an HTTP response.
"""

import asyncio
from asyncio.transports import BaseTransport
from typing import TYPE_CHECKING, Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from agentws.edge.pulse import Pulse, Taken, hold_little

if TYPE_CHECKING:
    from websockets.frames import Frame

__all__ = ["KeptAlive", "Watched"]

_MOST_SILENCE = 6
_LAST_WORDS_S = 1.0


def _silence_of(taken: Taken) -> int:
    """What an interval without a sign of life counts: two end a connection, and six in which the peer had no room.

    A kernel may take 100 KiB ahead of its program, and say that there is room again when half of it has been read.
    """
    return 1 if taken.has_no_room else 3


class KeptAlive(WebSocketsSansIOProtocol):
    """uvicorn's protocol, which by itself sends no second ping before the first is answered.

    It is to be configured with a `ws_ping_interval` and no `ws_ping_timeout`.
    """

    _pulse: Pulse
    _silence = 0
    _has_answered = False
    _acknowledged = 0
    _arrives_at = 0
    _pong = b""
    _last: asyncio.TimerHandle | None = None

    def connection_made(self, transport: BaseTransport) -> None:
        super().connection_made(transport)
        hold_little(self.transport)
        self._pulse = Pulse(self.transport)

    def send_keepalive_ping(self) -> None:
        if not self.close_sent and not self.transport.is_closing():
            taken = self._pulse.look()
            self._silence = 0 if self._is_alive(taken) else self._silence + _silence_of(taken)
            self._has_answered = False
            self._acknowledged = taken.acknowledged
            self._arrives_at = taken.acknowledged + taken.waiting
            if self._silence >= _MOST_SILENCE:
                self.keepalive_timeout()
                return
        super().send_keepalive_ping()

    def _is_alive(self, taken: Taken) -> bool:
        """Whether there was a sign of life since the last ping."""
        if self._has_answered or self.pending_ping_payload is None:
            return True
        if taken.acknowledged < self._arrives_at:
            # The last ping has not got there: the peer is alive as long as what is before it does.
            return taken.acknowledged > self._acknowledged
        # It has, and its answer may lie in front of us, who are not reading now.
        return self.read_paused

    def handle_pong(self, event: "Frame") -> None:
        # Also a late one, of a ping before the last.
        self._has_answered = True
        super().handle_pong(event)

    def handle_ping(self) -> None:
        if self.writable.is_set() or self.conn.close_rcvd is not None:
            super().handle_ping()
            return
        # Who pings and does not read is not to fill the memory with answers: the last one will do (RFC 6455, 5.5.3).
        # Those that were read at once are answered at the first of them.
        self._pong = b"".join(self.conn.data_to_send()[-1:]) or self._pong

    def resume_writing(self) -> None:
        if self._pong:
            self.transport.write(self._pong)
            self._pong = b""
        super().resume_writing()

    def keepalive_timeout(self) -> None:
        super().keepalive_timeout()
        self._abort_after(_LAST_WORDS_S)

    def on_task_complete(self, task: "asyncio.Task[None]") -> None:
        super().on_task_complete(task)
        self._abort_after(self.close_timeout + _LAST_WORDS_S)

    def shutdown(self) -> None:
        if self.handshake_initiated and not (self.handshake_complete or self.close_sent):
            # uvicorn would answer 500 now. Who comes in is about to be told by the application to come back later.
            return
        super().shutdown()
        self._abort_after(_LAST_WORDS_S)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._last is not None:
            self._last.cancel()
        super().connection_lost(exc)

    def _abort_after(self, seconds: float) -> None:
        """What is closed sends first what it holds, for which a peer that does not read may take for ever."""
        at = self.loop.time() + seconds
        if self.disconnected or (self._last is not None and self._last.when() <= at):
            return
        if self._last is not None:
            self._last.cancel()
        self._last = self.loop.call_at(at, self.transport.abort)


class Watched(H11Protocol):
    """uvicorn's protocol for HTTP, which by itself waits for ever for a peer that takes nothing of a response."""

    _pulse: Pulse
    _silence = 0
    _acknowledged = -1
    _look: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        hold_little(self.transport)
        self._pulse = Pulse(self.transport)
        self._look_later()

    def _look_later(self) -> None:
        if interval_s := self.config.ws_ping_interval:
            self._look = self.loop.call_later(interval_s, self._look_now)

    def _look_now(self) -> None:
        taken = self._pulse.look()
        takes = not taken.waiting or taken.acknowledged > self._acknowledged
        self._silence = 0 if takes else self._silence + _silence_of(taken)
        self._acknowledged = taken.acknowledged
        if self._silence >= _MOST_SILENCE:
            self.transport.abort()
        else:
            self._look_later()

    def _look_no_more(self) -> None:
        if self._look is not None:
            self._look.cancel()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        self._look_no_more()
        super().handle_websocket_upgrade(event)

    def shutdown(self) -> None:
        super().shutdown()
        self._look_no_more()
        self._look = self.loop.call_later(_LAST_WORDS_S, self._abort_if_stuck)

    def _abort_if_stuck(self) -> None:
        if self.transport.get_write_buffer_size():
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._look_no_more()
        super().connection_lost(exc)
