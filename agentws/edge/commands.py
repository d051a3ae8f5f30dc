"""Carries out what a caller sent, and answers it whatever becomes of it: one way for every edge."""

import logging
import secrets

from agentws.core.session import Handled, error_frame
from agentws.ports import Caller, StoreUnavailable
from agentws.runtime.dispatcher import Dispatcher
from agentws.wire.errors import Fault

__all__ = ["Commands"]

log = logging.getLogger("agentws.edge")


class Commands:
    """
    Args:
        dispatcher: where messages go.
    """

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher

    async def carry_out(self, caller: Caller, message: Handled) -> None:
        """Carries a message out; its caller is answered, with an error frame where it cannot be served."""
        try:
            await self._dispatcher.dispatch(caller, message)
        except Fault as fault:
            self._refuse(caller, message, fault)
        except StoreUnavailable as error:
            log.warning("connection %s: %s: database unavailable: %s", caller.connection_id, message.type, error)
            self._refuse(caller, message, Fault("database_unavailable", text=_failed(message)))
        except Exception:
            failure = Fault("internal_error", text=_failed(message))
            correlation_id = secrets.token_hex(8)
            failure.details = {"correlation_id": correlation_id}
            log.exception(
                "connection %s: %s failed inside the server (correlation_id=%s)",
                caller.connection_id,
                message.type,
                correlation_id,
            )
            self._refuse(caller, message, failure)

    def _refuse(self, caller: Caller, message: Handled, fault: Fault) -> None:
        caller.answer(error_frame(fault, frame_id=message.id))


def _failed(message: Handled) -> str:
    return f"Failed to process {message.type}. Please try again."
