"""Log lines of the server, on standard error: one an event, for people or as JSON, with the ids of what it is about.

What a user sent cannot make a line of its own, nor, in JSON, a field of one.
"""

import json
import logging
import re
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import partial
from types import MappingProxyType
from typing import Any, Literal

import structlog
from structlog.contextvars import merge_contextvars
from structlog.stdlib import ExtraAdder, ProcessorFormatter

__all__ = ["bound", "configure"]

_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
# Of what a line is given beside its text these are told; anything else could be of any kind.
_EXTRA = ("correlation_id",)
# One variable for all of them, so that nothing is touched that others bind with structlog.
_ids: ContextVar[Mapping[str, str]] = ContextVar("agentws_ids", default=MappingProxyType({}))


class _RefusedUpgrades(logging.Filter):
    """Keeps out what the WebSocket layer logs as an error for each refused upgrade: a stranger could fill the log."""

    def filter(self, record: logging.LogRecord) -> bool:
        return "without completing handshake" not in record.getMessage()


def configure(
    level: int | str = logging.INFO, *, form: Literal["text", "json"] = "text", worker: int | None = None
) -> None:
    """Sends all log lines of this process to standard error, also those of structlog's own loggers.

    Args:
        level: the least that is told of agentws; libraries are told from WARNING on.
        form: `text`, for people: what a user sent is escaped to one line, and tracebacks are indented; or `json`: an
            object a line.
        worker: this process's number among several, for each line to carry; None: it is alone.
    """
    handler = logging.StreamHandler(sys.stderr)
    render = _as_json if form == "json" else _as_text
    add_worker = partial(_add_worker, {} if worker is None else {"worker": worker})
    handler.setFormatter(
        ProcessorFormatter(processors=[ExtraAdder(_EXTRA), merge_contextvars, _add_ids, add_worker, render])
    )
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("agentws").setLevel(level)
    logging.getLogger("uvicorn.error").addFilter(_RefusedUpgrades())
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.PositionalArgumentsFormatter(),
            ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
    )


@contextmanager
def bound(**ids: str | None) -> Iterator[None]:
    """Lines logged in the block, and by tasks and threads begun in it, carry these ids and nothing bound before.

    Args:
        ids: name → id; ids only, no texts and no user. None: there is none.
    """
    token = _ids.set({name: value for name, value in ids.items() if value is not None})
    try:
        yield
    finally:
        _ids.reset(token)


Event = structlog.typing.EventDict


def _add_ids(logger: Any, method: str, event: Event) -> Event:
    # Last, so that no caller can put another run's id in their place.
    event.update(_ids.get())
    return event


def _add_worker(worker: Mapping[str, int], logger: Any, method: str, event: Event) -> Event:
    event.update(worker)
    return event


def _as_text(logger: Any, method: str, event: Event) -> str:
    record, message, raised, fields = _parts(event)
    at = datetime.fromtimestamp(record.created).isoformat(" ", "milliseconds").replace(".", ",")
    beside = " ".join(f"{name}={value}" for name, value in sorted(fields.items()))
    line = f"{at} {record.levelname:<7} {record.name}: {message}" + (f" [{beside}]" if beside else "")
    indented = ("    " + _escape(each) for each in raised.split("\n")) if raised else ()
    return "\n".join((_escape(line), *indented))


def _as_json(logger: Any, method: str, event: Event) -> str:
    record, message, raised, fields = _parts(event)
    line = {
        "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")[:23] + "Z",
        "level": record.levelname.lower(),
        "logger": record.name,
        "event": message,
    }
    if raised:
        line["exception"] = raised
    return json.dumps(line | {name: value for name, value in fields.items() if name not in line}, default=repr)


def _parts(event: Event) -> tuple[logging.LogRecord, str, str, dict[str, Any]]:
    """The record of a line, its text, the traceback that goes with it ("": none), and its fields."""
    fields = dict(event)
    record: logging.LogRecord = fields.pop("_record")
    del fields["_from_structlog"]
    raised = _traceback(fields.pop("exc_info", None))
    stack = fields.pop("stack_info", None)
    return record, str(fields.pop("event", "")), "\n".join(filter(None, (raised, stack))), fields


def _traceback(raised: Any) -> str:
    """The text of what logging and structlog take as `exc_info`."""
    if not raised:
        return ""
    if isinstance(raised, BaseException):
        error: BaseException | None = raised
    else:
        error = raised[1] if isinstance(raised, tuple) else sys.exc_info()[1]
    return "" if error is None else "".join(traceback.format_exception(error)).rstrip("\n")


def _escape(text: str) -> str:
    return _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
