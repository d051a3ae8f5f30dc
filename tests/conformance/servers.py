"""Which server the suite speaks with: one of its own a set of settings, or the one that somebody else started."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

__all__ = ["NEEDS", "REMOTE", "JwtServer", "Remote", "Server", "offered"]


class Server(Protocol):
    """A running server: in dev auth without a `jwt_secret`, else it wants HS256 tokens with `sub` and `exp`."""

    @property
    def ws_url(self) -> str: ...
    @property
    def http_url(self) -> str: ...
    @property
    def jwt_secret(self) -> str: ...


JwtServer = Server


@dataclass(frozen=True)
class Remote:
    """A server that somebody else started, with the agent `demo` at its own pace."""

    http_url: str
    jwt_secret: str

    @property
    def ws_url(self) -> str:
        return "ws" + self.http_url.removeprefix("http") + "/ws"


def _remote() -> Remote | None:
    url = os.environ.get("CONFORMANCE_URL", "").rstrip("/")
    return Remote(url, os.environ.get("CONFORMANCE_JWT_SECRET", "")) if url else None


REMOTE: Final = _remote()

NEEDS: Mapping[str, str] = {
    "agents": "needs the suite's own agents (tests/sample_agents.py) beside `demo`",
    "settings": "needs a server started with settings of the suite's own",
    "process": "needs to stop and start the server's process or its database",
    "dev": "needs dev auth, and a JWT_SECRET was given",
    "jwt": "needs tokens, and no JWT_SECRET was given",
    "quiet": "needs a server that nobody else uses at the time",
}


def offered(remote: Remote) -> frozenset[str]:
    """Which of `NEEDS` a server that somebody else started can serve."""
    return frozenset({"jwt"} if remote.jwt_secret else {"dev"})
