"""What production refuses, what lifts it, and that this is told at every start."""

from typing import Any

import pytest

from agentws.settings import SettingsError, load, read
from agentws.settings.refusals import FORCES

SECRET = "s" * 32
URL = "postgresql://u@h/d"
PRODUCTION = {"env": "production", "jwt_secret": SECRET, "database_url": URL}
REFUSED: list[tuple[dict[str, Any], str, str]] = [
    # What is given, what lifts the refusal, and how it begins.
    ({"auth": "dev"}, "dev_auth", "--auth: auth cannot be 'dev' in production"),
    ({"jwt_secret": None}, "dev_auth", "default: auth cannot be 'dev' in production"),
    ({"auth": "dev", "env": "test"}, "dev_auth", "--auth: auth cannot be 'dev' in test"),
    ({"auth": "dev", "env": "staging"}, "dev_auth", "--auth: auth cannot be 'dev' in staging"),
    ({"auth": "dev", "env": "development", "host": "::"}, "dev_auth", "--host: host cannot be :: with auth 'dev'"),
    ({"jwt_secret": "s" * 31}, "weak_secret", "--jwt-secret: jwt_secret has to have at least 32 bytes in production"),
    (
        {"allowed_origins": "*"},
        "any_origin",
        "--allowed-origins: allowed_origins cannot hold a * for any host in production",
    ),
    ({"allowed_origins": "https://a.example , *"}, "any_origin", "--allowed-origins: allowed_origins cannot"),
    ({"allowed_origins": "https://*"}, "any_origin", "--allowed-origins: allowed_origins cannot"),
    ({"allowed_origins": "*://*:*/"}, "any_origin", "--allowed-origins: allowed_origins cannot"),
    ({"database_url": "embedded"}, "embedded", "--database-url: database_url has to be given in production"),
    ({"database_url": None}, "embedded", "default: database_url has to be given in production"),
]


@pytest.mark.parametrize(("given", "force", "said"), REFUSED)
def test_a_refusal_names_key_source_and_what_lifts_it(given: dict[str, Any], force: str, said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load({}, **{**PRODUCTION, **given})
    text = str(caught.value)
    assert text.startswith(said)
    assert text.endswith(f"; AGENTWS_FORCE={force} lifts this")
    assert SECRET[:31] not in text


@pytest.mark.parametrize(("given", "force", "said"), REFUSED)
@pytest.mark.parametrize("forced", sorted(FORCES))
def test_a_refusal_is_lifted_by_its_own_name_alone(given: dict[str, Any], force: str, said: str, forced: str) -> None:
    flags = {**PRODUCTION, **given, "force": forced}
    if forced != force:
        with pytest.raises(SettingsError):
            load({}, **flags)
        return
    loaded = read({}, **flags)
    assert loaded.warnings == (f"AGENTWS_FORCE lifts {force}: {FORCES[force]}",)


def test_production_takes_what_is_made_for_it() -> None:
    loaded = read({}, **PRODUCTION, allowed_origins="https://a.example, https://*.b.example:8443")
    assert loaded.settings.origins == {"https://a.example", "https://*.b.example:8443"}
    assert loaded.warnings == ()


@pytest.mark.parametrize("env", ["development", "test", "staging", "production"])
def test_a_host_s_own_sign_in_needs_no_secret(env: str) -> None:
    assert load({}, env=env, auth="host", database_url=URL).auth == "host"


@pytest.mark.parametrize("secret", ["ä" * 16, "\udcff" * 32])
def test_a_secret_is_as_long_as_its_bytes(secret: str) -> None:
    assert load({}, **{**PRODUCTION, "jwt_secret": secret}).auth == "jwt"


def test_the_embedded_database_is_not_migrated_by_a_url() -> None:
    with pytest.raises(SettingsError, match="--migrate-url: migrate_url cannot be 'embedded'"):
        load({}, migrate_url="embedded")
