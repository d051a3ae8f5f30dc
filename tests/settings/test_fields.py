"""Every setting is told once, for people too; a secret is shown by nothing."""

import re
from typing import Any

import msgspec
import pytest

from agentws.settings import FIELDS, Settings, shown
from agentws.settings.profiles import PROFILES

from ..processes import ROOT

README = (ROOT / "README.md").read_text("utf-8")
NO_SETTINGS = {"AGENTWS_CONFIG", "AGENTWS_TOKEN"}


def row_of(name: str) -> tuple[list[str], list[str]]:
    """The variables and the defaults of the README's row that a setting stands in."""
    rows = [line for line in README.splitlines() if line.startswith("| `AGENTWS_")]
    (row,) = (row for row in rows if f"`{FIELDS[name].variable}`" in row.split("|")[1])
    variables, defaults = row.split("|")[1:3]
    return [each.strip(" `") for each in variables.split(",")], [each.strip(" `") for each in defaults.split(",")]


@pytest.mark.parametrize("name", FIELDS)
def test_every_setting_stands_in_the_readme_once_a_number_with_its_default(name: str) -> None:
    variables, defaults = row_of(name)
    if isinstance(FIELDS[name].default, int | float):
        assert float(defaults[variables.index(FIELDS[name].variable)]) == FIELDS[name].default


def test_every_variable_of_the_readme_is_known() -> None:
    known = {field.variable for field in FIELDS.values()} | NO_SETTINGS
    assert set(re.findall(r"AGENTWS_[A-Z_]+", README)) <= known


@pytest.mark.parametrize("name", FIELDS)
def test_every_setting_says_what_it_is_for(name: str) -> None:
    assert 10 < len(FIELDS[name].description) < 100
    units = {"_s": "s", "_ms": "ms", "_bytes": "bytes"}
    assert all(FIELDS[name].unit.endswith(unit) for suffix, unit in units.items() if name.endswith(suffix))


@pytest.mark.parametrize("env", PROFILES)
def test_what_is_not_given_takes_its_environment_s_default(env: str) -> None:
    made = msgspec.convert({"env": env}, Settings)
    assert {name: getattr(made, name) for name in PROFILES[made.env]} == PROFILES[made.env]
    assert msgspec.convert({"env": env, "page": not made.page}, Settings).page is not made.page


def test_an_environment_s_defaults_are_of_settings_that_have_no_other() -> None:
    assert {frozenset(profile) for profile in PROFILES.values()} == {
        frozenset({"page", "migrate_at_start", "log_format"})
    }
    assert all(FIELDS[name].default is None for name in PROFILES["production"])


SECRETS: list[tuple[str, Any, Any]] = [
    ("jwt_secret", "hidden", "***"),
    ("stats_token", "hidden", "***"),
    ("database_url", "postgresql://u:hidden@h/d", "postgresql://u:***@h/d"),
    ("migrate_url", "postgresql://u:hidden@h/d", "postgresql://u:***@h/d"),
    ("database_url", "hidden", "***"),
    ("database_url", {"url": "hidden"}, "***"),
    ("jwt_secret", None, None),
    ("jwt_secret", "", ""),
    ("port", 1, 1),
]


@pytest.mark.parametrize(("name", "value", "seen"), SECRETS)
def test_a_secret_is_not_shown(name: str, value: Any, seen: Any) -> None:
    assert shown(name, value) == seen


@pytest.mark.parametrize(("name", "value", "seen"), [each for each in SECRETS if isinstance(each[1], str)])
def test_the_text_of_settings_holds_no_secret(name: str, value: str, seen: str) -> None:
    text = f"{Settings(**{name: value})!r} {Settings(**{name: value})}"  # type: ignore[arg-type]
    assert "hidden" not in text
    assert f"{name}={seen!r}" in text
