"""From an HTTP request to the message that a frame with the same content would be, by the same checks."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import msgspec
from starlette.requests import ClientDisconnect, Request

from agentws.wire.codec import Head, Rejected, decode, parse
from agentws.wire.errors import Fault
from agentws.wire.ids import is_client_id
from agentws.wire.messages import STARTS, ClientMessage, Start, StopAgent

__all__ = ["TooLarge", "from_query", "read_head", "read_number", "read_start", "read_stop", "read_text"]

M = TypeVar("M", bound=ClientMessage)

_NUMBERS = ("limit", "after_seq")
_FLAGS = ("subagents",)
_LONGEST_NUMBER = 19


class TooLarge(Fault):
    """A body over `max_message_bytes`."""

    def __init__(self) -> None:
        super().__init__("validation_error", "body", text="The body is too large.")


async def read_text(request: Request, *, most: int) -> str:
    """The body as text.

    Args:
        most: how many bytes it may have; no more are taken.

    Raises:
        Fault: `invalid_json` if it is not UTF-8, or not all of it came; TooLarge.
    """
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > most:
                raise TooLarge
        return body.decode()
    except (UnicodeDecodeError, ClientDisconnect):
        raise Fault("invalid_json") from None


def read_head(text: str, *, default: str | None = None) -> Head:
    """The head of a frame that came as a body.

    Args:
        default: the type of one that names none; then an empty body is an empty frame.

    Raises:
        Fault: what is wrong with the frame itself.
    """
    head = parse(text if text or default is None else "{}", default=default)
    if isinstance(head, Rejected):
        raise head.fault
    return head


def read_stop(head: Head, user_id: str, *, run_id: str) -> StopAgent:
    """The stop in a body, of the run that the path names."""
    if head.type != "stop_agent":
        raise Fault("validation_error", "type")
    fields = head.fields if head.fields.get("run_id") is not None else {**head.fields, "run_id": run_id}
    message = decode(msgspec.structs.replace(head, fields=fields), user_id)
    if not isinstance(message, StopAgent) or message.run_id != run_id:
        raise Fault("validation_error", "run_id")
    return message


def read_start(head: Head, user_id: str, *, thread_id: str | None, key: str | None) -> Start:
    """The start in a body.

    Args:
        head: of the body.
        thread_id: the thread that the path names.
        key: the header `Idempotency-Key`.

    Raises:
        Fault: as for a frame; where the body and the path or the header differ, as where a frame says two things.
    """
    if head.type not in STARTS:
        raise Fault("validation_error", "type")
    message = decode(head, user_id)
    if not isinstance(message, Start):
        raise Fault("validation_error", "type")
    if key is not None:
        if not is_client_id(key) or message.idempotency_key not in (None, key):
            raise Fault("validation_error", "idempotency_key")
        message = msgspec.structs.replace(message, idempotency_key=key)
    if thread_id is not None:
        if not is_client_id(thread_id):
            raise Fault("validation_error", "thread_id")
        if message.thread_id not in (None, thread_id):
            raise Fault("ambiguous_thread")
        message = msgspec.structs.replace(message, thread_id=thread_id)
    return message


def from_query(
    struct: type[M], frame_type: str, user_id: str, query: Mapping[str, str], names: Sequence[str], **path: str
) -> M:
    """The message of a request without a body.

    Args:
        struct, frame_type: of the message.
        query: its parameters.
        names: those that are fields of the message; others are not looked at.
        path: the fields that its path names.
    """
    fields: dict[str, Any] = {name: _value(name, query[name]) for name in names if name in query}
    head = Head(type=frame_type, id=None, deprecated=False, fields={"type": frame_type, **fields, **path})
    message = decode(head, user_id)
    if not isinstance(message, struct):
        raise Fault("validation_error", "type")
    return message


def read_number(name: str, value: str) -> int:
    """The number of a parameter. Raises Fault."""
    if not value.isascii() or not value.isdigit() or len(value) > _LONGEST_NUMBER:
        raise Fault("validation_error", name)
    return int(value)


def _value(name: str, value: str) -> str | int | bool:
    """What a parameter says, as a frame would."""
    if name in _NUMBERS:
        return read_number(name, value)
    if name in _FLAGS:
        if value not in ("true", "false", "1", "0"):
            raise Fault("validation_error", name)
        return value in ("true", "1")
    return value
