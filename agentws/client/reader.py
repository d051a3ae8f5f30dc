"""What a careful client holds of one thread: each event once, in order, and of merged text only what is new.

Pure: events go in, events come out (section 4, "Run events").
"""

from collections import defaultdict
from typing import Any

import msgspec

from agentws.wire.events import TERMINAL

__all__ = ["Cursor", "Event", "Gap"]


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """A run event. `frame` is the whole of it as it came, with fields that this version does not know."""

    type: str
    event_id: str
    seq: int
    epoch: str
    timestamp: str
    thread_id: str
    run_id: str
    agent_name: str
    attempt: int
    payload: dict[str, Any]
    frame: dict[str, Any]
    from_seq: int | None = None

    @property
    def first(self) -> int:
        """The number of the first event that it stands for."""
        return self.seq if self.from_seq is None else self.from_seq

    @property
    def is_terminal(self) -> bool:
        return self.type in TERMINAL


class Gap(Exception):
    """An event came without those before it."""


class Cursor:
    """Where a reader of a thread stands.

    Args:
        epoch: the thread's epoch; events of another one are no part of this reading.
        seq: the number of the last event held.
    """

    def __init__(self, *, epoch: str, seq: int) -> None:
        self.epoch = epoch
        self.seq = seq
        # How far text is held: run → step of thinking, or 0 for the answer → the offset of its end.
        self._ends: defaultdict[str, dict[int, int]] = defaultdict(dict)

    def take(self, event: Event) -> Event | None:
        """Moves on to an event.

        Returns:
            The event, of text only what was not held; None where all of it was.

        Raises:
            Gap: if events before it are missing; the cursor stays where it is.
        """
        if event.epoch != self.epoch or event.seq <= self.seq:
            return None
        if event.first > self.seq + 1:
            raise Gap(f"event {event.first} after {self.seq}")
        held, self.seq = self.seq, event.seq
        match event.type:
            case "agent_message":
                return self._text(event, "text", step=0, held=held)
            case "agent_thinking":
                return self._text(event, "reasoning", step=event.payload["step"], held=held)
            case "agent_started":
                # A later attempt begins its text anew.
                self._ends.pop(event.run_id, None)
            case _ if event.is_terminal:
                self._ends.pop(event.run_id, None)
        return event

    def _text(self, event: Event, field: str, *, step: int, held: int) -> Event:
        offset: int = event.payload["offset"]
        text: str = event.payload[field]
        ends = self._ends[event.run_id]
        known = ends.get(step)
        ends[step] = offset + len(text)
        if event.first > held or known is None or known <= offset:
            return event
        payload = {**event.payload, field: text[known - offset :], "offset": known}
        frame = {**event.frame, "payload": payload, "from_seq": held + 1}
        return msgspec.structs.replace(event, payload=payload, from_seq=held + 1, frame=frame)
