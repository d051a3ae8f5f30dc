"""Log lines of the server, on standard error; one line an event, in the form that a person reads."""

import logging
import sys

__all__ = ["configure"]


class _RefusedUpgrades(logging.Filter):
    """Keeps out what the WebSocket layer logs as an error for each refused upgrade: a stranger could fill the log."""

    def filter(self, record: logging.LogRecord) -> bool:
        return "without completing handshake" not in record.getMessage()


class _OneLine(logging.Formatter):
    """Keeps what a user sent from beginning a line of its own."""

    def format(self, record: logging.LogRecord) -> str:
        message = super().format(record)
        if record.exc_info:
            return message
        return message.replace("\r", "\\r").replace("\n", "\\n")


def configure(level: int = logging.INFO) -> None:
    """Sends all log lines to standard error; those of libraries from WARNING on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_OneLine("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("agentws").setLevel(level)
    logging.getLogger("uvicorn.error").addFilter(_RefusedUpgrades())
