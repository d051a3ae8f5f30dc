"""The Python client: an answer for every request, and what happens in the threads that it follows, once and in order.

A lost connection is made again, and everything goes on where it was; the caller sees no seam.
"""

import asyncio
from secrets import token_hex
from types import TracebackType
from typing import Any, Self, TypeVar
from uuid import uuid4

from agentws.client.dial import NoConnection, websocket_url
from agentws.client.errors import ClientError, ConnectFailed, Refused
from agentws.client.frames import Thread, ThreadCreated, ThreadHistory, ThreadList, ThreadUpdated
from agentws.client.link import Link, Token, Update
from agentws.client.retry import Backoff
from agentws.client.session import Trouble
from agentws.wire.answers import (
    Error,
    RequestAccepted,
    StopAccepted,
    Subscribed,
    ThreadDeleted,
    Unsubscribed,
)

__all__ = ["DEFAULT_URL", "Client"]

A = TypeVar("A")

DEFAULT_URL = "http://127.0.0.1:8000"
PATIENCE_S = 60.0
# What goes away by itself: the same request is sent again, for PATIENCE_S at most.
_PASSING = frozenset({"database_unavailable", "draining", "overloaded", "rate_limited"})


class Client:
    """A user's client; `async with` opens and closes it, `async for` gives what happens.

    What happens is an `Event` of a thread that is followed, or one of `CaughtUp`, `Reset`, `Gone`, `Trouble`, `Lost`
    and `Connected`. Iterating raises `Closed` when there will be no connection any more.

    Args:
        url: where the server is, with its mount.
        user: the user's name, for a server in dev auth.
        token: a JWT, or an async function that fetches a fresh one for each connection.

    Raises:
        ConnectFailed: on entering, if the first connection cannot be made; later ones are tried again.
    """

    def __init__(self, url: str = DEFAULT_URL, *, user: str | None = None, token: Token = None) -> None:
        self._url = url
        self._link = Link(websocket_url(url, user=user), token)
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        try:
            socket = await self._link.open()
        except NoConnection as error:
            raise ConnectFailed(f"cannot connect to {self._url}: {error}") from None
        self._task = asyncio.get_running_loop().create_task(self._link.keep(socket))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))
            if not self._task.cancelled():
                self._task.result()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Update:
        return await self._link.next()

    def waiting_update(self) -> Update | None:
        """What happened already and was not taken; None where there is nothing."""
        return self._link.taken()

    @property
    def user_id(self) -> str:
        """Who the server takes this client for."""
        return self._link.user_id

    async def start(
        self,
        text: str,
        *,
        thread_id: str | None = None,
        agent: str | None = None,
        run_id: str | None = None,
        context: dict[str, Any] | None = None,
        if_busy: str | None = None,
        idempotency_key: str | None = None,
    ) -> RequestAccepted:
        """Starts a run, once, however often it has to be sent; its thread is followed from then on.

        Args:
            text: what the user says.
            thread_id: an existing thread; None: the connection's current one, else a new one.
            agent: None: the server's default one.
            run_id: the run's id; None: the server makes one.
            context: what the agent finds in `run.context.context`.
            if_busy: `queue` (the default), `reject` or `interrupt`.
            idempotency_key: None: a fresh one.

        Raises:
            Refused: if the server does not start it.
        """
        return await self._ask(
            "user_message",
            RequestAccepted,
            content=text,
            thread_id=thread_id,
            agent=agent,
            run_id=run_id,
            context=context,
            if_busy=if_busy,
            idempotency_key=idempotency_key or uuid4().hex,
        )

    async def stop(
        self, *, run_id: str | None = None, thread_id: str | None = None, reason: str | None = None
    ) -> StopAccepted:
        """Stops a run, or all of a thread. Each ends in `agent_stopped`, unless it ended otherwise before."""
        return await self._ask("stop_agent", StopAccepted, run_id=run_id, thread_id=thread_id, reason=reason)

    async def follow(self, thread_id: str, *, after_seq: int = 0, epoch: str | None = None) -> Subscribed:
        """Follows a thread: its events after `after_seq` come, then `CaughtUp`, then what happens.

        Raises:
            Refused: `thread_not_found`, if this user has no such thread.
        """
        return await self._ask("subscribe", Subscribed, thread_id=thread_id, after_seq=after_seq, epoch=epoch)

    async def unfollow(self, thread_id: str) -> None:
        """Follows a thread no more."""
        self._link.session.unfollow(thread_id)
        await self._ask("unsubscribe", Unsubscribed, thread_id=thread_id)

    async def create_thread(self, *, title: str | None = None, thread_id: str | None = None) -> Thread:
        """Makes a thread; one that exists stays as it is."""
        # The id is made here, so that a request that is repeated makes one thread.
        thread_id = thread_id or f"thr-{token_hex(10)}"
        return (await self._ask("create_thread", ThreadCreated, thread_id=thread_id, title=title)).thread

    async def update_thread(
        self, thread_id: str, *, title: str | None = None, metadata: dict[str, Any] | None = None
    ) -> Thread:
        """Replaces a thread's title (an empty one clears it) or metadata."""
        answer = await self._ask("update_thread", ThreadUpdated, thread_id=thread_id, title=title, metadata=metadata)
        return answer.thread

    async def delete_thread(self, thread_id: str) -> None:
        """Deletes a thread; its runs are stopped."""
        await self._ask("delete_thread", ThreadDeleted, thread_id=thread_id)

    async def list_threads(self, *, limit: int = 50, before: str | None = None) -> ThreadList:
        """The user's threads, latest first; `next_before` is the cursor of the next page."""
        return await self._ask("list_threads", ThreadList, limit=limit, before=before)

    async def history(self, thread_id: str, *, limit: int = 50, before: str | None = None) -> ThreadHistory:
        """The latest messages of a thread, oldest first. Follow it from `resume_after` on to go on where they end."""
        return await self._ask("get_thread_history", ThreadHistory, thread_id=thread_id, limit=limit, before=before)

    async def _ask(self, kind: str, expected: type[A], **fields: Any) -> A:
        """Asks until there is an answer that is not a passing trouble's.

        Raises:
            Refused: an error that does not pass, or not in time.
            Closed: if the connection is over.
        """
        clock = asyncio.get_running_loop().time
        until = clock() + PATIENCE_S
        backoff = Backoff(first_s=1.0)
        while True:
            answer = await self._link.request(kind, fields)
            if isinstance(answer, expected):
                return answer
            if not isinstance(answer, Error):
                raise ClientError(f"{kind} was answered {type(answer).__name__}")
            pause = backoff.next_s(at_least_s=(answer.retry_after_ms or 0) / 1000)
            if answer.code not in _PASSING or clock() + pause > until:
                raise Refused(answer)
            self._link.tell(Trouble(answer))
            await asyncio.sleep(pause)
