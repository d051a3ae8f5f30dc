"""The caller of one HTTP request: it follows nothing, and takes the answer that becomes the response."""

import asyncio
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager

from starlette.responses import Response

from agentws.core.context import Principal
from agentws.core.run import Deleted
from agentws.core.session import error_frame
from agentws.observe.frames import FrameTally
from agentws.ports import Credentials
from agentws.wire.answers import Error, RequestAccepted, ServerMessage, StopAccepted
from agentws.wire.codec import encode
from agentws.wire.errors import CATALOGUE, Fault
from agentws.wire.ids import ConnectionId, ThreadId, ThreadNo

__all__ = ["RequestCaller", "refusal", "respond"]

_UNAVAILABLE_S = 1


class RequestCaller:
    """
    Args:
        principal: whose request it is.
        tally: who is told what was answered.
    """

    def __init__(self, principal: Principal, tally: FrameTally) -> None:
        self.principal = principal
        self.reply: ServerMessage | None = None
        self._tally = tally

    @property
    def connection_id(self) -> ConnectionId | None:
        return None

    @property
    def current_thread(self) -> ThreadId | None:
        return None

    @property
    def reserved_thread(self) -> tuple[ThreadId, ThreadNo] | None:
        return None

    def make_current(self, thread_id: ThreadId) -> None: ...

    def forget(self, thread_id: ThreadId) -> None: ...

    def answer(self, frame: ServerMessage) -> None:
        self._tally.sent(frame)
        self.reply = frame

    @contextmanager
    def hold(self, thread_id: ThreadId) -> Iterator[None]:
        yield

    def leave_older(self, thread_id: ThreadId, *, epoch: str) -> None: ...

    def may_follow(self, thread_id: ThreadId) -> bool:
        return True

    def follow(self, thread_id: ThreadId, *, epoch: str, after_seq: int, behind: bool) -> None: ...

    def replay(self, thread_id: ThreadId, *, frame_id: str | None, epoch: str, after_seq: int) -> None: ...

    def unfollow(self, thread_id: ThreadId) -> None: ...

    def finish(self, thread_id: ThreadId, deleted: Deleted, last: ServerMessage) -> Awaitable[None]:
        self.answer(last)
        return asyncio.sleep(0)

    async def authenticate(self, token: str) -> Credentials:
        raise Fault("validation_error", "type")


def respond(frame: ServerMessage | None) -> Response:
    """The response of an answer: its status is the error's, 202 for what is accepted, 200 otherwise."""
    if frame is None:
        frame = error_frame(Fault("internal_error"), frame_id=None)
    if isinstance(frame, Error):
        return _failed(frame, CATALOGUE[frame.code].status)
    accepted = isinstance(frame, StopAccepted) or (isinstance(frame, RequestAccepted) and not frame.duplicate)
    return Response(encode(frame), status_code=202 if accepted else 200, media_type="application/json")


def refusal(fault: Fault, *, status: int | None = None) -> Response:
    """The response of a fault; `status` in place of the catalogue's."""
    return _failed(error_frame(fault, frame_id=None), status or CATALOGUE[fault.code].status)


def _failed(frame: Error, status: int) -> Response:
    headers = {}
    if isinstance(frame.retry_after_ms, int):
        headers["Retry-After"] = str(-(-frame.retry_after_ms // 1000))
    elif status == 503:
        headers["Retry-After"] = str(_UNAVAILABLE_S)
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return Response(encode(frame), status_code=status, media_type="application/json", headers=headers)
