"""Who is connecting: a principal from checked credentials, before anything is accepted (section 2).

Besides the claims of the store this is the only place where a principal is made.
"""

import time
from collections.abc import Sequence

import jwt
from starlette.requests import HTTPConnection

from agentws.core.context import Principal
from agentws.ports import Credentials, Tickets
from agentws.settings import Settings
from agentws.wire.errors import Fault
from agentws.wire.ids import is_principal_name

__all__ = ["SUBPROTOCOL", "TokenAuthenticator", "principal_of"]

SUBPROTOCOL = "agentws.v1.json"
_TOKEN_PREFIXES = frozenset({"bearer", "jwt", "jwt-auth"})
_LATEST = 253_402_300_799  # 9999-12-31, the last second that RFC 3339 can write


def principal_of(tenant_id: str, user_id: str) -> Principal:
    """The principal of names that credentials were checked for.

    Raises:
        Fault: `unauthorized` if they cannot name a tenant and a user (section 1); the tenant may be "".
    """
    if not is_principal_name(user_id) or (tenant_id and not is_principal_name(tenant_id)):
        raise Fault("unauthorized", text="The user's name is not valid.")
    return Principal(tenant_id, user_id)


class TokenAuthenticator:
    """Takes JWTs, tickets, and with `auth = "dev"` a bare user name.

    Args:
        settings: `jwt_secret`, `user_claim`, `tenant_claim`, `auth`.
        tickets: where tickets are redeemed.
    """

    def __init__(self, settings: Settings, tickets: Tickets) -> None:
        self._secret = settings.jwt_secret
        self._user_claim = settings.user_claim
        self._tenant_claim = settings.tenant_claim
        self._dev = settings.auth == "dev"
        self._tickets = tickets

    async def __call__(self, connection: HTTPConnection) -> Credentials:
        subprotocols: Sequence[str] = connection.scope.get("subprotocols", ())
        answer = SUBPROTOCOL if SUBPROTOCOL in subprotocols else None
        scheme, _, token = connection.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return self.check_token(token.strip(), subprotocol=answer)
        for item in subprotocols:
            prefix, _, rest = item.partition(".")
            if prefix in _TOKEN_PREFIXES:
                # A JWT has three parts; a word before them names an environment.
                worded = rest.count(".") == 3
                token = rest.partition(".")[2] if worded else rest
                return self.check_token(token, subprotocol=answer or item, original=worded and answer is None)
        if (ticket := connection.query_params.get("ticket")) and _takes_tickets(connection):
            return await self._redeem(ticket, answer)
        if self._dev:
            principal = principal_of("", connection.query_params.get("user", "dev"))
            return Credentials(principal=principal, expires_at=None, subprotocol=answer)
        raise Fault("unauthorized")

    def check_token(self, token: str, *, subprotocol: str | None = None, original: bool = False) -> Credentials:
        """The credentials of a JWT.

        Args:
            subprotocol: what the upgrade that brought it is answered with.
            original: that upgrade speaks the original dialect.

        Raises:
            Fault: `unauthorized`, whatever is wrong with it.
        """
        if self._secret is None:
            raise Fault("unauthorized")
        try:
            # The audience is not ours to check unless one is configured.
            claims = jwt.decode(
                token, self._secret, algorithms=["HS256"], options={"require": ["exp"], "verify_aud": False}
            )
            expires_at = min(float(_number(claims["exp"])), _LATEST)
        except (jwt.InvalidTokenError, ValueError, TypeError, OverflowError) as error:
            raise Fault("unauthorized") from error
        user = claims.get(self._user_claim)
        tenant = claims.get(self._tenant_claim) if self._tenant_claim else ""
        if not isinstance(user, str) or not isinstance(tenant, str):
            raise Fault("unauthorized")
        if expires_at <= time.time():
            raise Fault("unauthorized")
        return Credentials(
            principal=principal_of(tenant, user), expires_at=expires_at, subprotocol=subprotocol, original=original
        )

    async def _redeem(self, ticket: str, subprotocol: str | None) -> Credentials:
        redeemed = await self._tickets.redeem(ticket)
        if redeemed is None:
            raise Fault("unauthorized")
        expires_at = redeemed.credentials_expire_at
        if expires_at is not None and expires_at <= time.time():
            raise Fault("unauthorized")
        principal = principal_of(redeemed.tenant_id, redeemed.user_id)
        return Credentials(principal=principal, expires_at=expires_at, subprotocol=subprotocol)


def _takes_tickets(connection: HTTPConnection) -> bool:
    """Upgrades and event streams do: what cannot send a header."""
    if connection.scope["type"] == "websocket":
        return True
    return connection.scope["method"] == "GET" and "text/event-stream" in connection.headers.get("accept", "")


def _number(value: object) -> int | float:
    """A NumericDate (RFC 7519, 2). Raises TypeError for what only looks like one."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError("exp is not a number")
    return value
