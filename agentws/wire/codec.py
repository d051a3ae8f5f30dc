"""Bytes ↔ structs: the one JSON decoder for what clients send, and the one encoder for what they get.

`parse` reads the frame and its type; `decode` checks the rest in the order of section 3. Both raise Fault and nothing
else, whatever the text.
"""

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec

from agentws.wire.errors import Fault
from agentws.wire.ids import is_client_id, numbers_of
from agentws.wire.messages import (
    ALIASES,
    PLANNED,
    RESERVED,
    Authenticate,
    ClientMessage,
    CreateThread,
    DeleteThread,
    GetThreadHistory,
    HandshakeAcknowledged,
    Heartbeat,
    ListThreads,
    Ping,
    Start,
    StopAgent,
    Subscribe,
    SwitchThread,
    Unsubscribe,
    UpdateThread,
)

__all__ = [
    "BESIDE_PAYLOAD",
    "IF_BUSY",
    "MAX_PAGE",
    "MAX_REASON",
    "MAX_SEQ",
    "NOT_READ",
    "OF_A_THREAD",
    "ON_DISCONNECT",
    "TYPES",
    "Head",
    "Rejected",
    "clean",
    "decode",
    "encode",
    "encode_text",
    "load",
    "parse",
    "size_of",
    "timestamp",
    "timestamp_at",
]

MAX_DEPTH = 64
MAX_REASON = 1000
MAX_PAGE = 200
MAX_SEQ = (1 << 63) - 1
IF_BUSY = ("queue", "reject", "interrupt")
ON_DISCONNECT = ("continue", "stop")

TYPES: dict[str, type[ClientMessage]] = {
    "start_agent": Start,
    "user_message": Start,
    "chat": Start,
    "stop_agent": StopAgent,
    "subscribe": Subscribe,
    "unsubscribe": Unsubscribe,
    "create_thread": CreateThread,
    "update_thread": UpdateThread,
    "list_threads": ListThreads,
    "switch_thread": SwitchThread,
    "get_thread_history": GetThreadHistory,
    "delete_thread": DeleteThread,
    "authenticate": Authenticate,
    "handshake_acknowledged": HandshakeAcknowledged,
    "ping": Ping,
    "heartbeat": Heartbeat,
}
# Read beside a payload too; a name that both hold has to hold the same value.
BESIDE_PAYLOAD = ("type", "id", "thread_id", "user_id", "run_id", "idempotency_key")
OF_A_THREAD = (
    Subscribe,
    Unsubscribe,
    UpdateThread,
    SwitchThread,
    GetThreadHistory,
    DeleteThread,
    HandshakeAcknowledged,
)
# Fields of the struct that a type does not know.
NOT_READ = {
    "start_agent": ("message", "content", "text"),
    "user_message": ("user_request",),
    "chat": ("user_request",),
}
_AT_FIELD = re.compile(r"at `\$\.([A-Za-z_]+)")
_LONG_NUMBER = re.compile(r"[0-9]{19}")
_NAME = re.compile(r'"[ \t\r\n]*:')
_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")

_decode_json = msgspec.json.Decoder().decode


def _plain(value: Any) -> Any:
    """What a context holds in place of JSON objects, so that nobody can change it."""
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is no JSON value")


_encode_json = msgspec.json.Encoder(enc_hook=_plain).encode


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """A frame whose type is known: `id` is null where it has none or one of the wrong form."""

    type: str
    id: str | None
    deprecated: bool
    fields: dict[str, Any]


class Rejected(NamedTuple):
    """A frame that cannot be handled at all, and its `id` where it has one of the right form."""

    fault: Fault
    id: str | None


def parse(text: str, *, original: bool = False, default: str | None = None) -> Head | Rejected:
    """Reads a client's text frame as far as its type.

    Args:
        text: the frame.
        original: the connection speaks the original dialect, which has a type of its own (section 7).
        default: the type of a frame that names none.

    Returns:
        The head, or what is wrong with the frame itself: `invalid_json`, `not_an_object`, `missing_type`,
        `unknown_type`, `reserved_type`, `not_implemented`, or `validation_error` where the type is no text.
    """
    try:
        frame = load(text)
    except Fault as fault:
        return Rejected(fault, None)
    given = _either(frame, "id")
    known = given if isinstance(given, str) and is_client_id(given) else None
    kind = default if frame.get("type") is None else frame["type"]
    if kind is None:
        return Rejected(Fault("missing_type"), known)
    if not isinstance(kind, str):
        return Rejected(Fault("validation_error", "type"), known)
    name = ALIASES.get(kind, kind)
    if name not in TYPES or (name == "handshake_acknowledged" and not original):
        code = "reserved_type" if name in RESERVED else "not_implemented" if name in PLANNED else "unknown_type"
        return Rejected(Fault(code), known)
    return Head(type=name, id=known, deprecated=name != kind, fields=frame)


def load(text: str) -> dict[str, Any]:
    """Reads a JSON object that a client sent.

    Raises:
        Fault: `invalid_json`, `not_an_object`.
    """
    try:
        value = _decode_json(text)
        if "\\u0000" in text or text.count("[") + text.count("{") > MAX_DEPTH or _LONG_NUMBER.search(text):
            _check_sound(value, depth=1, has_nul=_NUL.search(text) is not None)
        # Text may hold what looks like a name, so that only a surplus is looked into.
        if len(_NAME.findall(text)) > _count_names(value):
            json.loads(text, object_pairs_hook=_refuse_twins)
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        raise Fault("invalid_json") from None
    if not isinstance(value, dict):
        raise Fault("not_an_object")
    return value


def decode(head: Head, user_id: str) -> ClientMessage:
    """Makes the message of a head that `parse` returned.

    Args:
        head: the frame.
        user_id: the authenticated user.

    Raises:
        Fault: the first check of section 3 that fails, up to "text and values".
    """
    if _either(head.fields, "id") is not None and head.id is None:
        raise Fault("validation_error", "id")
    fields, twice = _gather(head)
    for name in NOT_READ.get(head.type, ()):
        fields.pop(name, None)
    fields["type"] = head.type
    fields["id"] = head.id
    try:
        message = msgspec.convert(fields, TYPES[head.type])
    except msgspec.ValidationError as error:
        at = _AT_FIELD.search(str(error))
        raise Fault("validation_error", at[1] if at else "payload") from None
    if any(user not in (None, user_id) for user in (message.user_id, twice.get("user_id"))):
        raise Fault("identity_mismatch")
    for name in twice:
        raise Fault("ambiguous_thread") if name == "thread_id" else Fault("validation_error", name)
    return _check_values(message)


def _either(frame: dict[str, Any], name: str) -> Any:
    """A field at the top level, else in the payload; but for `ping`, whose payload is data."""
    value = frame.get(name)
    payload = frame.get("payload")
    if value is None and isinstance(payload, dict) and frame.get("type") != "ping":
        return payload.get(name)
    return value


def _gather(head: Head) -> tuple[dict[str, Any], dict[str, Any]]:
    """The fields of a frame with nulls left out, and those that stand at both levels with two values."""
    top = head.fields
    payload = top.get("payload")
    if head.type == "ping":
        # What a ping carries is data, whatever its names.
        if payload is None:
            payload = {name: value for name, value in top.items() if name not in ("type", "id", "payload")}
        return {"payload": payload, "user_id": top.get("user_id")}, {}
    if payload is None:
        return {name: value for name, value in top.items() if value is not None}, {}
    if not isinstance(payload, dict):
        raise Fault("validation_error", "payload")
    fields = {name: value for name, value in payload.items() if value is not None}
    twice = {}
    for name in BESIDE_PAYLOAD:
        beside = top.get(name)
        if beside is None:
            continue
        if not isinstance(beside, str):
            raise Fault("validation_error", name)
        if fields.setdefault(name, beside) != beside:
            twice[name] = beside
    return fields, twice


def _check_values(message: ClientMessage) -> ClientMessage:
    match message:
        case Start():
            message = _check_start(message)
        case StopAgent():
            if message.run_id is None and message.request_id is None and message.thread_id is None:
                raise Fault("validation_error", "run_id")
            if message.reason is not None and len(message.reason) > MAX_REASON:
                raise Fault("validation_error", "reason")
        case Subscribe() | SwitchThread():
            if message.after_seq is not None and not 0 <= message.after_seq <= MAX_SEQ:
                raise Fault("validation_error", "after_seq")
        case ListThreads() | GetThreadHistory():
            if not 1 <= message.limit <= MAX_PAGE:
                raise Fault("validation_error", "limit")
            if message.before is not None and numbers_of(message.before) is None:
                raise Fault("validation_error", "before")
        case Authenticate():
            if not message.token:
                raise Fault("validation_error", "token")
    if isinstance(message, OF_A_THREAD) and message.thread_id is None:
        raise Fault("validation_error", "thread_id")
    for name in ("thread_id", "run_id", "request_id", "idempotency_key"):
        value = getattr(message, name, None)
        if value is not None and not is_client_id(value):
            raise Fault("validation_error", name)
    return message


def _check_start(message: Start) -> Start:
    asked: tuple[str | None, ...] = (message.message, message.content, message.text)
    missing = "content"
    if message.type == "start_agent":
        asked, missing = (message.user_request,), "user_request"
    text = next((each for each in asked if each is not None and each.strip()), None)
    if text is None:
        raise Fault("validation_error", missing)
    for name, allowed in (("if_busy", IF_BUSY), ("on_disconnect", ON_DISCONNECT)):
        if getattr(message, name) not in allowed:
            raise Fault("validation_error", name)
    return msgspec.structs.replace(message, text=text)


def _count_names(value: Any) -> int:
    if isinstance(value, dict):
        return len(value) + sum(_count_names(each) for each in value.values() if isinstance(each, dict | list))
    if isinstance(value, list):
        return sum(_count_names(each) for each in value if isinstance(each, dict | list))
    return 0


def _refuse_twins(pairs: list[tuple[str, Any]]) -> None:
    if len({name for name, _ in pairs}) < len(pairs):
        raise Fault("invalid_json", text="The message holds the same name twice in one object.")


def _check_sound(value: Any, *, depth: int, has_nul: bool) -> None:
    """What JSON allows and PostgreSQL or 64 bits do not: NUL in text, larger integers, depth without end."""
    if isinstance(value, str):
        if has_nul and "\0" in value:
            raise Fault("invalid_json", text="The message holds a NUL character.")
    elif isinstance(value, int):
        if not -(1 << 63) <= value < 1 << 63:
            raise Fault("invalid_json", text="The message holds a number beyond 64 bits.")
    elif isinstance(value, dict | list):
        if depth > MAX_DEPTH:
            raise Fault("invalid_json", text="The message is nested too deeply.")
        parts = [*value, *value.values()] if isinstance(value, dict) else value
        for part in parts:
            _check_sound(part, depth=depth + 1, has_nul=has_nul)


def encode(value: Any) -> bytes:
    """JSON of a struct or of what an agent hands over.

    Raises:
        TypeError, ValueError: if it cannot be written as JSON.
    """
    return _encode_json(value)


def encode_text(value: Any) -> str:
    """As `encode`, as the text that a WebSocket frame or a column takes."""
    return _encode_json(value).decode()


def size_of(text: str) -> int:
    """How many bytes a frame is in UTF-8."""
    # Most are ASCII, and a text knows that of itself.
    return len(text) if text.isascii() else len(text.encode())


def clean(text: str) -> str:
    """What an agent wrote, with what neither UTF-8 nor PostgreSQL can hold replaced by U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")


def timestamp(at: datetime | None = None) -> str:
    """RFC 3339 in UTC with milliseconds and Z, of an aware time; of now where none is given."""
    return (at.astimezone(UTC) if at else datetime.now(UTC)).isoformat(timespec="milliseconds")[:23] + "Z"


def timestamp_at(seconds: float | None) -> str | None:
    """As `timestamp`, of a time in seconds since the epoch; None of None."""
    return None if seconds is None else timestamp(datetime.fromtimestamp(seconds, UTC))
