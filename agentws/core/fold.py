"""One event in the place of several: pieces of text joined, progress as it was told last (section 4, "Run events").

Pure. What is merged is again an event; merging it once more, or in parts of a row of events first, gives the same.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import msgspec

from agentws.core.framing import Origin, Record, first_of
from agentws.wire.codec import encode_text
from agentws.wire.events import AgentMessage, AgentThinking, EventType, NamedProgress
from agentws.wire.ids import RunNo

__all__ = ["WINDOW", "Group", "beyond", "groups", "merge"]

WINDOW = 16_384
"""Characters: a text is cut where a piece of it begins in another such part, so that no event grows without bound.

By where pieces begin, and not by how much there is, so that it does not matter which of them were merged before.
"""


class _Message(AgentMessage, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A piece of an answer of which all is known."""


class _Thinking(AgentThinking, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A piece of a step of thinking of which all is known."""


_message = msgspec.json.Decoder(_Message).decode
_thinking = msgspec.json.Decoder(_Thinking).decode
_progress = msgspec.json.Decoder(NamedProgress).decode

_Key: TypeAlias = tuple[RunNo, int, EventType, int | str, int]
_Event: TypeAlias = tuple[Origin, Record]


@dataclass(frozen=True, slots=True)
class _Part:
    """What can be merged: with what (`key`), and its text and where that begins; None: the latest counts."""

    key: _Key
    offset: int
    text: str | None

    @property
    def end(self) -> int:
        return self.offset + len(self.text or "")


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """`rows` events with the numbers `from_seq` … `seq`, in whose place one with this body may stand."""

    from_seq: int
    seq: int
    rows: int
    body: str | None


def merge(events: Iterable[_Event]) -> list[_Event]:
    """Puts one event in the place of several wherever they are adjacent and of one kind.

    Args:
        events: events of one thread, in order; between two of them there may be others.

    Returns:
        The events, the same ones where nothing is merged. One that stands for several has the numbers of all, and
        else what the last of them has.
    """
    merged: list[_Event] = []
    for members, parts in _alike(events):
        origin, last = members[-1]
        if len(members) > 1:
            last = replace(last, from_seq=first_of(members[0][1]), body=_body(last, parts))
        merged.append((origin, last))
    return merged


def beyond(event: _Event, held: _Event) -> _Event:
    """What of an event lies beyond the one that a reader was told last, which is among those that it stands for.

    Args:
        event: it begins with the number of `held`, or before, and goes on after it.
        held: with the last number that the reader has.

    Returns:
        The rest of the event; all of it where the two are not of one row of pieces.
    """
    origin, record = event
    part, had = _part(event), _part(held)
    if part is None or had is None or part.key[:4] != had.key[:4]:
        return event
    told = had.end - part.offset if part.text is not None else 0
    if not 0 <= told <= len(part.text or ""):
        return event
    first = held[1].seq + 1
    rest = replace(part, offset=part.offset + told, text=None if part.text is None else part.text[told:])
    return origin, replace(record, from_seq=None if first == record.seq else first, body=_body(record, [rest]))


def groups(events: Iterable[_Event]) -> list[Group]:
    """What `merge` merges, and nothing of what it leaves as it is."""
    return [
        Group(
            from_seq=first_of(members[0][1]),
            seq=members[-1][1].seq,
            rows=len(members),
            body=_body(members[-1][1], parts),
        )
        for members, parts in _alike(events)
        if len(members) > 1
    ]


def _alike(events: Iterable[_Event]) -> Iterator[tuple[Sequence[_Event], Sequence[_Part]]]:
    """The events, those that can be one together."""
    members: list[_Event] = []
    parts: list[_Part] = []
    for event in events:
        part = _part(event)
        if members and not (part and parts and _goes_on(members[-1][1], parts[-1], event[1], part)):
            yield members, parts
            members, parts = [], []
        members.append(event)
        if part is not None:
            parts.append(part)
    if members:
        yield members, parts


def _part(event: _Event) -> _Part | None:
    """What can be merged of an event; nothing of one whose body is not what its type says, or says more."""
    origin, record = event
    of = (origin.run_no, record.attempt, record.type)
    try:
        match record.type:
            case EventType.AGENT_MESSAGE:
                piece = _message(record.body or "")
                return _Part((*of, 0, piece.offset // WINDOW), piece.offset, piece.text)
            case EventType.AGENT_THINKING:
                thought = _thinking(record.body or "")
                return _Part((*of, thought.step, thought.offset // WINDOW), thought.offset, thought.reasoning)
            case EventType.TOOL_PROGRESS:
                return _Part((*of, _progress(record.body or "").execution_id, 0), 0, None)
            case _:
                return None
    except msgspec.DecodeError:
        return None


def _goes_on(before: Record, part: _Part, after: Record, next_part: _Part) -> bool:
    return first_of(after) == before.seq + 1 and next_part.key == part.key and next_part.offset == part.end


def _body(last: Record, parts: Sequence[_Part]) -> str | None:
    """The body of one event in the place of several."""
    body, offset = last.body or "", parts[0].offset
    match last.type:
        case EventType.AGENT_MESSAGE:
            return encode_text(msgspec.structs.replace(_message(body), text=_text(parts), offset=offset))
        case EventType.AGENT_THINKING:
            return encode_text(msgspec.structs.replace(_thinking(body), reasoning=_text(parts), offset=offset))
        case _:
            return last.body


def _text(parts: Sequence[_Part]) -> str:
    return "".join(part.text or "" for part in parts)
