"""What the parts promise each other: the store, the broker, the edge, and the run that an agent is handed.

The promises are in the docstrings; the implementations keep them.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from agentws.core.context import Principal, UserExecutionContext
from agentws.core.framing import Origin, Record
from agentws.core.replay import Batch
from agentws.core.run import Accepted, Appended, Claim, Draft, Ending, Message, RunKey, Stopped, Ticket, Wanted
from agentws.wire.ids import ConnectionId, RunId, RunNo, ThreadId, ThreadNo
from agentws.wire.messages import ServerMessage, Thread

__all__ = [
    "Authenticator",
    "Broker",
    "Caller",
    "Credentials",
    "Fenced",
    "Head",
    "Journal",
    "Listener",
    "Nodes",
    "Page",
    "Renewal",
    "Run",
    "Starts",
    "Stopping",
    "StoreUnavailable",
    "ThreadKey",
    "Threads",
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

    async def read_heads(self, keys: Sequence[ThreadKey]) -> Mapping[ThreadKey, tuple[str, int]]:
        """Epoch and last number of many threads, in one call; threads that are not there are left out."""

    async def read_messages(self, claim: Claim, *, before: Message | None, limit: int) -> Sequence[Message]:
        """Messages of the turns before the claim's, oldest first: the newest `limit`, or those before `before`."""


class Threads(Protocol):
    async def create(
        self,
        principal: Principal,
        thread_id: ThreadId,
        thread_no: ThreadNo,
        *,
        title: str | None,
        metadata: str | None,
    ) -> Thread:
        """Makes a thread; where it exists already it is returned as it is. `metadata` is JSON text."""


class Nodes(Protocol):
    """Leases of processes and claims across principals; no content passes here. All calls raise StoreUnavailable."""

    async def register(self, node_id: int, name: str, *, ttl_s: float) -> None: ...

    async def renew(self, node_id: int, *, ttl_s: float) -> Renewal:
        """Renews a lease that has not run out by the database's clock."""

    async def remove(self, node_id: int) -> None: ...

    async def take_over(self, node_id: int, *, orphans: Sequence[RunKey], limit: int) -> Sequence[Ticket]:
        """Claims runs of processes whose lease has run out, and orphans of this node; raises their fences."""

    async def claim_waiting(self, node_id: int, agents: Sequence[str], *, limit: int) -> Sequence[Ticket]:
        """Claims waiting runs of idle threads, the longest waiting first, in each thread the first in turn."""


class Listener(Protocol):
    def push(self, batch: Batch) -> None:
        """Takes a batch or a hint; returns at once and never raises."""


class Broker(Protocol):
    """Tells followers of a thread what was committed. A hint may be lost, doubled or late: the journal is the truth."""

    def subscribe(self, key: ThreadKey, listener: Listener) -> None: ...

    def unsubscribe(self, key: ThreadKey, listener: Listener) -> None: ...

    def publish(self, key: ThreadKey, batch: Batch) -> None: ...


class Caller(Protocol):
    """Who sent a command: its principal, and the place where its answers and events go."""

    @property
    def principal(self) -> Principal: ...

    @property
    def connection_id(self) -> ConnectionId | None: ...

    @property
    def current_thread(self) -> ThreadId | None: ...

    def make_current(self, thread_id: ThreadId) -> None: ...

    def answer(self, frame: ServerMessage) -> None:
        """Sends a frame, before everything that is sent to this caller later."""

    def hold(self, thread_id: ThreadId) -> AbstractContextManager[None]:
        """Keeps back the events of a thread until the block is left; they are not lost."""

    def follow(self, thread_id: ThreadId, *, epoch: str, after_seq: int, behind: bool) -> None:
        """Sends a thread's events from now on, unannounced; no effect where it is followed already.

        `behind`: events after `after_seq` are in the journal already.
        """

    def replay(self, thread_id: ThreadId, *, frame_id: str | None, epoch: str, after_seq: int) -> None:
        """Sends a thread's events after a number, `caught_up` with `frame_id`, then what comes; not followed yet."""

    def unfollow(self, thread_id: ThreadId) -> None:
        """Sends no more events of a thread."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Credentials:
    """Who was authenticated, until when (seconds since the epoch, None: no end), the subprotocol to answer with."""

    principal: Principal
    expires_at: float | None
    subprotocol: str | None


class Authenticator(Protocol):
    def __call__(
        self, headers: Mapping[str, str], subprotocols: Sequence[str], query: Mapping[str, str]
    ) -> Credentials:
        """Checks what a request brings. Raises Fault (`unauthorized`)."""


class Run(Protocol):
    """One run, as its agent sees it. All that it writes becomes numbered events of the user's thread, in order."""

    @property
    def text(self) -> str:
        """What the user asked."""

    @property
    def context(self) -> UserExecutionContext:
        """Whose run it is; cannot be changed."""

    @property
    def cancelled(self) -> bool:
        """Whether the run is stopping; for tools in threads, which cannot be cancelled."""

    async def think(self, reasoning: str) -> None:
        """Writes one step of reasoning: `agent_thinking`."""

    async def write(self, text: str) -> None:
        """Writes a piece of the answer: `agent_message`. Pieces that follow one another quickly are gathered."""

    async def call_tool(
        self, name: str, tool: Callable[..., Any] | Callable[..., Awaitable[Any]], /, **parameters: Any
    ) -> Any:
        """Calls `tool(**parameters)` between `tool_executing`, which is committed first, and `tool_completed`.

        A synchronous tool runs in a thread.

        Args:
            name: the tool's name on the wire.
            tool: a function; its result has to be something that JSON can hold.
            parameters: its arguments, which are shown to the user.

        Returns:
            What the tool returned.

        Raises:
            Exception: what the tool raised, after it was told as `success: false`; the agent may go on.
        """

    async def emit(self, name: str, value: Any) -> None:
        """Writes an event of the agent's own: `agent_event`.

        Args:
            name: namespaced: "app.thing".
            value: anything JSON can hold, at most 64 KiB encoded.

        Raises:
            ValueError: if the name is not namespaced, or the value is too large or cannot be encoded.
        """

    async def progress(self, progress: float | None = None, message: str | None = None) -> None:
        """Tells how far the tool is that is running in this task: `tool_progress`.

        Args:
            progress: from 0 to 1.
            message: for the user.

        Raises:
            RuntimeError: outside a tool.
            ValueError: if `progress` is outside 0 to 1.
        """

    async def history(self, limit: int = 50, before: Message | None = None) -> Sequence[Message]:
        """Earlier messages of the thread, oldest first.

        Args:
            limit: how many at most, 1 to 1000; the newest are taken.
            before: a message of an earlier call, to page back from.
        """
