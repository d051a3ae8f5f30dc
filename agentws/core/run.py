"""What passes between the queue, the worker and the journal: requests, claims, events and what came of them."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from agentws.core.context import Principal
from agentws.wire.answers import RunStatus
from agentws.wire.events import EventType
from agentws.wire.ids import ConnectionId, RunId, RunNo, ThreadId, ThreadNo

__all__ = [
    "Accepted",
    "Appended",
    "Claim",
    "Deleted",
    "Draft",
    "Ending",
    "Foldable",
    "Message",
    "RunKey",
    "Stopped",
    "Ticket",
    "Unfollowed",
    "Wanted",
]


@dataclass(frozen=True, slots=True)
class RunKey:
    """A run's number within its principal, as a plain key: it names a run and gives no right to it."""

    tenant_id: str
    user_id: str
    run_no: RunNo


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """A start as the store takes it.

    Args:
        thread_no: the number for a new thread; None: the thread has to be there.
        run_id: the client's where `named`, else made from `run_no`.
        context: the client's context as JSON text.
        owner: the node with a free slot for it; None: it waits for one.
        stops_unfollowed: it is stopped when nobody has followed its thread for a time.
        refusal: the code of the limit that its caller has reached; it is refused with it unless an earlier check fails.
        key, content_hash: the idempotency key and the SHA-256 of what was asked; both or neither.
    """

    thread_id: ThreadId
    thread_no: ThreadNo | None
    run_no: RunNo
    run_id: RunId
    named: bool
    kind: str
    agent: str
    text: str
    context: str | None
    owner: int | None
    key: str | None = None
    content_hash: bytes | None = None
    if_busy: str = "queue"
    stops_unfollowed: bool = False
    refusal: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Accepted:
    """A committed start, of now or (`duplicate`) of an earlier frame; `seq` is the number before its first event.

    `repeated`: an earlier call has committed it, whose answer was lost; `status` and `position` are as they are now.
    `interrupted`: the run that is to stop for it.
    """

    thread_id: ThreadId
    epoch: str
    run_no: RunNo
    run_id: RunId
    status: RunStatus
    seq: int
    position: int
    duplicate: bool
    thread_exists: bool
    at: datetime | None
    claim: "Claim | None"
    repeated: bool = False
    interrupted: RunNo | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Ticket:
    """A run that a system call claimed for this node; who it belongs to was read from the row that the call locked.

    `orphan`: it was this node's already, by a call whose answer was lost, so that no agent has begun on it.
    `released`: an attempt of it was ended and closed, and its next one may begin.
    """

    principal: Principal
    thread_id: ThreadId
    run_no: RunNo
    fence: int
    owner: int | None
    orphan: bool = False
    released: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """The right to work on one run, as long as its fence holds.

    Args:
        owner: the node that it was claimed for, whose lease it is good for.
        ordinal: how many of its events are written.
        seq: the number of its `agent_started`.
        kind: the type of the frame that asked for it.
        lost: it was begun by a process that is gone, or has let it go.
        released: one that is lost, whose tools are closed and whose next attempt may begin.
        elapsed_ms: time since `agent_started` when it was claimed.
    """

    principal: Principal
    run_no: RunNo
    run_id: RunId
    thread_id: ThreadId
    thread_no: ThreadNo
    epoch: str
    turn: int
    agent: str
    text: str
    context: str | None
    fence: int
    attempt: int
    ordinal: int
    seq: int
    accepted_at: datetime
    started_at: datetime
    owner: int | None
    lost: bool = False
    released: bool = False
    elapsed_ms: int = 0
    stop_reason: str | None = None
    connection_id: ConnectionId | None = None
    kind: str = "user_message"

    @property
    def ticket(self) -> Ticket:
        """What the claim can be asked for with again."""
        return Ticket(
            principal=self.principal,
            thread_id=self.thread_id,
            run_no=self.run_no,
            fence=self.fence,
            owner=self.owner,
        )


@dataclass(frozen=True, slots=True)
class Draft:
    """An event to be written: what the journal keeps (`body`, JSON), and the text that a message row keeps for it."""

    type: EventType
    body: str | None
    content: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Ending:
    """How a run ends; `response` becomes the assistant's message unless it is empty."""

    status: Literal["completed", "failed", "stopped"]
    response: str | None
    error_code: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Appended:
    """An append in effect: the last event's number and the time of all of them.

    `skipped` of them an earlier call had written, whose answer was lost; then the number is the thread's last at most,
    and the time is not theirs. `next` is the thread's next run, claimed.
    """

    last_seq: int
    at: datetime
    skipped: int
    stop_reason: str | None
    next: Claim | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Stopped:
    """What a stop found: the ids of runs now stopping (those that waited have ended), of runs that had ended already,

    the numbers of those that run, and the number and kind of each that has ended now.
    """

    thread_id: ThreadId
    epoch: str
    last_seq: int
    run_ids: list[str]
    already_ended: list[str]
    running: list[RunNo]
    ended: list[tuple[RunNo, str]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Deleted:
    """A deleted thread: its last number, the numbers of runs that were at work, number and kind of all that ended."""

    epoch: str
    last_seq: int
    running: list[RunNo]
    ended: list[tuple[RunNo, str]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Unfollowed:
    """A run that stops when nobody follows its thread, and for how long nobody was known to."""

    principal: Principal
    thread_id: ThreadId
    run_no: RunNo
    idle_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Foldable:
    """A run that has ended and whose pieces are not one event yet."""

    principal: Principal
    thread_id: ThreadId
    run_no: RunNo


@dataclass(frozen=True, kw_only=True, slots=True)
class Message:
    """An earlier message of the thread. `role` is "user" or "assistant"; `place` orders it within the thread."""

    role: Literal["user", "assistant"]
    content: str
    run_id: RunId
    created_at: datetime
    place: tuple[int, int]
