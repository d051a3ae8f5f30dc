"""The catalogue of errors: every code that may reach a client, with its safe text, and the exceptions that carry one.

Fault                 what the user or the peer did; answered with its code, never logged as an error
└── Refusal           a limit or a state of this server; retryable, with a time

What the server itself does wrong is any other exception: answered `internal_error`, logged with a correlation id.
"""

from typing import Any, Final

import msgspec

__all__ = ["CATALOGUE", "AgentError", "Entry", "Fault", "Refusal"]


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the catalogue: `text` is safe for users, `status` the HTTP status that goes with it."""

    text: str
    retryable: bool = False
    status: int = 400


CATALOGUE: Final[dict[str, Entry]] = {
    "invalid_json": Entry(text="The message is not valid JSON."),
    "not_an_object": Entry(text="The message is not a JSON object."),
    "missing_type": Entry(text="The message has no type."),
    "unknown_type": Entry(text="This type of message is not known."),
    "reserved_type": Entry(text="Messages of this type are sent by the server only."),
    "unsupported_frame": Entry(text="Binary frames are not supported."),
    "not_implemented": Entry(text="This is not available yet."),
    "validation_error": Entry(text="A field is missing or not valid."),
    "ambiguous_thread": Entry(text="The message names two different threads."),
    "thread_not_found": Entry(text="There is no such thread.", status=404),
    "run_not_found": Entry(text="There is no such run.", status=404),
    "agent_not_found": Entry(text="There is no such agent.", status=404),
    "run_id_conflict": Entry(text="This run id is taken.", status=409),
    "idempotency_conflict": Entry(text="This idempotency key was used for another request.", status=409),
    "identity_mismatch": Entry(text="The message names another user.", status=403),
    "unauthorized": Entry(text="Please sign in.", status=401),
    "forbidden_origin": Entry(text="This page may not connect here.", status=403),
    "token_expired": Entry(text="Your session has expired. Please sign in again.", status=401),
    "thread_busy": Entry(text="This thread is busy. Please try again.", retryable=True, status=409),
    "rate_limited": Entry(text="Too many messages. Please try again in a moment.", retryable=True, status=429),
    "overloaded": Entry(text="The server is busy. Please try again in a moment.", retryable=True, status=503),
    "too_many_runs": Entry(text="Too many runs at once. Please try again later.", retryable=True, status=429),
    "too_many_subscriptions": Entry(text="Too many subscriptions on this connection.", retryable=True, status=429),
    "too_many_threads": Entry(text="Too many threads.", retryable=True, status=429),
    "draining": Entry(text="The server is restarting. Please try again in a moment.", retryable=True, status=503),
    "database_unavailable": Entry(text="The database cannot be reached. Please try again.", retryable=True, status=503),
    "agent_timeout": Entry(text="The agent took too long. Please try again.", retryable=True),
    "agent_failed": Entry(text="The agent failed. Please try again.", retryable=True),
    "worker_lost": Entry(text="The server that ran this was lost. Please try again.", retryable=True),
    "tool_failed": Entry(text="The tool failed."),
    "tool_timeout": Entry(text="The tool took too long."),
    "tool_stopped": Entry(text="The tool was stopped."),
    "tool_too_large": Entry(text="The tool's result is too large."),
    "internal_error": Entry(text="Something went wrong. Please try again.", retryable=True, status=500),
}


class Fault(Exception):
    """A request that cannot be served, with the code that says why.

    Args:
        code: a code of the catalogue.
        field: the field at fault; becomes `details.field`.
        text: a safe text in place of the catalogue's.
    """

    def __init__(self, code: str, field: str | None = None, *, text: str | None = None) -> None:
        super().__init__(code)
        self.code = code
        self.text = text or CATALOGUE[code].text
        self.details: dict[str, Any] | None = {"field": field} if field is not None else None
        self.retry_after_ms: int | None = None


class Refusal(Fault):
    """A fault that goes away by itself; `retry_after_ms` says when to try again."""

    def __init__(self, code: str, *, retry_after_ms: int) -> None:
        super().__init__(code)
        self.retry_after_ms = retry_after_ms


class AgentError(Exception):
    """Raised by an agent to end its run in `agent_error` with a code of its own.

    Args:
        code: what went wrong, for programs: `model_unavailable`.
        message: what went wrong, for the user; it is shown as it is.
        retryable: whether the same request may succeed later.
    """

    def __init__(self, code: str, message: str, *, retryable: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.retryable = retryable
