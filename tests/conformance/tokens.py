"""Credentials as an issuer would make them, for a server with `auth = "jwt"`."""

from datetime import UTC, datetime, timedelta
from typing import Any

import jwt

from .servers import JwtServer

__all__ = ["BAD", "bad_tokens", "bearer", "expiring", "token"]


def token(server: JwtServer, user: str | None, *, lives: timedelta = timedelta(hours=1), **claims: Any) -> str:
    """A signed token; a claim given as None is left out."""
    held = {"sub": user, "exp": datetime.now(UTC) + lives} | claims
    return jwt.encode({name: value for name, value in held.items() if value is not None}, server.jwt_secret, "HS256")


def expiring(server: JwtServer, user: str, *, in_s: int, **claims: Any) -> tuple[str, datetime]:
    """A token and its `exp`, which is in between `in_s` - 1 and `in_s` seconds."""
    exp = int(datetime.now(UTC).timestamp()) + in_s
    return token(server, user, exp=exp, **claims), datetime.fromtimestamp(exp, UTC)


def bad_tokens(server: JwtServer, user: str) -> dict[str, str]:
    """Tokens that stand for nobody, though most of them name `user`; by what is wrong with them, which is `BAD`."""
    hour = timedelta(hours=1)
    good, other = token(server, user), token(server, f"other-{user}")
    head, body, signature = good.split(".")
    return {
        "malformed": "not-a-token",
        "two parts": f"{head}.{body}",
        "no signature": f"{head}.{body}.",
        "another's signature": f"{head}.{body}.{other.split('.')[2]}",
        "body of another": f"{head}.{other.split('.')[1]}.{signature}",
        "wrong secret": jwt.encode({"sub": user, "exp": datetime.now(UTC) + hour}, "wrong" * 16, "HS256"),
        "algorithm none": jwt.encode({"sub": user, "exp": datetime.now(UTC) + hour}, "", "none"),
        "expired": token(server, user, lives=-hour),
        "not yet valid": token(server, user, nbf=datetime.now(UTC) + hour),
        "without exp": token(server, user, exp=None),
        "without sub": token(server, None),
        "blank sub": token(server, ""),
        "control character in sub": token(server, "a\nb"),
        "sub of 256 characters": token(server, "x" * 256),
    }


BAD = [
    *("malformed", "two parts", "no signature", "another's signature", "body of another", "wrong secret"),
    *("algorithm none", "expired", "not yet valid", "without exp", "without sub", "blank sub"),
    *("control character in sub", "sub of 256 characters"),
]


def bearer(credential: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {credential}"}
