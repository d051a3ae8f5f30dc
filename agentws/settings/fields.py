"""What can be set: every setting once, with its type, bounds, unit, what it is for, and whether it is a secret.

Secrets are shown by nothing here: neither by a struct's text nor by an error.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal, get_args

import msgspec
from msgspec.structs import force_setattr

from agentws.settings.profiles import PROFILES, Environment
from agentws.settings.urls import MASK, masked

__all__ = ["FIELDS", "Field", "Settings", "SettingsError", "shown"]


_MOST = 10**9  # in seconds more than a process lives; so that "inf" is none of the numbers


class SettingsError(ValueError):
    """A setting that cannot be used; the text names it and its source."""


def _about(text: str, *, secret: bool = False, url: bool = False) -> msgspec.Meta:
    return msgspec.Meta(description=text, extra={"secret": secret, "url": url})


def _more_than_zero(text: str, unit: str) -> msgspec.Meta:
    return msgspec.Meta(description=text, extra={"unit": unit}, gt=0, le=_MOST)


def _from_zero(text: str, unit: str) -> msgspec.Meta:
    return msgspec.Meta(description=text, extra={"unit": unit}, ge=0, le=_MOST)


def _port(text: str) -> msgspec.Meta:
    return msgspec.Meta(description=text, extra={}, ge=0, le=65535)


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All settings; AGENTWS_ and a name in capitals is its variable. What is None takes its environment's default."""

    env: Annotated[Environment, _about("where this runs; sets other defaults")] = "development"
    host: Annotated[str, _about("address to listen on")] = "127.0.0.1"
    port: Annotated[int, _port("port to listen on; 0: a free one")] = 8000
    database_url: Annotated[
        str | None, _about("a PostgreSQL URL, or 'embedded', which is what none stands for", url=True)
    ] = None
    migrate_url: Annotated[str | None, _about("the URL to migrate with; none: the database URL", url=True)] = None
    migrate_at_start: Annotated[bool | None, _about("whether a start brings the schema to this version")] = None
    broker: Annotated[
        Literal["local", "postgres"] | None,
        _about("how processes hear of each other's events: by asking the database (local), or by its notifications"),
    ] = None
    workers: Annotated[int, _more_than_zero("processes that serve one port", "processes")] = 1
    data_dir: Annotated[
        str | None, _about("where the embedded PostgreSQL keeps its data; none: the user's data directory")
    ] = None
    auth: Annotated[
        Literal["dev", "jwt", "host"] | None,
        _about("who says who a user is: nobody (dev), tokens (jwt), the application that mounts this (host)"),
    ] = None
    jwt_secret: Annotated[str | None, _about("the secret that tokens are signed with (HS256)", secret=True)] = None
    user_claim: Annotated[str, _about("the token's claim that names the user")] = "sub"
    tenant_claim: Annotated[str | None, _about("the token's claim that names the tenant; none: one tenant")] = None
    allowed_origins: Annotated[
        str, _about("origins of pages that may connect, comma-separated, or *; none: the server's own host")
    ] = ""
    stats_token: Annotated[str | None, _about("the bearer token for /metrics and /api/stats", secret=True)] = None
    force: Annotated[str, _about("refusals to lift, comma-separated, with a warning at every start")] = ""
    lease_ttl_s: Annotated[
        float, _more_than_zero("without a sign for this long, a process loses its runs to another", "s")
    ] = 15.0
    restart_delay_s: Annotated[
        float, _from_zero("before a run whose process was lost starts again; four times as long before the next", "s")
    ] = 1.0
    run_timeout_s: Annotated[float, _more_than_zero("how long an attempt of a run may take", "s")] = 300.0
    stop_grace_s: Annotated[float, _from_zero("how long an agent that was stopped may take to end", "s")] = 10.0
    drain_grace_s: Annotated[float, _from_zero("how long runs may go on after SIGTERM", "s")] = 10.0
    disconnect_grace_s: Annotated[
        float, _from_zero("how long nobody may listen before a run with on_disconnect 'stop' is stopped", "s")
    ] = 30.0
    rate_limit_per_s: Annotated[float, _from_zero("frames of a user, on average; 0: no limit", "frames/s")] = 20.0
    rate_limit_burst: Annotated[int, _from_zero("frames of a user at once", "frames")] = 100
    max_connections: Annotated[int, _from_zero("of one process; 0: no limit", "connections")] = 10_000
    max_connections_per_user: Annotated[int, _from_zero("of one process; 0: no limit", "connections")] = 20
    max_subscriptions: Annotated[int, _from_zero("of one connection; 0: no limit", "subscriptions")] = 100
    max_threads_per_user: Annotated[int, _from_zero("in the database; 0: no limit", "threads")] = 10_000
    max_runs: Annotated[int, _from_zero("runs at work in one process; further ones wait", "runs")] = 1000
    max_waiting_runs: Annotated[int, _from_zero("runs that wait in the database; 0: no limit", "runs")] = 10_000
    max_runs_per_user: Annotated[int, _from_zero("runs that wait or run, of one user; 0: no limit", "runs")] = 50
    max_message_bytes: Annotated[int, _more_than_zero("the largest frame of a client", "bytes")] = 1024 * 1024
    heartbeat_interval_s: Annotated[
        float, _more_than_zero("how often a peer is pinged; one that missed two is closed", "s")
    ] = 10.0
    piece_interval_ms: Annotated[float, _from_zero("pieces of an answer within this time go as one", "ms")] = 40.0
    run_buffer_bytes: Annotated[
        int, _more_than_zero("what a run may have written while the database is away, before its agent waits", "bytes")
    ] = 1024 * 1024
    send_buffer_bytes: Annotated[
        int,
        _more_than_zero("what may wait for one connection before events are read from the database instead", "bytes"),
    ] = 1024 * 1024
    poll_interval_ms: Annotated[
        float, _more_than_zero("how often the database is asked for what other processes wrote (local)", "ms")
    ] = 500.0
    reconcile_interval_ms: Annotated[
        float, _more_than_zero("how often it is asked for what a lost notification would have told (postgres)", "ms")
    ] = 5000.0
    event_retention_days: Annotated[
        float, _from_zero("how long events are kept; messages stay; 0: for ever", "days")
    ] = 0.0
    pool_size: Annotated[int, _more_than_zero("connections to the database, of one process", "connections")] = 12
    database_wait_s: Annotated[float, _from_zero("how long a start waits for the database", "s")] = 30.0
    database_timeout_s: Annotated[float, _more_than_zero("how long a call to the database may take", "s")] = 10.0
    demo_words_per_s: Annotated[float, _from_zero("how fast the demo agent speaks; 0: at once", "words/s")] = 30.0
    page: Annotated[bool | None, _about("whether the page is served at /")] = None
    log_format: Annotated[Literal["text", "json"] | None, _about("lines for people, or JSON for programs")] = None
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], _about("the least that is logged of agentws")
    ] = "info"

    def __post_init__(self) -> None:
        for name, value in PROFILES[self.env].items():
            if getattr(self, name) is None:
                force_setattr(self, name, value)
        if self.auth is None:
            force_setattr(self, "auth", "jwt" if self.jwt_secret else "dev")
        if self.broker is None:
            force_setattr(self, "broker", "postgres" if self.workers > 1 else "local")

    def __repr__(self) -> str:
        values = ", ".join(f"{name}={shown(name, getattr(self, name))!r}" for name in self.__struct_fields__)
        return f"Settings({values})"

    @property
    def forced(self) -> frozenset[str]:
        """The refusals that are lifted."""
        return frozenset(_items(self.force))

    @property
    def origins(self) -> frozenset[str]:
        """The origins of the pages that may call; none: those of the host that is called."""
        return frozenset(_items(self.allowed_origins))


def _items(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


@dataclass(frozen=True, kw_only=True, slots=True)
class Field:
    """What is known of a setting before it has a value. `unit` is "" where there is none."""

    name: str
    default: Any
    description: str
    unit: str
    choices: tuple[str, ...]
    is_secret: bool
    is_url: bool

    @property
    def variable(self) -> str:
        """The name of its environment variable."""
        return "AGENTWS_" + self.name.upper()

    @property
    def flag(self) -> str:
        """How it is named on a command line."""
        return "--" + self.name.replace("_", "-")


def _field(info: msgspec.structs.FieldInfo) -> Field:
    kind, meta = get_args(info.type)
    choices = [each for part in (kind, *get_args(kind)) for each in get_args(part) if isinstance(each, str)]
    return Field(
        name=info.name,
        default=info.default,
        description=meta.description,
        unit=meta.extra.get("unit", ""),
        choices=tuple(dict.fromkeys(choices)),
        is_secret=meta.extra.get("secret", False),
        is_url=meta.extra.get("url", False),
    )


FIELDS: Final[Mapping[str, Field]] = MappingProxyType(
    {info.name: _field(info) for info in msgspec.structs.fields(Settings)}
)


def shown(name: str, value: Any) -> Any:
    """A value as it may be seen: a secret, and the password in a URL, are hidden."""
    field = FIELDS[name]
    if value is None or value == "":
        return value
    if field.is_secret:
        return MASK
    if field.is_url:
        return masked(value) if isinstance(value, str) else MASK
    return value
