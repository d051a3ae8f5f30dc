"""`agentws chat` in a pipe: answers on standard output and nothing else."""

import asyncio
import os
import signal
import subprocess
import sys

import pytest

from agentws.client.plain import INTERRUPTED, lines_of

from ..conformance.client import fresh
from ..processes import ROOT, ServerProcess
from .proxy import proxied
from .terminal import PATIENCE_S, clean_env, on_terminal, piped


def chat(server: ServerProcess, *arguments: str, given: str = "") -> "subprocess.CompletedProcess[str]":
    return piped(("chat", "--url", server.http_url, "--user", fresh("user"), *arguments), given=given)


def test_each_line_is_a_message_and_output_is_the_answers(server: ServerProcess) -> None:
    done = chat(server, given="what is 6*7?\n\n  \nhello there\nwithout an end")
    assert done.stdout == (
        "6*7 = 42\n"
        "You wrote 2 words in 11 characters: hello there\n"
        "You wrote 3 words in 14 characters: without an end\n"
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_all_lines_are_one_conversation(server: ServerProcess) -> None:
    done = chat(server, "--agent", "history", given="one\ntwo\n")
    assert done.stdout.splitlines()[1].startswith('[["user", "one"]')


def test_a_message_may_stand_on_the_command_line(server: ServerProcess) -> None:
    done = chat(server, "what", "is", "6*7?", given="not read\n")
    assert (done.returncode, done.stdout, done.stderr) == (0, "6*7 = 42\n", "")


def test_thinking_and_tools_are_told_beside_the_answer_where_asked(server: ServerProcess) -> None:
    done = chat(server, "--verbose", "what is 6*7?")
    assert done.stdout == "6*7 = 42\n"
    assert "I will calculate it." in done.stderr
    assert 'agentws: calculator {"expression":"6*7"}' in done.stderr
    assert "agentws: calculator done in" in done.stderr


def test_no_control_code_of_an_agent_comes_through(server: ServerProcess) -> None:
    done = chat(server, "--agent", "echo", "\x1b[31mred\x07\u009b2J\ttab")
    assert done.stdout == "␛[31mred␇\ufffd2J\ttab\n"


@pytest.mark.parametrize(
    ("arguments", "given", "answers", "said"),
    [
        (("--agent", "fail"), "one\ntwo\n", "partial\npartial\n", "agentws: agent_failed: The agent failed."),
        (("--agent", "nobody"), "one\n", "", "agentws: agent_not_found: There is no such agent."),
        (("--thread", "nowhere"), "one\n", "", "agentws: thread_not_found: There is no such thread."),
    ],
)
def test_a_message_that_fails_is_said_and_is_the_exit_status(
    server: ServerProcess, arguments: tuple[str, ...], given: str, answers: str, said: str
) -> None:
    done = chat(server, *arguments, given=given)
    assert (done.returncode, done.stdout) == (1, answers)
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_where_nothing_listens_is_one_line() -> None:
    done = piped(("chat", "hi", "--url", "http://127.0.0.1:9"))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "agentws: cannot connect to http://127.0.0.1:9: connection refused\n"


async def test_an_answer_is_whole_though_the_connection_breaks(server: ServerProcess) -> None:
    async with proxied(server.http_url) as proxy:
        proxy.down = [2000, 3000, 120, 2500]
        arguments = ("chat", "--url", proxy.url, "--user", fresh("user"), "--agent", "stream", "400")
        done = await asyncio.to_thread(piped, arguments)
        assert proxy.connections >= 4
    assert done.stdout.rstrip("\n") == "".join(f"w{number} " for number in range(400))
    assert done.returncode == 0
    assert "trying again in" in done.stderr


def interruptible(*arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "agentws", "chat", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=clean_env(),
        cwd=ROOT,
        text=True,
    )


def test_an_interrupt_stops_the_run_and_prints_what_there_is(server: ServerProcess) -> None:
    arguments = ("--url", server.http_url, "--user", fresh("user"), "--verbose", "--agent", "timeout", "hi")
    with interruptible(*arguments) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "agentws: hang {}\n"
        process.send_signal(signal.SIGINT)
        out, said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == INTERRUPTED
    assert "stopped (user)" in said
    assert "Traceback" not in said
    assert out == ""


def test_on_a_terminal_one_message_is_answered_as_it_comes_without_a_prompt(server: ServerProcess) -> None:
    arguments = ("chat", "--url", server.http_url, "--user", fresh("user"), "what is 6*7?")
    with on_terminal(arguments) as terminal:
        assert terminal.ends() == 0
        assert terminal.raw == "6*7 = 42\r\n"


async def test_lines_come_as_they_are_written() -> None:
    reading, writing = os.pipe()
    lines = lines_of(reading)
    os.write(writing, b"eins\r\nzw")
    assert await anext(lines) == "eins"
    grün = "ei grün".encode()
    os.write(writing, grün[:-2])
    os.write(writing, grün[-2:] + b"\n\nlast")
    assert [await anext(lines), await anext(lines)] == ["zwei grün", ""]
    os.close(writing)
    assert [line async for line in lines] == ["last"]
    os.close(reading)
