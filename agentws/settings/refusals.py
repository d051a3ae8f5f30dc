"""What is refused although each value by itself could be used, and what lifts a refusal.

Which refusals are lifted is said at every start.
"""

import ipaddress
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from agentws.settings.fields import Settings, SettingsError
from agentws.settings.urls import EMBEDDED

__all__ = ["FORCES", "check", "lifted", "refusal"]

MIN_SECRET_BYTES = 32  # RFC 7518, 3.2: a key of HS256 has at least the size of its hash

FORCES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "dev_auth": "whoever can connect may be any user, without a password",
        "weak_secret": f"tokens may be signed with a secret of less than {MIN_SECRET_BYTES} bytes",
        "any_origin": "pages of any site may connect",
        "privileged_login": "the database login may bypass row-level security",
        "embedded": "the embedded PostgreSQL may be used in production",
    }
)
"""Each refusal that can be lifted, and what is then allowed."""


def check(settings: Settings, origins: Mapping[str, str]) -> None:
    """Refuses what does not go together.

    Args:
        origins: where the values came from, by name; one that is not in it is a default.

    Raises:
        SettingsError: naming the setting, its source, and what lifts the refusal where something does.
    """

    def refuse(name: str, why: str, *, force: str = "") -> SettingsError:
        return refusal(name, why, origin=origins.get(name, "default"), force=force)

    if unknown := settings.forced - FORCES.keys():
        raise refuse("force", f"does not know {', '.join(sorted(unknown))}; it knows {', '.join(sorted(FORCES))}")
    if settings.migrate_url == EMBEDDED:
        raise refuse("migrate_url", f"cannot be {EMBEDDED!r}, which is migrated when it is served")
    if settings.auth == "jwt" and not settings.jwt_secret:
        raise refuse("auth", "is 'jwt', which needs a jwt_secret")
    if settings.auth == "dev" and "dev_auth" not in settings.forced:
        if settings.env != "development":
            raise refuse("auth", f"cannot be 'dev' in {settings.env}", force="dev_auth")
        if not _is_loopback(settings.host):
            raise refuse("host", f"cannot be {settings.host} with auth 'dev'", force="dev_auth")
    if settings.env == "production":
        _check_production(settings, refuse)


def refusal(name: str, why: str, *, origin: str = "", force: str = "") -> SettingsError:
    """The error that a setting is refused with.

    Args:
        origin: where the value came from; "" where only the value is known.
        force: what lifts the refusal; "" where nothing does.
    """
    where = f"{origin}: " if origin else ""
    how = f"; AGENTWS_FORCE={force} lifts this" if force else ""
    return SettingsError(f"{where}{name} {why}{how}")


def lifted(settings: Settings) -> Sequence[str]:
    """A line for each refusal that is lifted, for the log of every start."""
    return [f"AGENTWS_FORCE lifts {name}: {FORCES[name]}" for name in sorted(settings.forced & FORCES.keys())]


def _check_production(settings: Settings, refuse: Callable[..., SettingsError]) -> None:
    forced = settings.forced
    size = len((settings.jwt_secret or "").encode(errors="surrogateescape"))
    if settings.auth == "jwt" and size < MIN_SECRET_BYTES and "weak_secret" not in forced:
        why = f"has to have at least {MIN_SECRET_BYTES} bytes in production"
        raise refuse("jwt_secret", why, force="weak_secret")
    if any(_is_anyone(origin) for origin in settings.origins) and "any_origin" not in forced:
        raise refuse("allowed_origins", "cannot hold a * for any host in production", force="any_origin")
    if settings.database_url in (None, EMBEDDED) and "embedded" not in forced:
        raise refuse("database_url", "has to be given in production", force="embedded")


def _is_anyone(origin: str) -> bool:
    """Whether an origin stands for every host: `*`, and also `https://*` or `https://*:8443`."""
    host = origin.rpartition("://")[2].partition(":")[0]
    return "*" in host and not host.strip("*./")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
