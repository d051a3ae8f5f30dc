"""From a message to its answer: one short transaction each. What is accepted here is worked on elsewhere."""

from typing import assert_never

from agentws.core.session import Handled
from agentws.ports import Caller
from agentws.runtime.conversations import Conversations
from agentws.runtime.starting import Starter
from agentws.runtime.stopping import Stopper
from agentws.wire.answers import Authenticated, StopAccepted
from agentws.wire.codec import timestamp, timestamp_at
from agentws.wire.errors import Fault
from agentws.wire.ids import RunId, ThreadId, run_no_of_request
from agentws.wire.messages import (
    Authenticate,
    CreateThread,
    DeleteThread,
    GetThreadHistory,
    ListThreads,
    Start,
    StopAgent,
    Subscribe,
    SwitchThread,
    Unsubscribe,
    UpdateThread,
)

__all__ = ["Dispatcher"]


class Dispatcher:
    """
    Args:
        starter: accepts starts.
        stopper: stops runs.
        conversations: what concerns threads.
    """

    def __init__(self, *, starter: Starter, stopper: Stopper, conversations: Conversations) -> None:
        self._starter = starter
        self._stopper = stopper
        self._conversations = conversations

    async def dispatch(self, caller: Caller, message: Handled) -> None:
        """Carries a message out for its caller, and answers it.

        Raises:
            Fault: if it cannot be served.
            StoreUnavailable: if the database did not answer; it may have taken effect.
        """
        match message:
            case Start():
                await self._starter.start(caller, message)
            case StopAgent():
                await self._stop(caller, message)
            case Subscribe():
                await self._conversations.subscribe(caller, message)
            case Unsubscribe():
                self._conversations.unsubscribe(caller, message)
            case CreateThread():
                await self._conversations.create(caller, message)
            case UpdateThread():
                await self._conversations.update(caller, message)
            case ListThreads():
                await self._conversations.list_page(caller, message)
            case SwitchThread():
                await self._conversations.switch(caller, message)
            case GetThreadHistory():
                await self._conversations.history(caller, message)
            case DeleteThread():
                await self._conversations.delete(caller, message)
            case Authenticate():
                await self._authenticate(caller, message)
            case _:
                assert_never(message)

    async def _stop(self, caller: Caller, message: StopAgent) -> None:
        run_id = None if message.run_id is None else RunId(message.run_id)
        run_no = None
        if run_id is None and message.request_id is not None:
            run_no = run_no_of_request(message.request_id)
            if run_no is None:
                raise Fault("run_not_found")
        stopped = await self._stopper.stop(
            caller.principal,
            run_id=run_id,
            run_no=run_no,
            thread_id=None if message.thread_id is None else ThreadId(message.thread_id),
            reason=message.reason or "user",
        )
        caller.answer(
            StopAccepted(
                id=message.id,
                timestamp=timestamp(),
                run_ids=stopped.run_ids,
                already_ended=stopped.already_ended,
            )
        )

    async def _authenticate(self, caller: Caller, message: Authenticate) -> None:
        credentials = await caller.authenticate(message.token or "")
        caller.answer(
            Authenticated(
                id=message.id,
                timestamp=timestamp(),
                user_id=credentials.principal.user_id,
                expires_at=timestamp_at(credentials.expires_at),
            )
        )
