"""Who a request belongs to. A principal is made from checked credentials or from a row that the database gave, only."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Any

from agentws.wire.ids import ConnectionId, RunId, ThreadId, is_client_id

__all__ = ["Principal", "UserExecutionContext", "freeze"]

_NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Principal:
    """A user of a tenant; the tenant is "" where there is only one."""

    tenant_id: str
    user_id: str


@dataclass(frozen=True, kw_only=True, slots=True, weakref_slot=True)
class UserExecutionContext:
    """All that an agent may know of the request that it serves; it cannot be changed, nor can what it holds.

    Args:
        connection_id: the connection that sent the request, where this process holds it.
        created_at: when the request was accepted; aware, UTC.
        attempt: from 1; above 1 after a process was lost.
        depth: 0 for a request, 1 for a run that it started, and so on.
        context: what the client sent as `context`, read-only.
    """

    tenant_id: str
    user_id: str
    thread_id: ThreadId
    run_id: RunId
    request_id: str
    connection_id: ConnectionId | None
    created_at: datetime
    attempt: int = 1
    depth: int = 0
    root_run_id: RunId | None = None
    parent_run_id: RunId | None = None
    context: Mapping[str, Any] = field(default_factory=lambda: _NOTHING)

    def __post_init__(self) -> None:
        if not self.user_id or not is_client_id(self.thread_id) or not is_client_id(self.run_id):
            raise ValueError("a context needs a user, a thread and a run")


def freeze(value: Any) -> Any:
    """A JSON value that cannot be changed: mappings read-only, lists as tuples, all the way down."""
    if isinstance(value, dict):
        return MappingProxyType({name: freeze(each) for name, each in value.items()})
    if isinstance(value, list):
        return tuple(freeze(each) for each in value)
    return value
