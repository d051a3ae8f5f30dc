"""Credentials as an issuer would make them, for a server with `auth = "jwt"`."""

from datetime import UTC, datetime, timedelta
from typing import Any

import jwt

from .servers import JwtServer

__all__ = ["bearer", "token"]


def token(server: JwtServer, user: str | None, *, lives: timedelta = timedelta(hours=1), **claims: Any) -> str:
    """A signed token; a claim given as None is left out."""
    held = {"sub": user, "exp": datetime.now(UTC) + lives} | claims
    return jwt.encode({name: value for name, value in held.items() if value is not None}, server.jwt_secret, "HS256")


def bearer(credential: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {credential}"}
