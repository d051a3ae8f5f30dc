"""What the command line does, and what it says when it cannot."""

import asyncio
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import jwt
import pytest

from agentws.cli import main
from agentws.store.embedded import EmbeddedPostgres
from agentws.store.migrate import make_database, migrations

from .processes import ROOT, running


def agentws(*arguments: str, **env: str) -> "subprocess.CompletedProcess[str]":
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("AGENTWS_")}
    return subprocess.run(
        [sys.executable, "-m", "agentws", *arguments],
        env={**inherited, **{f"AGENTWS_{name}": value for name, value in env.items()}},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_token_is_of_its_user_and_expires(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AGENTWS_JWT_SECRET", "s" * 48)
    assert main(["token", "--user", "ada", "--ttl", "60"]) == 0
    claims = jwt.decode(capsys.readouterr().out.strip(), "s" * 48, algorithms=["HS256"])
    assert claims["sub"] == "ada"
    assert claims["exp"] - claims["iat"] == 60


@pytest.mark.parametrize(
    ("arguments", "env", "said"),
    [
        (("token", "--user", "ada"), {}, "AGENTWS_JWT_SECRET"),
        (("serve",), {"PORT": "many"}, "AGENTWS_PORT: port cannot be 'many'"),
        (("serve", "--env", "moon"), {}, "--env: env cannot be 'moon'"),
        (("serve", "--host", "0.0.0.0"), {}, "--host: host cannot be 0.0.0.0 with auth 'dev'"),
        (("serve", "--env", "production"), {}, "cannot be 'dev' in production"),
        (("serve",), {"AUTH": "host"}, "auth is 'host', which is for an application that gives create_app"),
        (("serve", "--config", "nowhere.toml"), {}, "--config: nowhere.toml cannot be read"),
        (("migrate",), {"CONFIG": "nowhere.toml"}, "AGENTWS_CONFIG: nowhere.toml cannot be read"),
        (("serve", "--agents", "nowhere"), {}, "'nowhere' is not MODULE:NAME"),
        (("serve", "--agents", "tests.sample_agents:missing"), {}, "cannot be loaded"),
        (("serve", "--agents", "tests.no_such_module:agents"), {}, "cannot be loaded"),
        (("migrate",), {}, "give AGENTWS_DATABASE_URL"),
        (("migrate",), {"DATABASE_URL": "postgresql://x@127.0.0.1:1/x"}, "agentws: "),
    ],
)
def test_what_cannot_be_done_is_one_line_that_says_why(
    arguments: tuple[str, ...], env: dict[str, str], said: str
) -> None:
    done = agentws(*arguments, **env)
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_migrate_says_what_it_applied(cluster: EmbeddedPostgres) -> None:
    owner = cluster.url(user="postgres", database="postgres")
    asyncio.run(make_database(owner, database="to_migrate", login="agentws"))
    env = {
        "DATABASE_URL": cluster.url(user="agentws", database="to_migrate"),
        "MIGRATE_URL": cluster.url(user="postgres", database="to_migrate"),
    }
    assert agentws("migrate", **env).stdout == "".join(f"applied {each.name}\n" for each in migrations())
    assert agentws("migrate", **env).stdout == "the schema is current\n"


def test_serve_says_in_one_line_where_it_listens() -> None:
    directory = Path(tempfile.mkdtemp(prefix="agentws-cli-"))
    directory.chmod(0o755)
    with running({"AGENTWS_DATA_DIR": str(directory / "data")}) as server:
        assert server.http_url.startswith("http://127.0.0.1:")
    subprocess.run(["rm", "-rf", str(directory)], check=True)


def test_a_port_that_is_taken_is_said(cluster: EmbeddedPostgres) -> None:
    asyncio.run(make_database(cluster.url(user="postgres", database="postgres"), database="taken", login="agentws"))
    env = {
        "AGENTWS_DATABASE_URL": cluster.url(user="agentws", database="taken"),
        "AGENTWS_MIGRATE_URL": cluster.url(user="postgres", database="taken"),
    }
    with running(env) as server:
        port = server.http_url.rpartition(":")[2]
        done = agentws("serve", "--port", port, **{name.removeprefix("AGENTWS_"): env[name] for name in env})
    assert done.returncode != 0
    assert "address already in use" in done.stderr
    assert "Traceback" not in done.stderr


def test_less_is_logged_where_that_is_asked_for(cluster: EmbeddedPostgres) -> None:
    asyncio.run(make_database(cluster.url(user="postgres", database="postgres"), database="quiet", login="agentws"))
    env = {
        "AGENTWS_DATABASE_URL": cluster.url(user="agentws", database="quiet"),
        "AGENTWS_MIGRATE_URL": cluster.url(user="postgres", database="quiet"),
        "AGENTWS_LOG_LEVEL": "warning",
        "AGENTWS_POOLSIZE": "3",
    }
    with running(env) as server:
        pass
    assert [line.partition("WARNING")[2].strip() for line in server.log] == [
        "agentws: AGENTWS_POOLSIZE is not a setting; did you mean AGENTWS_POOL_SIZE?"
    ]


def test_a_signal_ends_the_wait_for_a_database() -> None:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("AGENTWS_")}
    process = subprocess.Popen(
        [sys.executable, "-m", "agentws", "serve", "--port", "0"],
        env={**inherited, "AGENTWS_DATABASE_URL": "postgresql://x@127.0.0.1:1/x", "AGENTWS_DATABASE_WAIT_S": "600"},
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stderr is not None
        for line in process.stderr:
            if "waiting for the database" in line:
                break
        process.terminate()
        assert process.wait(20) == 0
