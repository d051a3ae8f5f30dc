"""Which value counts: the last of defaults, the environment's defaults, the file, its table, variables, flags.

A value that cannot be used is an error that names the setting and where the value came from, and shows no secret.
"""

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import platformdirs

from agentws.settings.fields import FIELDS, Settings, shown
from agentws.settings.profiles import PROFILES
from agentws.settings.refusals import check, lifted, refusal
from agentws.settings.sources import (
    CONFIG_VARIABLE,
    File,
    Given,
    from_flags,
    from_variables,
    read_file,
    unknown_variables,
)
from agentws.settings.urls import fault_of

__all__ = ["Loaded", "default_data_dir", "load", "read"]

log = logging.getLogger("agentws.settings")

_DEFAULT = "default"


@dataclass(frozen=True, kw_only=True, slots=True)
class Loaded:
    """Settings, where each value came from, and what a person should be told of them."""

    settings: Settings
    origins: Mapping[str, str]
    unknown: tuple[str, ...]

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is lifted, and what looks like a setting and is none."""
        return (*self.unknown, *lifted(self.settings))


def load(environ: Mapping[str, str] | None = None, *, config: str | None = None, **flags: Any) -> Settings:
    """The settings of this process; variables that look like settings and are none are logged.

    Args:
        environ: the variables; None: the process's own.
        config: a TOML file; None: the one that AGENTWS_CONFIG names, if it does.
        flags: what goes before everything else, by the settings' names; None counts as not given.

    Raises:
        SettingsError: if a value cannot be used.
        TypeError: if a flag is no setting.
    """
    loaded = read(environ, config=config, **flags)
    for warning in loaded.unknown:
        log.warning("%s", warning)
    return loaded.settings


def read(environ: Mapping[str, str] | None = None, *, config: str | None = None, **flags: Any) -> Loaded:
    """As `load`, with the origin of each value, and nothing logged."""
    environ = os.environ if environ is None else environ
    above = from_variables(environ) | from_flags(flags)
    file = _file(environ, config)
    env = _environment(file, above)
    given = {**file.top, **file.tables.get(env, {}), **above}
    for name, each in given.items():
        _check_value(name, each)
    # Checked one by one above; here texts may be numbers, as those of variables are.
    settings = msgspec.convert({name: each.value for name, each in given.items()}, Settings, strict=False)
    origins = dict.fromkeys(FIELDS, _DEFAULT)
    origins |= dict.fromkeys(PROFILES[settings.env], f"{_DEFAULT} of {settings.env}")
    origins |= {name: each.origin for name, each in given.items()}
    check(settings, origins)
    return Loaded(settings=settings, origins=origins, unknown=tuple(unknown_variables(environ)))


def default_data_dir() -> str:
    """Where the embedded PostgreSQL keeps its data where nothing else is said."""
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        return "/var/lib/agentws"
    return platformdirs.user_data_dir("agentws", appauthor=False)


def _file(environ: Mapping[str, str], config: str | None) -> File:
    if config is not None:
        return read_file(config, named_by="--config")
    if path := environ.get(CONFIG_VARIABLE):
        return read_file(path, named_by=CONFIG_VARIABLE)
    return File(top={}, tables={})


def _environment(file: File, above: Mapping[str, Given]) -> str:
    given = above.get("env") or file.top.get("env")
    if given is None:
        return str(FIELDS["env"].default)
    _check_value("env", given)
    return str(given.value)


def _check_value(name: str, given: Given) -> None:
    """Refuses a value that its setting cannot have; one at a time, so that the error names the one."""
    try:
        msgspec.convert({name: given.value}, Settings, strict=given.typed)
    except msgspec.ValidationError as error:
        choices = FIELDS[name].choices
        why = f"it is one of {', '.join(choices)}" if choices else str(error).partition(" - at ")[0]
        value = shown(name, given.value)
        raise refusal(name, f"cannot be {value!r}: {why}", origin=given.origin) from None
    if FIELDS[name].is_url and (fault := fault_of(given.value)):
        raise refusal(name, fault, origin=given.origin)
