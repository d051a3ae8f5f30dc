"""Who may come in: the page that calls, then the credentials; whatever goes wrong is an error that can be answered."""

import logging
import secrets

from starlette.requests import HTTPConnection

from agentws.edge.origins import Origins
from agentws.ports import Authenticator, Credentials, StoreUnavailable
from agentws.wire.errors import Fault

__all__ = ["Admission"]

log = logging.getLogger("agentws.edge")


class Admission:
    """
    Args:
        origins: the pages that may call.
        authenticate: who a request comes from.
    """

    def __init__(self, *, origins: Origins, authenticate: Authenticator) -> None:
        self._origins = origins
        self._authenticate = authenticate

    async def admit(self, connection: HTTPConnection) -> Credentials:
        """The credentials of a request.

        Raises:
            Fault: `forbidden_origin`, `unauthorized`; `database_unavailable` or `internal_error` where that cannot be
                found out.
        """
        # First, so that a foreign page uses up no ticket.
        self._origins.check(connection)
        try:
            return await self._authenticate(connection)
        except Fault:
            raise
        except StoreUnavailable as error:
            log.warning("cannot authenticate: database unavailable: %s", error)
            raise Fault("database_unavailable") from error
        except Exception as error:
            correlation_id = secrets.token_hex(8)
            log.exception("cannot authenticate", extra={"correlation_id": correlation_id})
            failure = Fault("internal_error")
            failure.details = {"correlation_id": correlation_id}
            raise failure from error
