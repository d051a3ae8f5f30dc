"""The examples of embedding, each as its own process: its sign-in is what the agents go by, and nothing else is."""

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

from ..conftest import TestDatabase
from ..processes import ROOT

LIMIT_S = 60.0
LINES = 60
_RUNNING = re.compile(r"Uvicorn running on (http://\S+)")
EXAMPLES = ["starlette_app", "fastapi_app"]
FIVE = ["agent_started", "agent_thinking", "tool_executing", "tool_completed", "agent_completed"]


@contextmanager
def host(name: str, **env: str) -> Iterator[str]:
    """Serves an example by uvicorn alone; gives its address, and stops it at the end."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("AGENTWS_")}
    command = [sys.executable, "-m", "uvicorn", f"scripts.examples.{name}:app", "--port", "0"]
    process = subprocess.Popen(command, env={**inherited, **env}, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    timer = threading.Timer(LIMIT_S, process.kill)
    timer.start()
    said: list[str] = []
    with process:
        assert process.stderr is not None
        for line in process.stderr:
            said.append(line)
            if found := _RUNNING.search(line):
                break
        else:
            raise AssertionError("the example did not start:\n" + "".join(said))
        rest = threading.Thread(target=said.extend, args=(process.stderr,), daemon=True)
        rest.start()
        try:
            yield found[1]
        finally:
            process.terminate()
            process.wait()
            timer.cancel()
            rest.join()
    assert "Traceback" not in "".join(said)


@pytest.fixture(params=EXAMPLES)
def url(request: pytest.FixtureRequest, database: TestDatabase) -> Iterator[str]:
    env = {"AGENTWS_DATABASE_URL": database.url, "AGENTWS_MIGRATE_URL": database.owner_url, "AGENTWS_ENV": "test"}
    with host(request.param, **env) as found:
        yield found


def sign_in(url: str, user: str) -> str:
    """Signs in over HTTP; returns the cookie."""
    answer = httpx.post(f"{url}/sign-in", json={"user": user})
    assert answer.status_code == 200
    assert "httponly" in answer.headers["set-cookie"].lower()
    return f"session={answer.cookies['session']}"


@contextmanager
def connected(url: str, *, query: str = "", **headers: str) -> Iterator[ClientConnection]:
    address = url.replace("http://", "ws://") + "/agents/ws" + query
    with connect(address, additional_headers=headers, open_timeout=LIMIT_S, proxy=None) as connection:
        assert receive(connection)["type"] == "connection_established"
        yield connection


def receive(connection: ClientConnection) -> dict[str, Any]:
    frame: dict[str, Any] = json.loads(connection.recv(LIMIT_S))
    return frame


def until(connection: ClientConnection, *types: str) -> list[dict[str, Any]]:
    """The frames up to one of these types."""
    frames = [receive(connection)]
    while frames[-1]["type"] not in types:
        frames.append(receive(connection))
    return frames


def send(connection: ClientConnection, **frame: Any) -> None:
    connection.send(json.dumps(frame))


def test_whoever_signed_in_runs_the_agent_and_nobody_else_sees_it(url: str) -> None:
    with connected(url, cookie=sign_in(url, "ada")) as ada:
        send(ada, type="user_message", payload={"content": "one two three"})
        frames = until(ada, "agent_completed", "agent_error", "error")
        types = [frame["type"] for frame in frames]
        assert [each for each in types if each in FIVE] == FIVE
        assert frames[-1]["payload"]["response"] == "ada, that was 3 words."
        thread_id = frames[-1]["thread_id"]
        with connected(url, cookie=sign_in(url, "bob")) as bob:
            send(bob, type="subscribe", thread_id=thread_id)
            assert receive(bob)["code"] == "thread_not_found"
        with connected(url, cookie=sign_in(url, "ada")) as again:
            send(again, type="subscribe", thread_id=thread_id)
            replayed = until(again, "caught_up", "error")
            assert [frame["type"] for frame in replayed if frame["type"] in FIVE] == FIVE


@pytest.mark.parametrize("query", ["", "?user=ada"])
@pytest.mark.parametrize("cookie", ["", "session=guessed"])
def test_without_the_host_s_cookie_nobody_comes_in(url: str, query: str, cookie: str) -> None:
    with pytest.raises(InvalidStatus) as caught, connected(url, query=query, cookie=cookie):
        pass
    assert caught.value.response.status_code == 401
    assert json.loads(caught.value.response.body)["code"] == "unauthorized"


def test_a_page_of_another_site_does_not_come_in_with_the_cookie(url: str) -> None:
    cookie = sign_in(url, "ada")
    with pytest.raises(InvalidStatus) as caught, connected(url, cookie=cookie, origin="http://evil.example"):
        pass
    assert caught.value.response.status_code == 403
    with connected(url, cookie=cookie, origin=url):
        pass


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_short(name: str) -> None:
    assert len((ROOT / "scripts" / "examples" / f"{name}.py").read_text("utf-8").splitlines()) < LINES
