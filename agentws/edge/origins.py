"""Which web pages may call: a browser says whose page it is, and no page can lie about that (section 2)."""

import re
from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection

from agentws.wire.errors import Fault

__all__ = ["Origins"]

_DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}


class Origins:
    """
    Args:
        patterns: origins such as `https://app.example.com`; `*` stands for one or more characters of a host, and alone
            for any origin. None: the host that is called, only.

    Attributes:
        pattern: a regular expression of the origins; of none where there are no patterns.
    """

    def __init__(self, patterns: Collection[str]) -> None:
        self.pattern = "|".join(_expression(pattern) for pattern in sorted(patterns))
        self._allowed = re.compile(self.pattern) if patterns else None

    def check(self, connection: HTTPConnection) -> None:
        """Lets a request pass that comes from no browser, or from a page that may call.

        Raises:
            Fault: `forbidden_origin`.
        """
        origin = connection.headers.get("origin")
        if origin is None or self.allows(origin, connection):
            return
        raise Fault("forbidden_origin")

    def allows(self, origin: str, connection: HTTPConnection) -> bool:
        """Whether a page of this origin may make this request."""
        if self._allowed is not None:
            return self._allowed.fullmatch(origin.lower()) is not None
        # By the page's scheme: a proxy that ends TLS leaves no port in the host, and another scheme to us.
        scheme = origin.partition("://")[0].lower()
        called = _place(f"{scheme}://{connection.headers.get('host', '')}")
        return called is not None and _place(origin) == called


def _expression(pattern: str) -> str:
    if pattern == "*":
        return ".*"
    # Bounded, as a host's name is: a long origin that nearly matches several of them must not take long.
    return "[a-z0-9.-]{1,253}".join(re.escape(part) for part in pattern.lower().rstrip("/").split("*"))


def _place(url: str) -> tuple[str, int] | None:
    """Host and port of an origin; None where it has none."""
    try:
        parts = urlsplit(url)
        port = parts.port or _DEFAULT_PORTS.get(parts.scheme)
    except ValueError:
        return None
    return (parts.hostname, port) if parts.hostname and port else None
