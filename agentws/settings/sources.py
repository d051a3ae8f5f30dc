"""Where values come from: a file, the process's variables, the command line. Each value keeps its source.

What a file holds is typed by TOML; variables are text, of which numbers and truth values are read.
"""

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, get_args

from agentws.settings.fields import FIELDS, SettingsError
from agentws.settings.profiles import Environment

__all__ = ["CONFIG_VARIABLE", "File", "Given", "from_flags", "from_variables", "read_file", "unknown_variables"]

PREFIX = "AGENTWS_"
CONFIG_VARIABLE = "AGENTWS_CONFIG"
_OTHERS = (CONFIG_VARIABLE, "AGENTWS_TOKEN")  # the second is the client's
_ENVIRONMENTS: tuple[str, ...] = get_args(Environment)
# `env` holds the tables; beside them TOML leaves no room for a text of that name.
_ENVIRONMENT_KEY = "environment"


class Given(NamedTuple):
    """A value and where it came from; `typed` where its source has types, so that a text is never a number."""

    value: Any
    origin: str
    typed: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class File:
    """What a file says: for every environment, and for each."""

    top: Mapping[str, Given]
    tables: Mapping[str, Mapping[str, Given]]


def read_file(path: str, *, named_by: str) -> File:
    """Reads a TOML file of settings.

    Args:
        path: as it was given; it is the origin of its values.
        named_by: the flag or variable that named it.

    Raises:
        SettingsError: if it cannot be read, is no TOML, or has a key that is no setting.
    """
    try:
        content = tomllib.loads(Path(path).read_text("utf-8"))
    except OSError as error:
        raise SettingsError(f"{named_by}: {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SettingsError(f"{named_by}: {path} is not UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{named_by}: {path} is not TOML: {error}") from None
    tables = content.pop("env", {})
    environment = content.pop(_ENVIRONMENT_KEY, None)
    if not isinstance(tables, dict):
        if environment is not None:
            raise SettingsError(f"{path}: env and {_ENVIRONMENT_KEY} are the same; give one of them")
        environment, tables = tables, {}
    if environment is not None:
        content["env"] = environment
    by_environment: dict[str, Mapping[str, Given]] = {}
    for name, table in tables.items():
        origin = f"{path} [env.{name}]"
        if name not in _ENVIRONMENTS:
            raise SettingsError(f"{origin}: there is no environment {name!r}{_meant(name, _ENVIRONMENTS)}")
        if not isinstance(table, dict):
            raise SettingsError(f"{origin}: is no table; {_ENVIRONMENT_KEY} = {name!r} chooses an environment")
        if "env" in table:
            raise SettingsError(f"{origin}: env cannot be set in the table of an environment")
        by_environment[name] = _keys(table, origin)
    return File(top=_keys(content, path), tables=by_environment)


def from_variables(environ: Mapping[str, str]) -> dict[str, Given]:
    """What the variables give; an empty one gives nothing."""
    return {
        name: Given(environ[field.variable], field.variable, False)
        for name, field in FIELDS.items()
        if environ.get(field.variable)
    }


def from_flags(flags: Mapping[str, Any]) -> dict[str, Given]:
    """What the command line gives; None is not given.

    Raises:
        TypeError: if one is no setting.
    """
    if unknown := flags.keys() - FIELDS.keys():
        raise TypeError(f"there are no settings {sorted(unknown)}")
    return {name: Given(value, FIELDS[name].flag, False) for name, value in flags.items() if value is not None}


def unknown_variables(environ: Mapping[str, str]) -> Iterable[str]:
    """A warning for each variable that looks like a setting and is none."""
    known = {*_OTHERS, *(field.variable for field in FIELDS.values())}
    for name in sorted(environ):
        if name.startswith(PREFIX) and name not in known:
            # Without what all of them share, which would make any two look alike.
            near = _near(name.removeprefix(PREFIX), {each.removeprefix(PREFIX) for each in known})
            yield f"{name} is not a setting" + (f"; did you mean {PREFIX}{near}?" if near else "")


def _keys(table: Mapping[str, Any], origin: str) -> dict[str, Given]:
    for name in table:
        if name not in FIELDS:
            raise SettingsError(f"{origin}: there is no setting {name!r}{_meant(name, FIELDS)}")
    return {name: Given(value, origin, True) for name, value in table.items()}


def _meant(name: str, known: Iterable[str]) -> str:
    near = _near(name, known)
    return f"; did you mean {near}?" if near else ""


def _near(name: str, known: Iterable[str]) -> str | None:
    return next(iter(difflib.get_close_matches(name, sorted(known), n=1)), None)
