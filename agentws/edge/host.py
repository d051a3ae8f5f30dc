"""Who is connecting, as the application says that mounts this one: its own sessions decide, and nothing else does.

Whatever the application's callable does besides answering is an error of the server, never a sign-in.
"""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starlette.requests import HTTPConnection

from agentws.edge.auth import SUBPROTOCOL, principal_of
from agentws.ports import Credentials
from agentws.wire.errors import Fault

__all__ = ["Answer", "Authenticate", "HostAuthenticator", "SignedIn"]

_LATEST = 253_402_300_799  # 9999-12-31, the last second that RFC 3339 can write


@dataclass(frozen=True, slots=True)
class SignedIn:
    """Who is signed in.

    Args:
        user_id: 1 to 255 characters.
        tenant_id: as `user_id`; "" where there is one tenant.
        expires_at: when the session ends, in seconds since the epoch; the connection ends then too. None: never.
    """

    user_id: str
    tenant_id: str = ""
    expires_at: float | None = None


Answer = SignedIn | tuple[str, str] | str | None
"""Who is signed in: a user, a (tenant, user), the same with an end; None: nobody."""

Authenticate = Callable[[HTTPConnection], Answer | Awaitable[Answer]]
"""Given the request, its headers, cookies, query, client and session, of HTTP and WebSocket alike."""


class HostAuthenticator:
    """
    Args:
        ask: the host's callable; one that is not async runs in a thread.
        timeout_s: how long an answer may take, in seconds.
    """

    def __init__(self, ask: Authenticate, *, timeout_s: float = 10.0) -> None:
        self._ask = ask
        self._timeout_s = timeout_s
        self._is_async = inspect.iscoroutinefunction(ask) or inspect.iscoroutinefunction(type(ask).__call__)

    async def __call__(self, connection: HTTPConnection) -> Credentials:
        """As `Authenticator`.

        Raises:
            Fault: `unauthorized`, if nobody is signed in.
            Exception: what the callable raises; TypeError, ValueError and TimeoutError for answers that are none.
        """
        async with asyncio.timeout(self._timeout_s):
            # It may ask a database in a way that blocks.
            answer = self._ask(connection) if self._is_async else await asyncio.to_thread(self._ask, connection)
            if inspect.isawaitable(answer):
                answer = await answer
        who = _signed_in(answer)
        offered = connection.scope.get("subprotocols", ())
        return Credentials(
            principal=principal_of(who.tenant_id, who.user_id),
            expires_at=who.expires_at,
            subprotocol=SUBPROTOCOL if SUBPROTOCOL in offered else None,
        )

    def check_token(self, token: str) -> Credentials:
        """Raises Fault (`unauthorized`): no token is taken."""
        raise Fault("unauthorized")


def _signed_in(answer: object) -> SignedIn:
    match answer:
        case None:
            raise Fault("unauthorized")
        case str(user):
            who = SignedIn(user)
        case (str(tenant), str(user)):
            who = SignedIn(user, tenant)
        case SignedIn(user_id=str(), tenant_id=str()):
            who = answer
        case _:
            # Its type alone: an answer may hold a session's secrets.
            raise TypeError(f"authenticate answered with {type(answer).__name__}; it is to name a user, by a text")
    _check_end(who.expires_at)
    return who


def _check_end(expires_at: object) -> None:
    if expires_at is None:
        return
    if isinstance(expires_at, bool) or not isinstance(expires_at, int | float):
        raise TypeError(f"expires_at is {type(expires_at).__name__}; it is seconds since the epoch")
    # Milliseconds are beyond it too: a session that would never end.
    if not expires_at <= _LATEST:
        raise ValueError("expires_at is beyond the year 9999; it is seconds since the epoch")
    if expires_at <= time.time():
        raise Fault("unauthorized")
