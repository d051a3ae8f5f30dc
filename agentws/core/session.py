"""One connection's side of the protocol, without I/O and without a clock: what a frame is, and what it is answered.

A frame that concerns nobody else (`ping`, `heartbeat`, a bad one) is answered here; any other is handed on.
"""

from dataclasses import dataclass

from msgspec import UNSET

from agentws.core.context import Principal
from agentws.wire.codec import Head, Rejected, decode, parse
from agentws.wire.errors import CATALOGUE, Fault
from agentws.wire.ids import ConnectionId, ThreadId
from agentws.wire.messages import (
    ClientMessage,
    CreateThread,
    Error,
    Heartbeat,
    HeartbeatAck,
    Ping,
    Pong,
    Start,
    StopAgent,
    Subscribe,
    Unsubscribe,
)

__all__ = ["Command", "Reply", "Session", "error_frame"]

Handled = Start | StopAgent | Subscribe | Unsubscribe | CreateThread


@dataclass(frozen=True, slots=True)
class Reply:
    """Send this."""

    frame: Error | Pong | HeartbeatAck


@dataclass(frozen=True, slots=True)
class Command:
    """Hand this to the dispatcher; it answers."""

    message: Handled


class Session:
    """The states of one connection that the protocol knows: whose it is, and its current thread."""

    def __init__(self, principal: Principal, connection_id: ConnectionId) -> None:
        self.principal = principal
        self.connection_id = connection_id
        self.current_thread: ThreadId | None = None

    def receive_text(self, text: str, timestamp: str) -> Reply | Command:
        """What to do with a text frame; never raises, whatever it holds.

        Args:
            text: the frame.
            timestamp: the time now, as it stands in an answer.
        """
        head = parse(text)
        if isinstance(head, Rejected):
            return Reply(error_frame(head.fault, frame_id=head.id))
        try:
            message = decode(head, self.principal.user_id)
        except Fault as fault:
            return Reply(error_frame(fault, frame_id=head.id))
        return self._sort(message, head, timestamp)

    def receive_bytes(self) -> Reply:
        """The answer to a binary frame."""
        return Reply(error_frame(Fault("unsupported_frame"), frame_id=None))

    def _sort(self, message: ClientMessage, head: Head, timestamp: str) -> Reply | Command:
        match message:
            case Ping():
                return Reply(Pong(id=head.id, timestamp=timestamp, payload=message.payload))
            case Heartbeat():
                return Reply(HeartbeatAck(id=head.id, timestamp=timestamp))
            case _:
                return Command(message)


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
