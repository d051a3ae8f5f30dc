"""What can be set: where a value comes from, what is refused, and that the refusal names the setting and its source."""

import os
from pathlib import Path
from typing import Any

import pytest

from agentws.settings import Settings, SettingsError, default_data_dir, load, read

SECRET = "s" * 32
REAL = {"AGENTWS_DATABASE_URL": "postgresql://u@h/d"}


def refused(environ: dict[str, str], **flags: Any) -> str:
    with pytest.raises(SettingsError) as caught:
        load(environ, **flags)
    return str(caught.value)


DEFAULTS = {
    "env": "development",
    "host": "127.0.0.1",
    "port": 8000,
    "database_url": None,
    "auth": "dev",
    "user_claim": "sub",
    "tenant_claim": None,
    "lease_ttl_s": 15.0,
    "run_timeout_s": 300.0,
    "max_runs": 1000,
    "max_message_bytes": 1024 * 1024,
    "heartbeat_interval_s": 10.0,
    "piece_interval_ms": 40.0,
    "run_buffer_bytes": 1024 * 1024,
    "poll_interval_ms": 500.0,
    "demo_words_per_s": 30.0,
}


@pytest.mark.parametrize(("name", "value"), DEFAULTS.items())
def test_a_setting_has_the_default_that_the_design_gives_it(name: str, value: object) -> None:
    assert getattr(load({}), name) == value


GIVEN: list[tuple[str, str, object]] = [
    ("host", "::1", "::1"),
    ("port", "0", 0),
    ("env", "development", "development"),
    ("lease_ttl_s", "2", 2.0),
    ("lease_ttl_s", "0.5", 0.5),
    ("max_runs", "0", 0),
    ("demo_words_per_s", "0", 0.0),
    ("database_url", "postgresql://u:p@h/d", "postgresql://u:p@h/d"),
    ("database_url", "embedded", "embedded"),
    ("page", "true", True),
    ("page", "0", False),
    ("user_claim", "uid", "uid"),
]


@pytest.mark.parametrize(("name", "text", "value"), GIVEN)
def test_a_variable_gives_a_setting_its_value(name: str, text: str, value: object) -> None:
    assert getattr(load({f"AGENTWS_{name.upper()}": text}), name) == value


@pytest.mark.parametrize(
    ("name", "value"), [("port", 9000), ("page", False), ("lease_ttl_s", 2.0), ("env", "development"), ("max_runs", 0)]
)
def test_a_flag_comes_before_a_variable(name: str, value: Any) -> None:
    variable = {"port": "1", "page": "true", "lease_ttl_s": "9", "env": "production", "max_runs": "7"}[name]
    assert getattr(load({f"AGENTWS_{name.upper()}": variable}, **{name: value}), name) == value


def test_a_flag_that_was_not_given_leaves_the_variable() -> None:
    assert load({"AGENTWS_PORT": "9000"}, port=None).port == 9000


def test_an_empty_variable_counts_as_not_given() -> None:
    assert load({"AGENTWS_PORT": "", "AGENTWS_JWT_SECRET": ""}) == load({})


def test_variables_of_others_are_not_read() -> None:
    assert load({"PORT": "1", "agentws_port": "1", "AGENTWS_COLOUR": "red"}) == load({})


def test_without_a_mapping_the_process_own_variables_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTWS_PORT", "9123")
    assert load().port == 9123


WRONG = [
    ("port", "eight"),
    ("port", "-1"),
    ("env", "prod"),
    ("auth", "basic"),
    ("page", "maybe"),
    ("max_runs", "-1"),
    ("max_runs", "1.5"),
    ("stop_grace_s", "-0.1"),
    ("drain_grace_s", "-1"),
    ("piece_interval_ms", "-1"),
    ("demo_words_per_s", "-1"),
    ("force", "everything"),
    *(
        (name, value)
        for name in (
            *("lease_ttl_s", "run_timeout_s", "heartbeat_interval_s", "max_message_bytes", "run_buffer_bytes"),
            *("send_buffer_bytes", "poll_interval_ms", "pool_size", "database_timeout_s"),
        )
        for value in ("0", "-1", "x")
    ),
]


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_a_value_that_cannot_be_used_names_its_setting_and_its_variable(name: str, value: str) -> None:
    text = refused({f"AGENTWS_{name.upper()}": value})
    assert text.startswith(f"AGENTWS_{name.upper()}: {name} ")


@pytest.mark.parametrize(("name", "value"), [("port", "eight"), ("lease_ttl_s", 0), ("drain_grace_s", -1)])
def test_a_flag_that_cannot_be_used_is_named_as_a_flag(name: str, value: object) -> None:
    text = refused({f"AGENTWS_{name.upper()}": "5"}, **{name: value})
    assert text.startswith(f"--{name.replace('_', '-')}: {name} ")


@pytest.mark.parametrize("secret", [None, SECRET])
def test_tokens_are_wanted_where_there_is_a_secret(secret: str | None) -> None:
    assert load({}, jwt_secret=secret).auth == ("jwt" if secret else "dev")


def test_dev_auth_may_be_asked_for_beside_a_secret() -> None:
    assert load({"AGENTWS_AUTH": "dev", "AGENTWS_JWT_SECRET": SECRET}).auth == "dev"


def test_jwt_auth_needs_a_secret() -> None:
    assert "jwt_secret" in refused({"AGENTWS_AUTH": "jwt"})


@pytest.mark.parametrize("name", ["port", "stop_grace_s", "lease_ttl_s", "run_timeout_s"])
@pytest.mark.parametrize("text", ["70000000000", "nan", "inf", "-1"])
def test_numbers_that_make_no_sense_are_refused(name: str, text: str) -> None:
    if text != "70000000000" or name == "port":
        assert name in refused({f"AGENTWS_{name.upper()}": text})


def test_a_flag_that_is_no_setting_is_a_mistake_of_the_program() -> None:
    with pytest.raises(TypeError, match="nonsense"):
        load({}, nonsense=3)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_dev_auth_may_listen_on_a_loopback_address(host: str) -> None:
    assert load({"AGENTWS_HOST": host}).host == host


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "example.org", "localhost.example.org"])
def test_dev_auth_is_refused_on_any_other_address(host: str) -> None:
    assert refused({"AGENTWS_HOST": host}).startswith("AGENTWS_HOST: host ")
    assert refused({}, host=host).startswith("--host: host ")
    assert load({"AGENTWS_HOST": host, "AGENTWS_FORCE": "dev_auth"}).host == host


@pytest.mark.parametrize("env", ["development", "test", "staging", "production"])
def test_tokens_may_be_taken_anywhere(env: str) -> None:
    loaded = load({"AGENTWS_ENV": env, "AGENTWS_HOST": "0.0.0.0", "AGENTWS_JWT_SECRET": SECRET, **REAL})
    assert (loaded.env, loaded.auth) == (env, "jwt")


@pytest.mark.parametrize(
    ("text", "forced"),
    [("", set()), ("dev_auth", {"dev_auth"}), (" dev_auth , ,weak_secret,", {"dev_auth", "weak_secret"})],
)
def test_what_is_forced_is_a_list(text: str, forced: set[str]) -> None:
    assert load({"AGENTWS_FORCE": text}).forced == forced


@pytest.mark.parametrize("name", ["dev_auth", "weak_secret", "any_origin", "privileged_login", "embedded"])
def test_each_refusal_of_the_design_can_be_forced(name: str) -> None:
    assert load({"AGENTWS_FORCE": name}).forced == {name}


def test_an_unknown_force_is_named_beside_the_known_ones() -> None:
    text = refused({"AGENTWS_FORCE": "dev_auth,everything"})
    assert "everything" in text
    assert "weak_secret" in text


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        setattr(Settings(), "port", 1)  # noqa: B010


@pytest.mark.parametrize(("uid", "is_systems"), [(0, True), (1000, False)])
def test_the_data_are_roots_own_or_the_users(uid: int, is_systems: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    directory = default_data_dir()
    assert os.path.isabs(directory)
    assert (directory == "/var/lib/agentws") == is_systems
    assert directory.endswith("agentws")


FILE = """
environment = "staging"
pool_size = 2
lease_ttl_s = 20
host = "::1"
port = 1

[env.staging]
lease_ttl_s = 30
host = "127.0.0.2"
port = 2

[env.production]
lease_ttl_s = 40
"""


@pytest.fixture
def path(tmp_path: Path) -> str:
    place = tmp_path / "agentws.toml"
    place.write_text(FILE + f"[env.test]\njwt_secret = '{SECRET}'")
    return str(place)


def test_each_value_is_of_the_last_source_that_gave_it_and_says_which(path: str) -> None:
    environ = {"AGENTWS_HOST": "127.0.0.3", "AGENTWS_PORT": "3", "AGENTWS_JWT_SECRET": SECRET}
    loaded = read(environ, config=path, port=4)
    expected: dict[str, tuple[object, str]] = {
        "max_runs": (1000, "default"),
        "log_format": ("json", "default of staging"),
        "env": ("staging", path),
        "pool_size": (2, path),
        "lease_ttl_s": (30.0, f"{path} [env.staging]"),
        "host": ("127.0.0.3", "AGENTWS_HOST"),
        "port": (4, "--port"),
    }
    assert {name: (getattr(loaded.settings, name), loaded.origins[name]) for name in expected} == expected
    assert set(loaded.origins) == set(Settings.__struct_fields__)


@pytest.mark.parametrize(
    ("environ", "flags", "lease_ttl_s"),
    [
        ({}, {}, 30.0),
        ({"AGENTWS_ENV": "production"}, {}, 40.0),
        ({"AGENTWS_ENV": "production"}, {"env": "development"}, 20.0),
    ],
)
def test_the_table_is_of_the_environment_that_counts(
    path: str, environ: dict[str, str], flags: dict[str, str], lease_ttl_s: float
) -> None:
    given = {"AGENTWS_JWT_SECRET": SECRET, "AGENTWS_DATABASE_URL": "postgresql://u@h/d"}
    assert load(given | environ, config=path, **flags).lease_ttl_s == lease_ttl_s


def test_a_file_may_be_named_by_a_variable_and_a_flag_goes_before_it(path: str, tmp_path: Path) -> None:
    named = {"AGENTWS_CONFIG": path, "AGENTWS_JWT_SECRET": SECRET}
    assert load(named).pool_size == 2
    other = tmp_path / "other.toml"
    other.write_text("pool_size = 5")
    assert load(named, config=str(other)).pool_size == 5
    assert load({**named, "AGENTWS_CONFIG": ""}).pool_size == 12


TYPED = [
    ("pool_size", '"20"', "cannot be '20': Expected `int`, got `str`"),
    ("pool_size", "1.5", "cannot be 1.5: Expected `int`, got `float`"),
    ("pool_size", "true", "cannot be True: Expected `int`, got `bool`"),
    ("pool_size", "0", "cannot be 0: Expected `int` >= 1"),
    ("page", '"true"', "cannot be 'true': Expected `bool | null`, got `str`"),
    ("host", "5", "cannot be 5: Expected `str`, got `int`"),
    ("env", '"moon"', "cannot be 'moon': it is one of development, test, staging, production"),
    ("database_url", '"mysql://u:hidden@h"', "has to be"),
    ("jwt_secret", "1234567", "cannot be '***': Expected"),
    ("force", '"nothing"', "does not know nothing"),
]


@pytest.mark.parametrize(("name", "value", "said"), TYPED)
def test_a_bad_value_of_a_file_names_file_and_key(tmp_path: Path, name: str, value: str, said: str) -> None:
    path = tmp_path / "agentws.toml"
    path.write_text(f"{name} = {value}")
    text = refused({}, config=str(path))
    assert text.startswith(f"{path}: {name} {said}")
    assert "hidden" not in text
    assert "1234567" not in text


def test_a_bad_value_of_a_table_names_the_table_and_one_of_another_environment_is_not_used(tmp_path: Path) -> None:
    path = tmp_path / "agentws.toml"
    path.write_text("[env.development]\nport = 70000\n")
    assert refused({}, config=str(path)).startswith(f"{path} [env.development]: port cannot be 70000")
    assert load({"AGENTWS_ENV": "test", "AGENTWS_JWT_SECRET": SECRET}, config=str(path)).port == 8000


def test_a_bad_value_that_another_source_covers_is_not_used(tmp_path: Path) -> None:
    path = tmp_path / "agentws.toml"
    path.write_text("port = 70000\n")
    assert load({"AGENTWS_PORT": "9"}, config=str(path)).port == 9


@pytest.mark.parametrize("name", ["jwt_secret", "stats_token", "database_url", "migrate_url"])
def test_no_error_shows_a_secret(name: str) -> None:
    text = refused({f"AGENTWS_{name.upper()}": "mysql://u:hidden@h/d"}, env="production", force="nothing")
    assert "hidden" not in text


def test_variables_that_are_no_settings_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    load({"AGENTWS_POOLSIZE": "3"})
    assert caplog.messages == ["AGENTWS_POOLSIZE is not a setting; did you mean AGENTWS_POOL_SIZE?"]
