"""What a client holds across connections: followed threads, and requests without an answer; both are taken up again.

Pure: frames of the server go in, updates and answers come out; what is to be sent stands in `outbox`, in order.
"""

import itertools
from collections import deque
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import msgspec

from agentws.client.frames import Answer, UnreadableFrame, read
from agentws.client.reader import Cursor, Event
from agentws.wire.answers import (
    CaughtUp,
    ConnectionEstablished,
    DrainingNotice,
    Error,
    RequestAccepted,
    Subscribed,
    SubscriptionEnded,
    ThreadDeleted,
)

__all__ = ["Answered", "Gone", "Output", "Reset", "ResumeLater", "Session", "Trouble"]


class Reset(NamedTuple):
    """What was held of a thread is to be dropped: its past is another one. It is told anew after `after_seq`."""

    thread_id: str
    epoch: str
    after_seq: int


class Gone(NamedTuple):
    """A thread is followed no more: it was deleted (`deleted`, `thread_not_found`), or may not be (another code)."""

    thread_id: str
    reason: str


class Trouble(NamedTuple):
    """The server says that something does not work now: an error that answers no request, or one that is repeated."""

    error: Error


class Answered(NamedTuple):
    """The answer to the request `id`."""

    id: str
    answer: Answer


class ResumeLater(NamedTuple):
    """The server cannot go on with a thread now: call `resume` with it after so many seconds."""

    thread_id: str
    after_s: float


Output: TypeAlias = Event | Reset | CaughtUp | Gone | Trouble | Answered | ResumeLater | DrainingNotice


@dataclass
class _Pending:
    kind: str
    text: str
    repeated: bool = False


class Session:
    """The state of a client, whatever becomes of its connections."""

    def __init__(self) -> None:
        self.outbox: deque[str] = deque()
        self._numbers = itertools.count(1)
        self._pending: dict[str, _Pending] = {}
        # Subscriptions that go on with a thread: id of the frame → thread.
        self._resuming: dict[str, str] = {}
        self._cursors: dict[str, Cursor] = {}

    @property
    def is_waiting(self) -> bool:
        """Whether a request has not been answered."""
        return bool(self._pending)

    @property
    def followed(self) -> dict[str, tuple[str, int]]:
        """The threads followed: id → epoch and the number of the last event held."""
        return {thread_id: (cursor.epoch, cursor.seq) for thread_id, cursor in self._cursors.items()}

    def request(self, kind: str, fields: dict[str, Any]) -> str:
        """Puts a request into the outbox, to be sent again on every new connection until it is answered.

        Args:
            kind: the frame's type.
            fields: its payload; what is None is left out. A start has an `idempotency_key`, because it may be repeated.

        Returns:
            The id that its answer carries.
        """
        frame_id = self._new_id()
        text = _frame(kind, frame_id, fields)
        self._pending[frame_id] = _Pending(kind, text)
        self.outbox.append(text)
        return frame_id

    def forget(self, frame_id: str) -> None:
        """Nobody waits for this request any more; it is not sent again."""
        self._pending.pop(frame_id, None)

    def unfollow(self, thread_id: str) -> None:
        """What still comes of the thread is dropped."""
        self._cursors.pop(thread_id, None)

    def connected(self) -> None:
        """A new connection: goes on with each thread where it was, then asks again what was not answered."""
        self.outbox.clear()
        self._resuming.clear()
        for thread_id in self._cursors:
            self.resume(thread_id)
        for pending in self._pending.values():
            pending.repeated = True
            self.outbox.append(pending.text)

    def resume(self, thread_id: str) -> None:
        """Subscribes to a followed thread from where it was read."""
        if cursor := self._cursors.get(thread_id):
            frame_id = self._new_id()
            self._resuming[frame_id] = thread_id
            fields = {"thread_id": thread_id, "after_seq": cursor.seq, "epoch": cursor.epoch}
            self.outbox.append(_frame("subscribe", frame_id, fields))

    def receive(self, text: str | bytes) -> list[Output]:
        """Takes a frame of the server.

        Returns:
            What it says, in order; nothing where it was told before or is not known.

        Raises:
            Gap, UnreadableFrame: if the connection cannot be trusted: make a new one.
        """
        match read(text):
            case Event() as event:
                return self._event(event)
            case Error() as error:
                return self._error(error)
            case SubscriptionEnded(thread_id=thread_id, reason=reason):
                return self._subscription_ended(thread_id, reason)
            case CaughtUp() as caught_up:
                return [caught_up] if caught_up.thread_id in self._cursors else []
            case DrainingNotice() as notice:
                return [notice]
            case None | ConnectionEstablished():
                return []
            case answer:
                return self._answer(answer)

    def _event(self, event: Event) -> list[Output]:
        cursor = self._cursors.get(event.thread_id)
        try:
            new = cursor.take(event) if cursor else None
        except (KeyError, TypeError) as error:
            raise UnreadableFrame(f"the payload of {event.type} has no {error}") from None
        return [new] if new else []

    def _answer(self, answer: Answer) -> list[Output]:
        output: list[Output] = []
        self._resuming.pop(answer.id or "", None)
        match answer:
            case Subscribed():
                output += self._subscribed(answer)
            case RequestAccepted(thread_id=thread_id) if thread_id not in self._cursors:
                self._cursors[thread_id] = Cursor(epoch=answer.epoch, seq=answer.seq)
                if answer.duplicate:
                    # The first one's thread may be gone; a subscription of our own hears of it.
                    self.resume(thread_id)
            case ThreadDeleted(thread_id=thread_id):
                # Whoever asked for it is answered; it is news where another one did.
                if self._cursors.pop(thread_id, None) and answer.id not in self._pending:
                    output.append(Gone(thread_id, "deleted"))
        if answer.id in self._pending:
            del self._pending[answer.id]
            output.append(Answered(answer.id, answer))
        return output

    def _subscribed(self, answer: Subscribed) -> list[Output]:
        asked = answer.id in self._pending
        if not asked and answer.thread_id not in self._cursors:
            return []
        if asked or not answer.recovered:
            self._cursors[answer.thread_id] = Cursor(epoch=answer.epoch, seq=answer.after_seq)
        if answer.recovered:
            return []
        return [Reset(answer.thread_id, answer.epoch, answer.after_seq)]

    def _error(self, error: Error) -> list[Output]:
        if thread_id := self._resuming.pop(error.id or "", None):
            if thread_id not in self._cursors:
                return []
            if error.retryable:
                return [Trouble(error), ResumeLater(thread_id, (error.retry_after_ms or 1000) / 1000)]
            del self._cursors[thread_id]
            return [Gone(thread_id, error.code)]
        pending = self._pending.pop(error.id or "", None)
        if error.id is None or pending is None:
            return [Trouble(error)]
        if pending.kind == "delete_thread" and pending.repeated and error.code == "thread_not_found":
            # It was the first copy that deleted it.
            thread_id = msgspec.json.decode(pending.text)["payload"]["thread_id"]
            self._cursors.pop(thread_id, None)
            return [Answered(error.id, ThreadDeleted(id=error.id, timestamp="", thread_id=thread_id))]
        return [Answered(error.id, error)]

    def _subscription_ended(self, thread_id: str, reason: str) -> list[Output]:
        if thread_id not in self._cursors:
            return []
        if reason == "epoch_changed":
            self.resume(thread_id)
            return []
        del self._cursors[thread_id]
        return [Gone(thread_id, reason)]

    def _new_id(self) -> str:
        return f"q{next(self._numbers)}"


def _frame(kind: str, frame_id: str, fields: dict[str, Any]) -> str:
    payload = {name: value for name, value in fields.items() if value is not None}
    return msgspec.json.encode({"type": kind, "id": frame_id, "payload": payload}).decode()
