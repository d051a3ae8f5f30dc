"""`agentws config` shows every setting with its origin, hides secrets, and fails where the settings are bad."""

import json
from pathlib import Path

import pytest

from agentws.cli import main
from agentws.settings import FIELDS


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for field in FIELDS.values():
        monkeypatch.delenv(field.variable, raising=False)
    monkeypatch.delenv("AGENTWS_CONFIG", raising=False)


@pytest.fixture
def path(tmp_path: Path) -> str:
    place = tmp_path / "agentws.toml"
    place.write_text(f"pool_size = 5\njwt_secret = '{'hidden' * 8}'\n[env.staging]\nlease_ttl_s = 3.5\n")
    return str(place)


def test_every_setting_is_a_line_with_value_origin_and_what_it_is_for(
    path: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENTWS_MIGRATE_URL", "postgresql://u:hidden@h/d")
    assert main(["config", "--config", path, "--env", "staging", "--port", "0", "--host", "::1", "--workers", "3"]) == 0
    said = capsys.readouterr()
    lines = {line.split()[0]: line for line in said.out.splitlines()}
    assert list(lines) == ["setting", *FIELDS]
    for name, value, origin in [
        ("env", "staging", "--env"),
        ("port", "0", "--port"),
        ("workers", "3 processes", "--workers"),
        ("broker", "postgres", "default"),
        ("pool_size", "5 connections", path),
        ("lease_ttl_s", "3.5 s", f"{path} [env.staging]"),
        ("migrate_url", "postgresql://u:***@h/d", "AGENTWS_MIGRATE_URL"),
        ("jwt_secret", "***", path),
        ("stats_token", "-", "default"),
        ("migrate_at_start", "false", "default of staging"),
    ]:
        assert lines[name].removeprefix(name).strip().startswith(value)
        assert f" {origin} " in lines[name]
        assert lines[name].endswith(f" {FIELDS[name].description}")
    assert "hidden" not in said.out + said.err


def test_the_same_as_json(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "--config", path, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert list(said["settings"]) == list(FIELDS)
    assert said["settings"]["pool_size"] == {
        "value": 5,
        "origin": path,
        "unit": "connections",
        "variable": "AGENTWS_POOL_SIZE",
        "description": FIELDS["pool_size"].description,
    }
    assert said["settings"]["jwt_secret"]["value"] == "***"
    assert said["warnings"] == []


def test_it_warns_of_what_is_lifted_and_of_what_is_no_setting(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENTWS_FORCE", "dev_auth")
    monkeypatch.setenv("AGENTWS_POOLSIZE", "3")
    assert main(["config", "--env", "test"]) == 0
    first, second = capsys.readouterr().err.splitlines()
    assert first == "agentws: warning: AGENTWS_POOLSIZE is not a setting; did you mean AGENTWS_POOL_SIZE?"
    assert second.startswith("agentws: warning: AGENTWS_FORCE lifts dev_auth: ")
    assert main(["config", "--env", "test", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["warnings"]) == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--env", "production"], "agentws: default: auth cannot be 'dev' in production; AGENTWS_FORCE=dev_auth"),
        (["--config", "/nowhere.toml"], "agentws: --config: /nowhere.toml cannot be read: "),
        (["--port", "70000"], "agentws: --port: port cannot be 70000: "),
    ],
)
def test_bad_settings_are_its_failure(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", *arguments]) == 1
    written = capsys.readouterr()
    assert written.err.startswith(said)
    assert written.out == ""
