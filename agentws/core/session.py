"""One connection's side of the protocol, without I/O and without a clock: what a frame is, and what it is answered.

A frame that concerns nobody else (`ping`, `heartbeat`, a bad one) is answered here; any other is handed on.
"""

from dataclasses import dataclass

from msgspec import UNSET

from agentws.core.context import Principal
from agentws.wire.answers import Error, HandshakeComplete, HeartbeatAck, Pong
from agentws.wire.codec import Head, Rejected, decode, parse
from agentws.wire.errors import CATALOGUE, Fault, Refusal
from agentws.wire.ids import ConnectionId, ThreadId, ThreadNo
from agentws.wire.messages import (
    Authenticate,
    ClientMessage,
    CreateThread,
    DeleteThread,
    GetThreadHistory,
    HandshakeAcknowledged,
    Heartbeat,
    ListThreads,
    Ping,
    Start,
    StopAgent,
    Subscribe,
    SwitchThread,
    Unsubscribe,
    UpdateThread,
)

__all__ = ["Command", "Handled", "Reply", "Session", "error_frame"]

Handled = (
    Start
    | StopAgent
    | Subscribe
    | Unsubscribe
    | CreateThread
    | UpdateThread
    | ListThreads
    | SwitchThread
    | GetThreadHistory
    | DeleteThread
    | Authenticate
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """Send this. `type`: the type of the frame that it answers, after aliases; None where that is not known."""

    frame: Error | Pong | HeartbeatAck | HandshakeComplete
    type: str | None = None
    deprecated: bool = False

    @property
    def is_error(self) -> bool:
        """Whether the frame was refused."""
        return isinstance(self.frame, Error)

    @property
    def is_limited(self) -> bool:
        """Whether a frame was refused because its user sends too many."""
        return isinstance(self.frame, Error) and self.frame.code == "rate_limited"


@dataclass(frozen=True, kw_only=True, slots=True)
class Command:
    """Hand this to the dispatcher; it answers."""

    message: Handled
    deprecated: bool = False


class Session:
    """The states of one connection that the protocol knows: whose it is, and its current thread.

    Args:
        reserved: in the original dialect, the thread that the connection's first start will make (section 7).
    """

    def __init__(
        self,
        principal: Principal,
        connection_id: ConnectionId,
        reserved: tuple[ThreadId, ThreadNo] | None = None,
    ) -> None:
        self.principal = principal
        self.connection_id = connection_id
        self.reserved = reserved
        self._handshake = reserved[0] if reserved else None
        self._current = self._handshake

    @property
    def current_thread(self) -> ThreadId | None:
        """The thread of starts that name none."""
        return self._current

    def make_current(self, thread_id: ThreadId) -> None:
        """Sets the current thread; a reserved one has been made with it."""
        self._current = thread_id
        if self.reserved is not None and thread_id == self.reserved[0]:
            self.reserved = None

    def forget(self, thread_id: ThreadId) -> None:
        """A thread was deleted: it is neither current any more, nor can a start make it."""
        if self._current == thread_id:
            self._current = None
        if self.reserved is not None and thread_id == self.reserved[0]:
            self.reserved = None

    def receive_text(self, text: str, timestamp: str, refusal: Refusal | None = None) -> Reply | Command:
        """What to do with a text frame; never raises, whatever it holds.

        Args:
            text: the frame.
            timestamp: the time now, as it stands in an answer.
            refusal: what a frame is refused with that could be served otherwise.
        """
        head = parse(text, original=self._handshake is not None)
        if isinstance(head, Rejected):
            return Reply(frame=error_frame(head.fault, frame_id=head.id))
        try:
            if refusal is not None:
                raise refusal
            message = decode(head, self.principal.user_id)
            return self._sort(message, head, timestamp)
        except Fault as fault:
            frame = error_frame(fault, frame_id=head.id)
            return Reply(frame=frame, type=head.type, deprecated=head.deprecated)

    def receive_bytes(self) -> Reply:
        """The answer to a binary frame."""
        return Reply(frame=error_frame(Fault("unsupported_frame"), frame_id=None))

    def _sort(self, message: ClientMessage, head: Head, timestamp: str) -> Reply | Command:
        match message:
            case Ping():
                return Reply(frame=Pong(id=head.id, timestamp=timestamp, payload=message.payload), type=head.type)
            case Heartbeat():
                return Reply(frame=HeartbeatAck(id=head.id, timestamp=timestamp), type=head.type)
            case HandshakeAcknowledged():
                if self._handshake is None or message.thread_id != self._handshake:
                    raise Fault("thread_not_found")
                complete = HandshakeComplete(id=head.id, timestamp=timestamp, thread_id=self._handshake)
                return Reply(frame=complete, type=head.type)
            case _:
                return Command(message=message, deprecated=head.deprecated)


def error_frame(fault: Fault, *, frame_id: str | None) -> Error:
    """The error frame that tells of a fault.

    Args:
        fault: what was wrong.
        frame_id: the `id` of the frame at fault, None where it had none.
    """
    return Error(
        id=frame_id,
        code=fault.code,
        message=fault.text,
        retryable=CATALOGUE[fault.code].retryable,
        retry_after_ms=UNSET if fault.retry_after_ms is None else fault.retry_after_ms,
        details=UNSET if fault.details is None else fault.details,
    )
