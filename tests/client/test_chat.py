"""`agentws chat` on a real terminal: what is typed and what is shown."""

import asyncio
import os
import signal

import pytest

from agentws.store.embedded import EmbeddedPostgres

from ..conformance.client import fresh
from ..conftest import TestDatabase
from ..processes import ServerProcess, running
from .proxy import proxied
from .terminal import on_terminal
from .test_connection import free_port

INTERRUPT, END = "\x03", "\x04"


def place(server: ServerProcess, *arguments: str, user: str | None = None) -> tuple[str, ...]:
    return ("chat", "--url", server.http_url, "--user", user or fresh("user"), *arguments)


def test_a_conversation(server: ServerProcess) -> None:
    with on_terminal(place(server, user="ada-at-the-terminal")) as terminal:
        terminal.shows("Connected as ada-at-the-terminal.")
        terminal.enter("what is 6*7?")
        terminal.shows("> what is 6*7?\n")
        terminal.shows("  The text holds arithmetic: 6*7. I will calculate it.\n")
        terminal.shows('  → calculator {"expression":"6*7"}\n')
        terminal.shows("  ✓ calculator ")
        terminal.shows("6*7 = 42\n")
        terminal.shows("connected · what is 6*7? · ada-at-the-terminal")
        terminal.enter("hello")
        terminal.shows("You wrote 1 words in 5 characters: hello\n")
        terminal.type(END)
        assert terminal.ends() == 0
        assert "agentws chat --thread thr-" in terminal.text


def test_an_interrupt_stops_the_run_and_a_second_one_leaves(server: ServerProcess) -> None:
    with on_terminal(place(server, "--agent", "slow")) as terminal:
        terminal.shows("\nconnected ·")
        terminal.type(INTERRUPT)
        terminal.shows("Ctrl-D or /quit leaves.")
        terminal.enter("one")
        terminal.shows("started")
        terminal.shows("working, Ctrl-C stops")
        terminal.type(INTERRUPT)
        terminal.shows("[stopped after ")
        terminal.enter("two")
        terminal.shows("started", times=2)
        terminal.enter("/stop")
        terminal.shows("[stopped after ", times=2)


def test_a_second_interrupt_leaves_though_the_server_does_not_answer(server: ServerProcess) -> None:
    with on_terminal(place(server, "--agent", "slow"), columns=120) as terminal:
        terminal.shows("\nconnected ·")
        terminal.enter("one")
        terminal.shows("started")
        server.signal(signal.SIGSTOP)
        try:
            terminal.type(INTERRUPT)
            terminal.shows("stopping, Ctrl-C again leaves")
            terminal.type(INTERRUPT)
            assert terminal.ends() == 0
        finally:
            server.signal(signal.SIGCONT)
        assert "> one\nstarted\nagentws chat --thread thr-" in terminal.text
        assert "What runs there goes on." in terminal.text


def test_a_signal_does_what_the_key_does(server: ServerProcess) -> None:
    with on_terminal(place(server, "--agent", "slow")) as terminal:
        terminal.shows("\nconnected ·")
        terminal.enter("one")
        terminal.shows("started")
        os.kill(terminal.pid, signal.SIGINT)
        terminal.shows("[stopped after ")


def test_an_interrupt_clears_a_line_that_is_not_sent(server: ServerProcess) -> None:
    with on_terminal(place(server, "--agent", "echo")) as terminal:
        terminal.shows("\nconnected ·")
        terminal.type("not to be sent" + INTERRUPT)
        terminal.enter("sent")
        terminal.shows("> sent\n")
        terminal.shows("sent\n", times=2)
        assert "> not to be sent\n" not in terminal.text


def test_no_control_code_of_an_agent_comes_through(server: ServerProcess) -> None:
    with on_terminal(place(server, "--agent", "echo")) as terminal:
        terminal.shows("\nconnected ·")
        # Pasted, as the user's terminal marks it.
        terminal.type("\x1b[200~\x1b]0;owned\x07 \u009b2J\x1b[201~")
        terminal.enter("")
        terminal.shows("␛]0;owned␇ \ufffd2J\n", times=2)
        assert "\x1b]0;owned" not in terminal.raw
        assert "\u009b" not in terminal.raw


def test_commands_are_completed_and_unknown_ones_are_told(server: ServerProcess) -> None:
    with on_terminal(place(server, "--agent", "echo")) as terminal:
        terminal.shows("\nconnected ·")
        terminal.type("/he\t")
        terminal.shows("> /help")
        terminal.enter("")
        terminal.shows("/switch   ID or number: go on with a thread")
        terminal.enter("/nonsense")
        terminal.shows("There is no command /nonsense")
        terminal.enter("/switch")
        terminal.shows("/switch ID or number")
        terminal.enter("//slash")
        terminal.shows("> /slash\n")
        terminal.shows("/slash\n", times=2)
        terminal.enter("/quit")
        assert terminal.ends() == 0


def test_earlier_inputs_come_back_with_the_up_arrow(server: ServerProcess) -> None:
    with on_terminal(place(server, "--agent", "echo")) as terminal:
        terminal.shows("\nconnected ·")
        terminal.enter("once")
        terminal.shows("once\n", times=2)
        terminal.type("\x1b[A")
        terminal.enter(" more")
        terminal.shows("> once more\n")


def test_messages_that_wait_are_told_and_answered_in_turn(server: ServerProcess) -> None:
    with on_terminal(place(server, "--agent", "stream")) as terminal:
        terminal.shows("\nconnected ·")
        terminal.enter("300")
        terminal.enter("3")
        terminal.shows("[queued, position 1]")
        terminal.shows("w299")
        terminal.shows("w0 w1 w2\n")
        assert terminal.text.count("> 3\n") == 2


def test_threads_are_named_listed_switched_to_and_deleted(server: ServerProcess) -> None:
    with on_terminal(place(server, "--agent", "echo"), columns=100) as terminal:
        terminal.shows("\nconnected ·")
        terminal.enter("of trees")
        terminal.shows("\nof trees\n[")
        terminal.enter("/title Trees")
        terminal.shows("The thread is called Trees.")
        terminal.enter("/new Seas")
        terminal.shows("— Seas —")
        terminal.enter("of seas")
        terminal.shows("\nof seas\n[")
        terminal.enter("/threads")
        terminal.shows("\n*  1  Seas  ")
        terminal.shows("\n   2  Trees  ")
        terminal.enter("/switch 2")
        terminal.shows("— Trees —\n\n> of trees\nof trees\n")
        terminal.shows("\nconnected · Trees ·")
        terminal.enter("/delete")
        terminal.shows("Delete “Trees” and all that was said in it? y deletes it.")
        terminal.enter("no")
        terminal.shows("Nothing was deleted.")
        terminal.enter("/delete")
        terminal.shows("y deletes it.", times=2)
        terminal.enter("y")
        terminal.shows("Deleted: Trees.")
        terminal.shows("\nconnected · new thread ·")
        terminal.enter("/quit")
        assert terminal.ends() == 0


async def test_an_answer_on_the_screen_has_no_seam_though_the_connection_breaks(server: ServerProcess) -> None:
    async with proxied(server.http_url) as proxy:
        proxy.down = [3000, 2500, 120, 4000, 3000]
        arguments = ("chat", "--url", proxy.url, "--user", fresh("user"), "--agent", "stream")
        with on_terminal(arguments) as terminal:
            await asyncio.to_thread(terminal.shows, "\nconnected ·")
            terminal.enter("400")
            await asyncio.to_thread(terminal.shows, "\n[")
            assert proxy.connections > 3
            answer = terminal.text.partition("> 400\n")[2].partition("\n[")[0]
            assert answer.split() == [f"w{number}" for number in range(400)]


@pytest.mark.parametrize("columns", [12, 20, 200])
def test_terminals_of_any_width_show_the_answer(server: ServerProcess, columns: int) -> None:
    with on_terminal(place(server, "--agent", "echo"), columns=columns, rows=8) as terminal:
        terminal.shows("\n>")
        terminal.enter("漢字漢字漢字漢字漢字 end")
        terminal.shows("end\n", times=2)
        terminal.type(END)
        assert terminal.ends() == 0


def test_a_killed_server_is_come_back_to(cluster: EmbeddedPostgres, database: TestDatabase) -> None:
    env = {
        "AGENTWS_DATABASE_URL": database.url,
        "AGENTWS_MIGRATE_URL": database.owner_url,
        "AGENTWS_LEASE_TTL_S": "2",
    }
    arguments = ("--agents", "tests.sample_agents:agents", "--port", str(free_port()))
    with running(env, *arguments) as server, on_terminal(place(server, "--agent", "phoenix")) as terminal:
        terminal.shows("\nconnected ·")
        terminal.enter("hi")
        terminal.shows("→ hang {}")
        server.kill()
        terminal.shows("reconnecting")
        server.start()
        terminal.shows("[started again, attempt 2: what it wrote before does not count]")
        terminal.shows("attempt 2\n")
        terminal.shows("\nconnected ·")
        terminal.enter("again")
        terminal.shows("> again\n")


def test_a_connection_that_is_over_ends_it_with_one_line(server: ServerProcess) -> None:
    done = place(server, "--thread", "nowhere")
    with on_terminal(done) as terminal:
        assert terminal.ends() == 1
        assert "agentws: " in terminal.text
        assert "Traceback" not in terminal.text
