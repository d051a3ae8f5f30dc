"""What stands in the package itself: all of it is there, and authors of agents pay for no server."""

import subprocess
import sys

import pytest

import agentws
from agentws.app import create_app
from agentws.settings import load


@pytest.mark.parametrize("name", agentws.__all__)
def test_every_name_is_there(name: str) -> None:
    assert getattr(agentws, name) is not None
    assert name in dir(agentws)


def test_what_embeds_a_server_is_what_serves_one() -> None:
    assert agentws.create_app is create_app
    assert agentws.load_settings is load


def test_a_name_that_is_not_there_is_an_error() -> None:
    with pytest.raises(AttributeError, match="module 'agentws' has no attribute 'nonsense'"):
        agentws.nonsense  # noqa: B018


def test_importing_it_imports_no_server() -> None:
    script = "import agentws, sys; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    loaded = set(done.stdout.split())
    assert "agentws.core.agent" in loaded
    assert loaded.isdisjoint({"agentws.app", "agentws.settings", "asyncpg", "uvicorn", "jwt", "websockets"})
