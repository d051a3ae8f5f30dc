"""What clients sent and were told, one log a connection, kept small: equal events are one object, long texts a digest.

Nothing is judged here but what cannot be kept: a frame that is no frame, and a text that carries another user's marker.
"""

import re
from collections import Counter
from dataclasses import dataclass, field
from hashlib import blake2b
from sys import intern
from time import time
from typing import Any, cast

import msgspec

__all__ = [
    "ENDS",
    "Closed",
    "Entry",
    "Event",
    "Fault",
    "Finding",
    "Log",
    "Recording",
    "Sent",
    "Told",
    "compact",
    "length",
    "read_event",
    "same",
]

ENDS = frozenset({"agent_completed", "agent_error", "agent_stopped"})
"""The terminal events."""
ENDED = frozenset({"completed", "failed", "stopped"})
"""The statuses of a run that has ended."""

_LONGEST = 120
_MARKER = re.compile(r"<(chaos-[0-9-]+)>")
_EVENT_TEXTS = ("type", "event_id", "epoch", "timestamp", "user_id", "thread_id", "run_id", "request_id", "agent_name")


@dataclass(frozen=True)
class Finding:
    """A promise that was not kept, to whom and in which thread, and what was seen."""

    promise: str
    user: str
    thread_id: str | None
    detail: str


def compact(value: Any) -> Any:
    """The value with every long text replaced by its length and a digest, so that equal values stay equal."""
    match value:
        case str() if len(value) > _LONGEST:
            return {"~": [len(value), blake2b(value.encode(), digest_size=12).hexdigest()]}
        case dict():
            return {key: compact(each) for key, each in value.items()}
        case list():
            return [compact(each) for each in value]
    return value


def same(kept: Any, value: Any) -> bool:
    """Whether what was kept of a value is what would be kept of this one."""
    return bool(kept == compact(value))


def length(kept: Any) -> int:
    """The length of a text that was kept, in code points; 0 for null."""
    return cast(int, kept["~"][0]) if isinstance(kept, dict) else len(kept or "")


@dataclass(frozen=True, slots=True)
class Event:
    """A run event as it was told. `from_seq` is `seq` where it covers no other."""

    type: str
    event_id: str
    seq: int
    from_seq: int
    epoch: str
    timestamp: str
    user_id: str
    thread_id: str
    run_id: str
    request_id: str
    agent_name: str
    attempt: int
    payload: bytes

    @property
    def content(self) -> dict[str, Any]:
        return cast(dict[str, Any], msgspec.json.decode(self.payload))


@dataclass(frozen=True, slots=True)
class Told:
    """Any other frame that a client was told, and when, in seconds since the epoch by the client's clock."""

    type: str
    frame: bytes
    at: float

    @property
    def fields(self) -> dict[str, Any]:
        return cast(dict[str, Any], msgspec.json.decode(self.frame))


@dataclass(frozen=True, slots=True)
class Sent:
    """A frame that a client sent, and the codes of errors that it provokes on purpose."""

    type: str
    frame: bytes
    may: frozenset[str] = frozenset()

    @property
    def fields(self) -> dict[str, Any]:
        return cast(dict[str, Any], msgspec.json.decode(self.frame))


@dataclass(frozen=True, slots=True)
class Closed:
    code: int
    reason: str
    by_client: bool


@dataclass(frozen=True, slots=True)
class Fault:
    """What was wrong with a frame that is not kept itself."""

    promise: str
    detail: str


Entry = Event | Told | Sent | Closed | Fault


@dataclass(eq=False)
class Log:
    """One connection of a user, in order. `via` is `ws`, `sse`, `page` (of events) or `http`.

    `final` is set where it belongs to the last reading, `open_at_end` where it lived until everything was told.
    """

    recording: "Recording" = field(repr=False)
    user: str
    via: str = "ws"
    final: bool = False
    open_at_end: bool = False
    entries: list[Entry] = field(default_factory=list)

    def sent(self, frame: dict[str, Any], *, may: frozenset[str] = frozenset()) -> None:
        self.entries.append(Sent(intern(str(frame.get("type"))), msgspec.json.encode(compact(frame)), may))

    def got(self, frame: dict[str, Any], *, at: float | None = None) -> None:
        """Takes a frame as it was decoded; `at` that time, by default now."""
        self.recording.counts["frames"] += 1
        if "event_id" not in frame:
            kind = intern(str(frame.get("type")))
            self.entries.append(Told(kind, msgspec.json.encode(compact(frame)), time() if at is None else at))
            self.recording.counted(self, kind, frame)
            return
        event, wrong = read_event(frame)
        self.recording.counts["events"] += 1
        self.entries.append(self.recording.interned(event))
        if wrong:
            self.fault("fields", f"{event.type} {event.event_id}: {', '.join(wrong)}")

    def heard(self, raw: str | bytes) -> dict[str, Any]:
        """Takes a frame as it came, and returns it decoded."""
        text = raw.decode() if isinstance(raw, bytes) else raw
        foreign = {name for name in _MARKER.findall(text) if name != self.user} if "<chaos-" in text else set()
        if foreign:
            self.fault("isolation", f"a text of {', '.join(sorted(foreign))} in {text[:300]}")
        try:
            frame = msgspec.json.decode(text)
        except msgspec.DecodeError:
            frame = None
        if not isinstance(frame, dict):
            self.fault("frames", f"no JSON object: {text[:300]}")
            return {"type": "?"}
        self.got(frame)
        return frame

    def fault(self, promise: str, detail: str) -> None:
        self.entries.append(Fault(promise, detail))

    def closed(self, code: int, reason: str, *, by_client: bool) -> None:
        self.entries.append(Closed(code, reason, by_client))
        self.recording.counts["cuts" if by_client else f"closed_{code}"] += 1


def read_event(frame: dict[str, Any]) -> tuple[Event, list[str]]:
    """The event that the frame is, and which of its fields are not as the page says."""
    texts = {name: frame.get(name) for name in _EVENT_TEXTS}
    wrong = [f"{name} is {value!r}" for name, value in texts.items() if not isinstance(value, str) or not value]
    seq, from_seq, attempt = frame.get("seq"), frame.get("from_seq", frame.get("seq")), frame.get("attempt")
    if not (type(seq) is type(from_seq) is type(attempt) is int and 1 <= from_seq <= seq and attempt >= 1):
        wrong.append(f"seq {seq!r}, from_seq {from_seq!r}, attempt {attempt!r}")
        seq, from_seq, attempt = 0, 0, 0
    payload = frame.get("payload")
    if not isinstance(payload, dict):
        wrong.append(f"payload is {payload!r}")
        payload = {}
    kind = texts["type"]
    if kind in ("tool_executing", "tool_completed") and frame.get("tool_name") != payload.get("tool_name"):
        wrong.append(f"tool_name is {frame.get('tool_name')!r}")
    if kind == "tool_completed" and ("results" not in frame or frame["results"] != payload.get("result")):
        wrong.append("results is not the result")
    kept = msgspec.json.encode(compact(payload), order="deterministic")
    named = {name: intern(str(value)) for name, value in texts.items()}
    return Event(seq=seq, from_seq=from_seq, attempt=attempt, payload=kept, **named), wrong


class Recording:
    """All logs of all users, and what they come to. `tool_calls` are the lines that the agents' tools wrote."""

    def __init__(self) -> None:
        self.logs: list[Log] = []
        self.counts: Counter[str] = Counter()
        self.tool_calls: list[dict[str, Any]] = []
        self.faults: list[Finding] = []
        self._events: dict[tuple[str, str, str, int, int], Event] = {}
        self._held: dict[tuple[str, str], tuple[str, int]] = {}
        self._runs: set[tuple[str, str]] = set()
        self._ended: set[tuple[str, str]] = set()

    def log(self, user: str, via: str = "ws", *, final: bool = False) -> Log:
        log = Log(self, user, via, final)
        self.logs.append(log)
        return log

    def interned(self, event: Event) -> Event:
        """The object that stands for the event wherever it was told."""
        self._held[(event.user_id, event.thread_id)] = (event.epoch, event.seq)
        kept = self._events.setdefault((event.user_id, event.thread_id, event.epoch, event.seq, event.from_seq), event)
        if event.type in ENDS:
            self._ended.add((event.user_id, event.run_id))
        return kept if kept == event else event

    def held(self, user: str, thread_id: str) -> tuple[str, int]:
        """How far the user has read in the thread: the latest epoch and number that any of its connections was told."""
        return self._held.get((user, thread_id), ("", 0))

    def has_ended(self, user: str, run_id: str) -> bool:
        return (user, run_id) in self._ended

    def counted(self, log: Log, kind: str, frame: dict[str, Any]) -> None:
        """Counts an answer."""
        match kind:
            case "request_accepted":
                self._runs.add((log.user, str(frame.get("run_id"))))
                self.counts["duplicates"] += frame.get("duplicate") is True
                if frame.get("status") in ENDED:
                    self._ended.add((log.user, str(frame.get("run_id"))))
            case "error":
                self.counts["refused"] += 1
                self.counts[f"refused_{frame.get('code')}"] += 1
            case "stop_accepted":
                self.counts["stops"] += 1
            case "thread_deleted":
                self.counts["deleted"] += frame.get("id") is not None
            case "subscribed":
                self.counts["subscribed"] += 1

    @property
    def totals(self) -> dict[str, int]:
        return {"runs": len(self._runs), "ended": len(self._runs & self._ended), **dict(sorted(self.counts.items()))}
