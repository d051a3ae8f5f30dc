"""What an edge promises to those that carry out its commands: callers, and who they are."""

from collections.abc import Awaitable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from agentws.core.context import Principal
from agentws.core.run import Deleted
from agentws.wire.answers import ServerMessage
from agentws.wire.ids import ConnectionId, ThreadId, ThreadNo

if TYPE_CHECKING:
    # Authors of agents, who import ports, need no web framework.
    from starlette.requests import HTTPConnection

__all__ = ["Authenticator", "Caller", "Credentials"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Credentials:
    """Who was authenticated, until when (seconds since the epoch, None: no end), the subprotocol to answer with.

    `original`: the client speaks the original dialect (section 7).
    """

    principal: Principal
    expires_at: float | None
    subprotocol: str | None
    original: bool = False


class Caller(Protocol):
    """Who sent a command: its principal, and the place where its answers and events go."""

    @property
    def principal(self) -> Principal: ...

    @property
    def connection_id(self) -> ConnectionId | None: ...

    @property
    def current_thread(self) -> ThreadId | None: ...

    @property
    def reserved_thread(self) -> tuple[ThreadId, ThreadNo] | None:
        """A thread that this caller alone may make, by its first start (section 7)."""

    def make_current(self, thread_id: ThreadId) -> None: ...

    def forget(self, thread_id: ThreadId) -> None:
        """A thread was deleted: it is not current any more, nor reserved."""

    def answer(self, frame: ServerMessage) -> None:
        """Sends a frame, before everything that is sent to this caller later."""

    def hold(self, thread_id: ThreadId) -> AbstractContextManager[None]:
        """Keeps back the events of a thread until the block is left; they are not lost."""

    def leave_older(self, thread_id: ThreadId, *, epoch: str) -> None:
        """Ends following a thread in an epoch before this one, its newest, before what is answered next."""

    def may_follow(self, thread_id: ThreadId) -> bool:
        """Whether it follows a thread already, or may follow one more."""

    def follow(self, thread_id: ThreadId, *, epoch: str, after_seq: int, behind: bool) -> None:
        """Sends a thread's events from now on, unannounced; no effect where it is followed already.

        `behind`: events after `after_seq` are in the journal already.
        """

    def replay(self, thread_id: ThreadId, *, frame_id: str | None, epoch: str, after_seq: int) -> None:
        """Sends a thread's events after a number, `caught_up` with `frame_id`, then what comes; not followed yet."""

    def unfollow(self, thread_id: ThreadId) -> None:
        """Sends no more events of a thread."""

    def finish(self, thread_id: ThreadId, deleted: Deleted, last: ServerMessage) -> Awaitable[None]:
        """Sends the rest of a deleted thread's events where it is followed, then the last frame.

        What is returned is done when that has been handed to the sender.
        """

    async def authenticate(self, token: str) -> Credentials:
        """Goes on with a fresh token of the same principal. Raises Fault."""


class Authenticator(Protocol):
    async def __call__(self, connection: "HTTPConnection") -> Credentials:
        """Checks what a request brings. Raises Fault (`unauthorized`), StoreUnavailable."""
