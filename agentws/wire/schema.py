"""The protocol as JSON Schema (draft 2020-12), made from the structs that decode and encode its frames.

Each frame that the server sends is valid, and each client frame that `codec` takes. What compares two values, or needs
the connection or its user to be known, is not in it.
"""

from collections.abc import Mapping
from typing import Any, Final, TypeAlias, get_args

import msgspec

from agentws.wire.answers import ServerMessage
from agentws.wire.codec import (
    BESIDE_PAYLOAD,
    IF_BUSY,
    MAX_PAGE,
    MAX_REASON,
    MAX_SEQ,
    NOT_READ,
    OF_A_THREAD,
    ON_DISCONNECT,
    TYPES,
)
from agentws.wire.errors import CATALOGUE
from agentws.wire.events import (
    AgentCompleted,
    AgentError,
    AgentEvent,
    AgentMessage,
    AgentQueued,
    AgentStarted,
    AgentStopped,
    AgentThinking,
    EventType,
    RunEvent,
    ToolCompleted,
    ToolEvent,
    ToolExecuting,
    ToolProgress,
    ToolResult,
)
from agentws.wire.ids import CLIENT_ID
from agentws.wire.messages import ALIASES, PLANNED, RESERVED, Authenticate, ClientMessage, StopAgent

__all__ = ["protocol_schema"]

Schema: TypeAlias = dict[str, Any]

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_REF = "#/$defs/{name}"
_NULL: Final[Schema] = {"type": "null"}
_TEXT: Final[Schema] = {"type": "string"}

_EVENTS: Final[dict[EventType, tuple[type[RunEvent], type[msgspec.Struct]]]] = {
    EventType.AGENT_QUEUED: (RunEvent, AgentQueued),
    EventType.AGENT_STARTED: (RunEvent, AgentStarted),
    EventType.AGENT_THINKING: (RunEvent, AgentThinking),
    EventType.TOOL_EXECUTING: (ToolEvent, ToolExecuting),
    EventType.TOOL_COMPLETED: (ToolResult, ToolCompleted),
    EventType.TOOL_PROGRESS: (ToolEvent, ToolProgress),
    EventType.AGENT_MESSAGE: (RunEvent, AgentMessage),
    EventType.AGENT_EVENT: (RunEvent, AgentEvent),
    EventType.AGENT_COMPLETED: (RunEvent, AgentCompleted),
    EventType.AGENT_ERROR: (RunEvent, AgentError),
    EventType.AGENT_STOPPED: (RunEvent, AgentStopped),
}

_SHARED: Final[dict[str, Schema]] = {
    "Id": {
        "title": "Id",
        "description": "What clients may name threads, runs and frames, and what the server names them.",
        "type": "string",
        "pattern": f"^{CLIENT_ID.pattern}$",
    },
    "UserId": {
        "title": "UserId",
        "description": "Any text without control characters.",
        "type": "string",
        "minLength": 1,
        "maxLength": 255,
    },
    "Timestamp": {
        "title": "Timestamp",
        "description": "RFC 3339, in UTC with milliseconds and Z.",
        "type": "string",
        "format": "date-time",
        "pattern": r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z$",
    },
}

# What the protocol asks of values beyond their types, by the name of their field.
_ID: Final[Schema] = {"$ref": _REF.format(name="Id")}
_USER_ID: Final[Schema] = {"$ref": _REF.format(name="UserId")}
_TIME: Final[Schema] = {"$ref": _REF.format(name="Timestamp")}
_FROM_0: Final[Schema] = {"minimum": 0}
_FROM_1: Final[Schema] = {"minimum": 1}
_IN_CLIENT_FRAMES: Final[dict[str, Schema]] = {
    **dict.fromkeys(("id", "thread_id", "run_id", "request_id", "idempotency_key"), _ID),
    "user_id": _USER_ID,
    "if_busy": {"enum": list(IF_BUSY)},
    "on_disconnect": {"enum": list(ON_DISCONNECT)},
    "after_seq": {"minimum": 0, "maximum": MAX_SEQ},
    "limit": {"minimum": 1, "maximum": MAX_PAGE},
    "reason": {"maxLength": MAX_REASON},
}
_IN_SERVER_FRAMES: Final[dict[str, Schema]] = {
    **dict.fromkeys(("id", "thread_id", "run_id", "request_id", "running_run_id", "run_ids", "already_ended"), _ID),
    **dict.fromkeys(("timestamp", "created_at", "updated_at", "expires_at"), _TIME),
    "user_id": _USER_ID,
    "metadata": {"type": "object"},
    "progress": {"minimum": 0, "maximum": 1},
    **dict.fromkeys(("seq", "first_seq", "last_seq", "after_seq", "resume_after", "position"), _FROM_0),
    **dict.fromkeys(("offset", "duration_ms", "retry_after_ms", "heartbeat_interval_s"), _FROM_0),
    **dict.fromkeys(("from_seq", "attempt", "step"), _FROM_1),
    # These of one struct only.
    **dict.fromkeys(("RunEvent.seq", "ToolEvent.seq", "ToolResult.seq", "AgentQueued.position"), _FROM_1),
}


def protocol_schema() -> dict[str, Any]:
    """The JSON Schema of every frame of version 1 that is served.

    Returns:
        A schema that takes any frame of either side. Its `$defs` name each client frame (`client.…`), each answer
        (`server.…`), each run event (`event.…`), the payloads (`payload.…`) and the unions `ClientFrame` and
        `ServerFrame`. `x-errors` is the catalogue of errors, `x-reserved` are the types whose names are taken. It is
        the same at each call, and the caller's own.
    """
    taken = {kind: f"client.{ALIASES.get(kind, kind)}" for kind in (*TYPES, *ALIASES)}
    answers = {_tag(struct): f"server.{_tag(struct)}" for struct in get_args(ServerMessage)}
    sent = answers | {str(kind): f"event.{kind}" for kind in _EVENTS}
    definitions = {
        "ClientFrame": _union("What a client sends; a field that is null counts as absent.", taken),
        "ServerFrame": _union("What the server sends. Ignore a frame whose type is not among these.", sent),
    }
    for kind, client in TYPES.items():
        definitions |= _client_frame(kind, client)
    for answer in get_args(ServerMessage):
        definitions |= _answer(answer)
    for event in _EVENTS:
        definitions |= _event(event)
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "agentws wire protocol, version 1",
        "description": "A frame of either side. Ignore fields that are not named here: later versions of 1 add some.",
        "anyOf": [_ref("ClientFrame"), _ref("ServerFrame")],
        "$defs": definitions | _SHARED,
        "x-errors": CATALOGUE,
        "x-reserved": sorted((PLANNED | RESERVED) - sent.keys()),
    }
    # The catalogue's entries become objects; and nothing of this module's is handed out.
    plain: dict[str, Any] = msgspec.to_builtins(schema)
    return plain


def _ref(name: str) -> Schema:
    return {"$ref": _REF.format(name=name)}


def _tag(struct: type[msgspec.Struct]) -> str:
    return str(struct.__struct_config__.tag)


def _union(description: str, names: Mapping[str, str]) -> Schema:
    """Any of the frames; `names` is type → definition."""
    mapping = {kind: _REF.format(name=name) for kind, name in names.items()}
    return {
        "description": description,
        "oneOf": [_ref(name) for name in dict.fromkeys(names.values())],
        "discriminator": {"propertyName": "type", "mapping": mapping},
    }


def _describe(struct: type[msgspec.Struct], values: Mapping[str, Schema]) -> tuple[Schema, dict[str, Schema]]:
    """The schema of a struct, and the definitions that it refers to.

    Args:
        values: by the name of a field, alone or after its struct's, what is asked of its value beyond the type.
    """
    _, found = msgspec.json.schema_components([struct], ref_template=_REF)
    for holder, schema in found.items():
        if "description" in schema:
            schema["description"] = " ".join(schema["description"].split())
        if "properties" in schema:
            schema["properties"] = {
                name: _narrow(each, values.get(f"{holder}.{name}", values.get(name, {})))
                for name, each in schema["properties"].items()
            }
    own = found.pop(struct.__name__)
    return own, found


def _narrow(schema: Schema, keywords: Schema) -> Schema:
    """What a field may be, with what is asked of its value; of a list, of each item; of one that may be null, else."""
    if "anyOf" in schema:
        value, *null = schema["anyOf"]
        return {**schema, "anyOf": [_narrow(value, keywords), *null]}
    if schema.get("type") == "array" and "items" in schema:
        return {**schema, "items": _narrow(schema["items"], keywords)}
    if not keywords or schema == _NULL:
        return schema
    return dict(keywords) if "$ref" in keywords else {**schema, **keywords}


# What clients send


def _client_frame(kind: str, struct: type[ClientMessage]) -> dict[str, Schema]:
    """A type's frame, and its payload where that is no mere data."""
    aliases = [alias for alias, name in ALIASES.items() if name == kind]
    own, _ = _describe(struct, _IN_CLIENT_FRAMES)
    fields = {name: _or_null(each) for name, each in own["properties"].items() if name not in NOT_READ.get(kind, ())}
    frame = {
        "title": kind,
        "description": own["description"],
        "type": "object",
        "properties": {
            "type": {"enum": [kind, *aliases], "x-deprecated": aliases} if aliases else {"const": kind},
            "id": fields["id"],
            "user_id": fields["user_id"],
        },
        "required": ["type"],
    }
    if "payload" in fields:
        # It is data, and so is every other field.
        frame["properties"]["payload"] = fields["payload"]
        return {f"client.{kind}": frame}
    name = f"payload.{kind}"
    needs = _needs(kind, struct)
    beside = [each for needed, each in needs.items() if needed in BESIDE_PAYLOAD]
    inside = [{"properties": {"payload": each}} for each in needs.values()]
    top = {field: fields.get(field, _or_null(_TEXT)) for field in BESIDE_PAYLOAD if field not in frame["properties"]}
    flat = {"title": "fields beside the type", **_ref(name), "properties": {"payload": _NULL}}
    nested = {
        "title": "fields in the payload",
        "properties": {"payload": _ref(name), **top},
        "required": ["payload"],
    }
    payload = {
        "title": f"payload of {kind}",
        "type": "object",
        "properties": {**fields, "type": {"enum": [kind, *aliases, None]}},
    }
    if beside:
        frame["oneOf"] = [_with(flat, list(needs.values())), _with(nested, [*inside, *beside])]
    else:
        frame["oneOf"] = [flat, nested]
        payload = _with(payload, list(needs.values()))
    return {f"client.{kind}": frame, name: payload}


def _needs(kind: str, struct: type[ClientMessage]) -> dict[str, Schema]:
    """Fields one of which a frame has to have, each with what says that it is there."""
    filled: Schema = {}
    if kind == "start_agent":
        names, filled = ["user_request"], {"pattern": r"\S"}
    elif kind in ("user_message", "chat"):
        names, filled = ["message", "content", "text"], {"pattern": r"\S"}
    elif struct is StopAgent:
        names = ["run_id", "request_id", "thread_id"]
    elif struct is Authenticate:
        names, filled = ["token"], {"minLength": 1}
    else:
        names = ["thread_id"] if issubclass(struct, OF_A_THREAD) else []
    return {name: {"properties": {name: {**_TEXT, **filled}}, "required": [name]} for name in names}


def _with(schema: Schema, needs: list[Schema]) -> Schema:
    """A schema that asks for one of some fields too."""
    match needs:
        case []:
            return schema
        case [{"properties": properties, "required": required}]:
            both = {**schema["properties"], **properties}
            return {**schema, "properties": both, "required": [*schema.get("required", ()), *required]}
        case _:
            return {**schema, "anyOf": needs}


def _or_null(schema: Schema) -> Schema:
    """A field of a client, where null counts as absent: it is null, or what it may be."""
    value = {name: each for name, each in schema.items() if name != "default"}
    if value and "anyOf" not in value:
        value = {"anyOf": [value, _NULL]}
    return value if schema.get("default") is None else {**value, "default": schema["default"]}


# What the server sends


def _sent(struct: type[msgspec.Struct]) -> tuple[Schema, dict[str, Schema]]:
    """As `_describe`; all fields are there, but those that may be unset."""
    own, others = _describe(struct, _IN_SERVER_FRAMES)
    unset = {field.encode_name for field in msgspec.structs.fields(struct) if field.default is msgspec.UNSET}
    own["required"] = [name for name in own["properties"] if name not in unset]
    for each in own["properties"].values():
        each.pop("default", None)
    return own, others


def _answer(struct: type[msgspec.Struct]) -> dict[str, Schema]:
    kind = _tag(struct)
    own, others = _sent(struct)
    own |= {"title": kind}
    own["properties"]["type"] = {"const": kind}
    if kind == "error":
        # Not an enum: later versions of 1 add codes.
        own["properties"]["code"]["examples"] = list(CATALOGUE)
    return {f"server.{kind}": own, **others}


def _event(kind: EventType) -> dict[str, Schema]:
    """A run event's frame, and its payload."""
    frame, payload = _EVENTS[kind]
    own, _ = _sent(frame)
    inside, others = _sent(payload)
    own |= {"title": str(kind), "description": inside.pop("description")}
    inside |= {"title": f"payload of {kind}"}
    own["properties"] |= {
        "type": {"const": str(kind)},
        "payload": _ref(f"payload.{kind}"),
    }
    return {f"event.{kind}": own, f"payload.{kind}": inside, **others}
