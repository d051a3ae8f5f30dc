"""`agentws serve --workers N` fails as one process does: with the same line, once, and the same status."""

import socket
import subprocess

import pytest

from ..conftest import TestDatabase
from ..test_cli import agentws


def told(done: "subprocess.CompletedProcess[str]") -> list[str]:
    """What was said of a failure, without what is told on the way, and without the time."""
    lines = done.stderr.splitlines()
    told = [line.partition(" ERROR ")[2] or line for line in lines if " INFO " not in line and " WARNING " not in line]
    # Of a connection that is refused each event loop has words of its own.
    return [line.partition("[Errno 111]")[0] for line in told]


NOWHERE = "postgresql://x@127.0.0.1:1/x"


@pytest.mark.parametrize(
    ("arguments", "env", "said"),
    [
        (("--agents", "tests.no_such_module:agents"), {}, "agentws: --agents: "),
        (("--port", "many"), {}, ""),
        ((), {"AUTH": "host"}, "agentws: auth is 'host'"),
        ((), {"DATABASE_URL": NOWHERE, "DATABASE_WAIT_S": "0"}, "agentws: no database within 0 s"),
        (("--port", "TAKEN"), {}, "  uvicorn.error: [Errno 98]"),
        (("--host", "203.0.113.7"), {"FORCE": "dev_auth"}, "  uvicorn.error: [Errno 99]"),
    ],
)
def test_what_one_process_would_say_is_said_once(
    database: TestDatabase, arguments: tuple[str, ...], env: dict[str, str], said: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        given = [each.replace("TAKEN", str(taken.getsockname()[1])) for each in arguments]
        place = {"DATABASE_URL": database.url, "MIGRATE_URL": database.owner_url, "POOL_SIZE": "2", "PORT": "0"}
        one, several = (agentws("serve", *given, "--workers", n, **{**place, **env}) for n in ("1", "3"))
    assert told(one) == told(several)
    assert one.returncode == several.returncode != 0
    assert told(one)[-1].startswith(said)
    assert several.stdout == ""
