"""What can be set: where a value comes from, what is refused, and that the refusal names the setting and its source."""

import os
from typing import Any

import pytest

from agentws.settings import Settings, SettingsError, default_data_dir, load

SECRET = "s" * 32


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
def test_a_flag_comes_before_a_variable(name: str, value: object) -> None:
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


@pytest.mark.parametrize("env", ["test", "staging", "production"])
@pytest.mark.parametrize("auth", [{}, {"AGENTWS_AUTH": "dev", "AGENTWS_JWT_SECRET": SECRET}])
def test_dev_auth_is_refused_where_it_would_be_found_by_strangers(env: str, auth: dict[str, str]) -> None:
    assert "AGENTWS_FORCE=dev_auth" in refused({"AGENTWS_ENV": env, **auth})
    assert load({"AGENTWS_ENV": env, "AGENTWS_FORCE": "dev_auth", **REAL, **auth}).auth == "dev"


REAL = {"AGENTWS_DATABASE_URL": "postgresql://u@h/d"}


@pytest.mark.parametrize(
    ("given", "lifts"),
    [
        ({"AGENTWS_JWT_SECRET": SECRET}, "embedded"),
        ({"AGENTWS_JWT_SECRET": SECRET, "AGENTWS_DATABASE_URL": "embedded"}, "embedded"),
        ({"AGENTWS_JWT_SECRET": "s" * 31, **REAL}, "weak_secret"),
    ],
)
def test_production_refuses_what_is_for_development_unless_forced(given: dict[str, str], lifts: str) -> None:
    assert f"AGENTWS_FORCE={lifts}" in refused({"AGENTWS_ENV": "production", **given})
    assert load({"AGENTWS_ENV": "production", "AGENTWS_FORCE": lifts, **given}).env == "production"
    assert load({"AGENTWS_ENV": "staging", **given}).env == "staging"


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
