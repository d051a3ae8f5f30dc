"""What the client's commands ask of the command line, and what they cost the others."""

import subprocess
import sys

import pytest

from agentws.client.commands import default_url

from ..conformance.client import fresh
from ..conformance.tokens import token
from ..processes import ROOT, ServerProcess
from .terminal import clean_env, piped


@pytest.mark.parametrize(
    ("host", "port", "url"),
    [
        (None, None, "http://127.0.0.1:8000"),
        ("", "9000", "http://127.0.0.1:9000"),
        ("0.0.0.0", "8001", "http://127.0.0.1:8001"),
        ("::", None, "http://[::1]:8000"),
        ("::1", "1", "http://[::1]:1"),
        ("agents.example", None, "http://agents.example:8000"),
    ],
)
def test_a_server_with_the_same_settings_is_found(host: str | None, port: str | None, url: str) -> None:
    assert default_url(host, port) == url


def test_where_and_who_come_from_the_environment(jwt_server: ServerProcess) -> None:
    host, _, port = jwt_server.http_url.removeprefix("http://").rpartition(":")
    credential = token(jwt_server, fresh("user"))
    done = piped(("chat", "what is 6*7?"), AGENTWS_HOST=host, AGENTWS_PORT=port, AGENTWS_TOKEN=credential)
    assert (done.returncode, done.stdout, done.stderr) == (0, "6*7 = 42\n", "")
    refused = piped(("chat", "hi", "--token", "no.jwt"), AGENTWS_HOST=host, AGENTWS_PORT=port)
    assert refused.returncode == 1
    assert "the credentials are missing, not valid or expired" in refused.stderr


def in_python(code: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", code], env=clean_env(), cwd=ROOT, capture_output=True, text=True, timeout=60
    )


def test_without_the_extra_chat_says_which_one() -> None:
    without = "import sys; sys.modules['prompt_toolkit'] = None\nfrom agentws.cli import main\n"
    done = in_python(without + "sys.exit(main(['chat', 'hi']))")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "agentws: chat needs the extra 'chat': pip install 'agentws[chat]'\n"
    assert in_python(without + "sys.exit(main(['tail', 't', '--url', 'http://127.0.0.1:9']))").stderr.count("\n") == 1


def test_serving_does_not_pay_for_the_terminal() -> None:
    done = in_python(
        "import sys; import agentws.cli\n"
        "print([name for name in ('prompt_toolkit', 'websockets.asyncio.client', 'agentws.client.connection')"
        " if name in sys.modules])"
    )
    assert done.stdout == "[]\n", done.stderr


@pytest.mark.parametrize("number", ["-1", "x"])
def test_a_number_that_is_none_is_said(number: str) -> None:
    done = piped(("tail", "t", "--after-seq", number))
    assert done.returncode == 2
    assert "--after-seq" in done.stderr
