"""What the store promises: starts, the journal, threads, tickets, and the leases of processes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from agentws.core.context import Principal
from agentws.core.fold import Group
from agentws.core.framing import Origin, Record
from agentws.core.run import (
    Accepted,
    Appended,
    Claim,
    Deleted,
    Draft,
    Ending,
    Foldable,
    Message,
    RunKey,
    Stopped,
    Ticket,
    Unfollowed,
    Wanted,
)
from agentws.wire.answers import Thread, ThreadHistory, ThreadList
from agentws.wire.ids import RunId, RunNo, ThreadId, ThreadNo

__all__ = [
    "End",
    "Fenced",
    "Head",
    "IssuedTicket",
    "Journal",
    "Nodes",
    "OpenThread",
    "Page",
    "RedeemedTicket",
    "Renewal",
    "Retention",
    "Starts",
    "Stopping",
    "StoreUnavailable",
    "ThreadKey",
    "Threads",
    "Tickets",
]


class StoreUnavailable(Exception):
    """The database could not be reached in time. Whether the call took effect is not known: it may be repeated."""


class Fenced(Exception):
    """The run belongs to another by now, or has ended: nothing was written, and nothing may be written any more."""


class Stopping(Exception):
    """A stop was accepted before the run's end was written: it ends in `agent_stopped`. Nothing was written."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class ThreadKey:
    """A thread's name within its principal; what broker topics are made of."""

    principal: Principal
    thread_id: ThreadId


@dataclass(frozen=True, kw_only=True, slots=True)
class Head:
    """A thread's numbers: events `first_seq` … `last_seq` are there."""

    epoch: str
    first_seq: int
    last_seq: int


@dataclass(frozen=True, kw_only=True, slots=True)
class End:
    """Where a thread ends now. `deleted`: nothing comes after `last_seq` any more."""

    epoch: str
    last_seq: int
    deleted: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenThread:
    """A thread, the oldest number that is there, and the number from which a follower misses no run's event."""

    thread: Thread
    first_seq: int
    resume_after: int


@dataclass(frozen=True, kw_only=True, slots=True)
class IssuedTicket:
    """A ticket, told once, and until when it may be redeemed (aware)."""

    ticket: str
    expires_at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class RedeemedTicket:
    """What a ticket stood for; `credentials_expire_at`: the end of its token, seconds since the epoch."""

    tenant_id: str
    user_id: str
    credentials_expire_at: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Renewal:
    """The answer to a renewal: whether the lease held, the runs of this node, and which of them are to stop."""

    alive: bool
    owned: frozenset[RunKey]
    stops: frozenset[RunKey]


@dataclass(frozen=True, slots=True)
class Page:
    """Events in order; `more`: the page ended because it was full."""

    events: Sequence[tuple[Origin, Record]]
    more: bool


class Starts(Protocol):
    """Runs from acceptance to claim. Each call is one transaction; all raise StoreUnavailable."""

    async def accept(self, principal: Principal, wanted: Wanted) -> Accepted:
        """Commits a start, once, however often it is repeated with one `run_no` or one key. Raises Fault."""

    async def begin(self, ticket: Ticket) -> Claim | None:
        """Writes `agent_started` of a claimed run, unless it was begun before; None where another holds it."""

    async def remains(self, claim: Claim) -> Sequence[tuple[str, str]]:
        """Type and body of the messages and tool events that the claim's attempt has written, in order."""

    async def release(self, claim: Claim, *, delay_s: float) -> bool:
        """Gives up a claim, so that after so many seconds another may begin the run's next attempt.

        May be repeated. Raises Stopping where a stop was accepted before; False where the run is another's by now.
        """

    async def stop(
        self,
        principal: Principal,
        *,
        run_id: RunId | None,
        run_no: RunNo | None,
        thread_id: ThreadId | None,
        reason: str,
    ) -> Stopped:
        """Marks running ones and ends waiting ones; of the three the first given counts. Raises Fault."""


class Journal(Protocol):
    """The numbered events of threads. All calls raise StoreUnavailable."""

    async def append(
        self,
        claim: Claim,
        first_ordinal: int,
        drafts: Sequence[Draft],
        *,
        attempt: int,
        ending: Ending | None,
        next_owner: int | None,
        agents: Sequence[str],
    ) -> Appended:
        """Numbers and writes a run's events from an ordinal on, once; with an ending ends it. Atomic.

        Raises Fenced; with an ending that is no stop, Stopping where a stop was accepted before.
        """

    async def read_head(self, principal: Principal, thread_id: ThreadId) -> Head | None:
        """The numbers of a thread; None where this user has no such thread."""

    async def read_events(
        self, principal: Principal, thread_id: ThreadId, *, epoch: str, after_seq: int, limit: int, most_bytes: int
    ) -> Page:
        """Events after a number, in order; none where the thread has another epoch.

        At most `limit`, and no more after those that make up `most_bytes`.
        """

    async def read_ends(self, followed: Sequence[tuple[ThreadKey, str]]) -> Mapping[tuple[ThreadKey, str], End]:
        """Where many threads, each named with the epoch in which it is followed, end now, in one call.

        Threads that are not there are left out; one that was deleted in that epoch is told so as long as it is known.
        """

    async def read_messages(self, claim: Claim, *, before: Message | None, limit: int) -> Sequence[Message]:
        """Messages of the turns before the claim's, oldest first: the newest `limit`, or those before `before`."""


class Threads(Protocol):
    """Threads as their user sees them. All raise StoreUnavailable; those that name one Fault, where it is not there."""

    async def create(
        self,
        principal: Principal,
        thread_id: ThreadId,
        thread_no: ThreadNo,
        *,
        title: str | None,
        metadata: str | None,
    ) -> Thread:
        """Makes a thread; where it exists already it is returned as it is. `metadata` is JSON text. Raises Refusal."""

    async def read(self, principal: Principal, thread_id: ThreadId) -> OpenThread: ...

    async def update(
        self, principal: Principal, thread_id: ThreadId, *, title: str | None, metadata: str | None
    ) -> Thread:
        """Replaces what is given; an empty title clears it."""

    async def list_page(
        self, principal: Principal, *, frame_id: str | None, limit: int, before: str | None
    ) -> ThreadList:
        """A page of threads, the one changed last first; `before` is a checked cursor."""

    async def history(
        self, principal: Principal, thread_id: ThreadId, *, frame_id: str | None, limit: int, before: str | None
    ) -> ThreadHistory:
        """A page of messages, the newest ones, with the thread's numbers: one snapshot."""

    async def delete(self, principal: Principal, thread_id: ThreadId) -> Deleted:
        """Ends a thread's runs and frees its name, in one transaction; its events can be read for a while."""


class Tickets(Protocol):
    """Single-use credentials. Both raise StoreUnavailable."""

    async def issue(self, principal: Principal, *, credentials_expire_at: float | None, ttl_s: float) -> IssuedTicket:
        """Makes a ticket that may be redeemed for `ttl_s` seconds."""

    async def redeem(self, ticket: str) -> RedeemedTicket | None:
        """What a ticket stands for, to one caller only; None where it is none, was used, or has expired."""


class Nodes(Protocol):
    """Leases of processes and claims across principals; no content passes here. All calls raise StoreUnavailable."""

    async def register(self, node_id: int, name: str, *, ttl_s: float, agents: Sequence[str]) -> None:
        """Begins a lease of a process that can call these agents."""

    async def renew(self, node_id: int, *, ttl_s: float) -> Renewal:
        """Renews a lease that has not run out by the database's clock."""

    async def remove(self, node_id: int) -> None: ...

    async def take_over(self, node_id: int, *, orphans: Sequence[RunKey], limit: int) -> Sequence[Ticket]:
        """Claims runs that somebody has to close; raises their fences.

        Those of processes whose lease has run out, orphans of this node, and released ones that are to stop.
        """

    async def claim_waiting(self, node_id: int, agents: Sequence[str], *, limit: int) -> Sequence[Ticket]:
        """Claims runs whose time has come: released ones, then waiting ones of idle threads, in each the first in turn.

        Of both, those accepted first. One of an agent not named here is claimed where no process has known that for a
        minute.
        """

    async def find_unfollowed(self, *, limit: int) -> Sequence[Unfollowed]:
        """The runs that stop when nobody follows their thread, those longest unfollowed first."""

    async def mark_followed(self, runs: Sequence[Unfollowed]) -> None:
        """Notes that somebody follows their threads now."""

    async def purge(self, *, older_than_s: float, limit: int) -> int:
        """Removes a bounded number of rows that nobody can reach any more; how many of deleted threads."""

    async def purge_keys(self, *, older_than_s: float, limit: int) -> int:
        """Removes a bounded number of idempotency keys that are so old; how many."""

    async def claim_folds(self, *, older_than_s: float, limit: int) -> Sequence[Foldable]:
        """Runs that have waited so long to be folded, the longest first; nobody else is told of them for as long."""

    async def find_aged(
        self, after: ThreadKey | None, *, older_than_s: float, limit: int
    ) -> tuple[Sequence[ThreadKey], ThreadKey | None]:
        """Among the next `limit` threads after one (None: from the first) those that may have events so old.

        Returns:
            These, and the last one looked at; None where there was none to look at.
        """


class Retention(Protocol):
    """How much is kept of what has been written. Each call is one transaction; all raise StoreUnavailable."""

    async def read_foldable(self, run: Foldable, *, after_seq: int, limit: int, most_bytes: int) -> Page:
        """Events after a number that may be merged, of a run that has ended, as `Journal.read_events`."""

    async def fold(self, run: Foldable, groups: Sequence[Group], *, last: bool) -> bool:
        """Puts one event in the place of each group. `last`: the run need not be folded again.

        Returns:
            Whether all was as it had been read. Where not, because others fold it or it is gone, that stays as it is.
        """

    async def remove_aged(self, thread: ThreadKey, *, older_than_s: float, limit: int) -> int:
        """Removes up to `limit` events that are so old, the oldest first, none of or after a run that has not ended.

        Returns:
            How many. The thread's `first_seq` is the first that is left.
        """
