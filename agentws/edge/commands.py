"""Carries out what a caller sent, and answers it whatever becomes of it: one way for every edge."""

import logging
import secrets
from collections.abc import Awaitable

from agentws.core.session import Handled, error_frame
from agentws.observe.frames import FrameTally
from agentws.ports import Caller, StoreUnavailable
from agentws.runtime.dispatcher import Dispatcher
from agentws.wire.errors import Fault

__all__ = ["Commands"]

log = logging.getLogger("agentws.edge")


class Commands:
    """
    Args:
        dispatcher: where messages go.
        tally: who is told of what came and what became of it.
    """

    def __init__(self, dispatcher: Dispatcher, tally: FrameTally) -> None:
        self._dispatcher = dispatcher
        self.tally = tally

    async def carry_out(self, caller: Caller, message: Handled) -> None:
        """Carries a message out; its caller is answered, with an error frame where it cannot be served."""
        await self.attempt(caller, message.type, message.id, self._dispatcher.dispatch(caller, message))

    async def attempt(self, caller: Caller, name: str, frame_id: str | None, work: Awaitable[None]) -> None:
        """Does some work for a caller, who is told of a failure.

        Args:
            name: what it is, in an error's text; the type of the frame that asked for it, where there is one.
            frame_id: the id of that frame.
        """
        try:
            await work
        except Fault as fault:
            self._refuse(caller, name, frame_id, fault)
        except StoreUnavailable as error:
            log.warning("%s: database unavailable: %s", name, error)
            self._refuse(caller, name, frame_id, Fault("database_unavailable", text=_failed(name)))
        except Exception:
            failure = Fault("internal_error", text=_failed(name))
            correlation_id = secrets.token_hex(8)
            failure.details = {"correlation_id": correlation_id}
            log.exception("%s failed inside the server", name, extra={"correlation_id": correlation_id})
            self._refuse(caller, name, frame_id, failure)

    def _refuse(self, caller: Caller, name: str, frame_id: str | None, fault: Fault) -> None:
        self.tally.failed(name)
        caller.answer(error_frame(fault, frame_id=frame_id))


def _failed(name: str) -> str:
    return f"Failed to process {name}. Please try again."
