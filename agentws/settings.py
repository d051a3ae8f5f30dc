"""What can be set: defaults, then the environment's variables, then what the command line gave.

A value that cannot be used is an error that names the setting and where it came from.
"""

import ipaddress
import math
import os
from collections.abc import Callable, Mapping
from typing import Any, Literal

import msgspec
import platformdirs

__all__ = ["Settings", "SettingsError", "default_data_dir", "load"]

PREFIX = "AGENTWS_"
MIN_SECRET = 32  # RFC 7518, 3.2: a key of HS256 has at least the size of its hash


class SettingsError(ValueError):
    """A setting that cannot be used; the text names it and its source."""


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All settings, with their units in their names; AGENTWS_ and a name in capitals is its variable."""

    env: Literal["development", "test", "staging", "production"] = "development"
    host: str = "127.0.0.1"
    port: int = 8000
    database_url: str | None = None
    migrate_url: str | None = None
    data_dir: str | None = None
    auth: Literal["dev", "jwt"] | None = None
    jwt_secret: str | None = None
    user_claim: str = "sub"
    tenant_claim: str | None = None
    allowed_origins: str = ""
    stats_token: str | None = None
    force: str = ""
    lease_ttl_s: float = 15.0
    run_timeout_s: float = 300.0
    stop_grace_s: float = 10.0
    drain_grace_s: float = 10.0
    disconnect_grace_s: float = 30.0
    rate_limit_per_s: float = 20.0
    rate_limit_burst: int = 100
    max_connections: int = 10_000
    max_connections_per_user: int = 20
    max_subscriptions: int = 100
    max_threads_per_user: int = 10_000
    max_runs: int = 1000
    max_waiting_runs: int = 10_000
    max_runs_per_user: int = 50
    max_message_bytes: int = 1024 * 1024
    heartbeat_interval_s: float = 10.0
    piece_interval_ms: float = 40.0
    run_buffer_bytes: int = 1024 * 1024
    send_buffer_bytes: int = 1024 * 1024
    poll_interval_ms: float = 500.0
    pool_size: int = 12
    database_wait_s: float = 30.0
    database_timeout_s: float = 10.0
    demo_words_per_s: float = 30.0
    page: bool | None = None

    @property
    def forced(self) -> frozenset[str]:
        """The refusals that are lifted."""
        return frozenset(part.strip() for part in self.force.split(",") if part.strip())

    @property
    def origins(self) -> tuple[str, ...]:
        """The origins of the pages that may call; none: those of the host that is called."""
        return tuple(part.strip() for part in self.allowed_origins.split(",") if part.strip())


_POSITIVE = (
    "lease_ttl_s",
    "run_timeout_s",
    "heartbeat_interval_s",
    "max_message_bytes",
    "run_buffer_bytes",
    "send_buffer_bytes",
    "poll_interval_ms",
    "pool_size",
    "database_timeout_s",
)
_NOT_NEGATIVE = (
    "port",
    "stop_grace_s",
    "drain_grace_s",
    "disconnect_grace_s",
    "rate_limit_per_s",
    "rate_limit_burst",
    "max_connections",
    "max_connections_per_user",
    "max_subscriptions",
    "max_threads_per_user",
    "max_runs",
    "max_waiting_runs",
    "max_runs_per_user",
    "piece_interval_ms",
    "demo_words_per_s",
)
_FORCES = frozenset({"dev_auth", "weak_secret", "any_origin", "privileged_login", "embedded"})


def load(environ: Mapping[str, str] | None = None, **flags: Any) -> Settings:
    """The settings of this process.

    Args:
        environ: the variables; None: the process's own.
        flags: what the command line gave; None counts as not given.

    Raises:
        SettingsError: if a value cannot be used.
    """
    environ = os.environ if environ is None else environ
    if unknown := flags.keys() - set(Settings.__struct_fields__):
        raise TypeError(f"there are no settings {sorted(unknown)}")
    origins: dict[str, str] = {}
    values: dict[str, Any] = {}
    for field in msgspec.structs.fields(Settings):
        variable = PREFIX + field.name.upper()
        if environ.get(variable):
            values[field.name], origins[field.name] = environ[variable], variable
        if flags.get(field.name) is not None:
            flag = "--" + field.name.replace("_", "-")
            values[field.name], origins[field.name] = flags[field.name], flag
    for name, value in values.items():
        # One at a time, so that the error names the one.
        try:
            msgspec.convert({name: value}, Settings, strict=False)
        except msgspec.ValidationError as error:
            raise SettingsError(f"{origins[name]}: {name} cannot be {value!r}: {error}") from None
    settings = msgspec.convert(values, Settings, strict=False)
    if settings.auth is None:
        settings = msgspec.structs.replace(settings, auth="jwt" if settings.jwt_secret else "dev")
    _check(settings, origins)
    return settings


def default_data_dir() -> str:
    """Where the embedded PostgreSQL keeps its data where nothing else is said."""
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        return "/var/lib/agentws"
    return platformdirs.user_data_dir("agentws", appauthor=False)


def _check(settings: Settings, origins: Mapping[str, str]) -> None:
    def refuse(name: str, why: str) -> SettingsError:
        return SettingsError(f"{origins.get(name, 'default')}: {name} {why}")

    for name in _POSITIVE:
        if not 0 < getattr(settings, name) < math.inf:
            raise refuse(name, "has to be more than 0, and finite")
    for name in _NOT_NEGATIVE:
        if not 0 <= getattr(settings, name) < math.inf:
            raise refuse(name, "cannot be less than 0, and has to be finite")
    if settings.port > 65535:
        raise refuse("port", "cannot be more than 65535")
    if unknown := settings.forced - _FORCES:
        raise refuse("force", f"does not know {', '.join(sorted(unknown))}; it knows {', '.join(sorted(_FORCES))}")
    if settings.auth == "jwt" and not settings.jwt_secret:
        raise refuse("auth", "is 'jwt', which needs a jwt_secret")
    if settings.auth == "dev" and "dev_auth" not in settings.forced:
        if settings.env != "development":
            raise refuse("auth", f"cannot be 'dev' in {settings.env}; AGENTWS_FORCE=dev_auth lifts this")
        if not _is_loopback(settings.host):
            raise refuse("host", f"cannot be {settings.host} with auth 'dev'; AGENTWS_FORCE=dev_auth lifts this")
    if settings.env == "production":
        _check_production(settings, refuse)


def _check_production(settings: Settings, refuse: Callable[[str, str], SettingsError]) -> None:
    weak = settings.auth == "jwt" and len(settings.jwt_secret or "") < MIN_SECRET
    if weak and "weak_secret" not in settings.forced:
        why = f"has to have at least {MIN_SECRET} characters in production; AGENTWS_FORCE=weak_secret lifts this"
        raise refuse("jwt_secret", why)
    if settings.database_url in (None, "embedded") and "embedded" not in settings.forced:
        raise refuse("database_url", "has to be given in production; AGENTWS_FORCE=embedded lifts this")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
