"""Log lines of the server, on standard error; one line an event, in the form that a person reads."""

import logging
import re
import sys
from typing import Any

__all__ = ["configure"]

_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class _RefusedUpgrades(logging.Filter):
    """Keeps out what the WebSocket layer logs as an error for each refused upgrade: a stranger could fill the log."""

    def filter(self, record: logging.LogRecord) -> bool:
        return "without completing handshake" not in record.getMessage()


class _OneLine(logging.Formatter):
    """Keeps what a user sent from beginning a line of its own: control characters are escaped, tracebacks indented."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        return _escape(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:
        return "\n".join("    " + _escape(line) for line in super().formatException(ei).split("\n"))

    def formatStack(self, stack_info: str) -> str:
        return "\n".join("    " + _escape(line) for line in stack_info.split("\n"))


def _escape(text: str) -> str:
    return _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def configure(level: int = logging.INFO) -> None:
    """Sends all log lines to standard error; those of libraries from WARNING on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_OneLine("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("agentws").setLevel(level)
    logging.getLogger("uvicorn.error").addFilter(_RefusedUpgrades())
