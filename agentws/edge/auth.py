"""Who is connecting: a principal from checked credentials, before anything is accepted (section 2).

Besides the claims of the store this is the only place where a principal is made.
"""

import time
from collections.abc import Mapping, Sequence

import jwt

from agentws.core.context import Principal
from agentws.ports import Credentials
from agentws.settings import Settings
from agentws.wire.errors import Fault
from agentws.wire.ids import is_principal_name

__all__ = ["SUBPROTOCOL", "TokenAuthenticator"]

SUBPROTOCOL = "agentws.v1.json"
_TOKEN_PREFIXES = frozenset({"bearer", "jwt", "jwt-auth"})
_LATEST = 253_402_300_799  # 9999-12-31, the last second that RFC 3339 can write


class TokenAuthenticator:
    """Takes JWTs, and with `auth = "dev"` a bare user name.

    Args:
        settings: `jwt_secret`, `user_claim`, `tenant_claim`, `auth`.
    """

    def __init__(self, settings: Settings) -> None:
        self._secret = settings.jwt_secret
        self._user_claim = settings.user_claim
        self._tenant_claim = settings.tenant_claim
        self._dev = settings.auth == "dev"

    def __call__(
        self, headers: Mapping[str, str], subprotocols: Sequence[str], query: Mapping[str, str]
    ) -> Credentials:
        answer = SUBPROTOCOL if SUBPROTOCOL in subprotocols else None
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return self._check(token.strip(), answer)
        for item in subprotocols:
            prefix, _, rest = item.partition(".")
            if prefix in _TOKEN_PREFIXES:
                # A JWT has three parts; a word before them names an environment.
                token = rest.partition(".")[2] if rest.count(".") == 3 else rest
                return self._check(token, answer or item)
        if self._dev:
            user = query.get("user", "dev")
            if not is_principal_name(user):
                raise Fault("unauthorized", text="The user's name is not valid.")
            return Credentials(principal=Principal("", user), expires_at=None, subprotocol=answer)
        raise Fault("unauthorized")

    def _check(self, token: str, subprotocol: str | None) -> Credentials:
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
        if not isinstance(user, str) or not is_principal_name(user):
            raise Fault("unauthorized")
        if not isinstance(tenant, str) or (tenant and not is_principal_name(tenant)):
            raise Fault("unauthorized")
        if expires_at <= time.time():
            raise Fault("unauthorized")
        return Credentials(principal=Principal(tenant, user), expires_at=expires_at, subprotocol=subprotocol)


def _number(value: object) -> int | float:
    """A NumericDate (RFC 7519, 2). Raises TypeError for what only looks like one."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError("exp is not a number")
    return value
