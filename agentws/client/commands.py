"""`agentws chat` and `agentws tail` on the command line: their arguments, and one line where they cannot do it.

What they need is imported when they run, so that serving does not pay for it.
"""

import argparse
import asyncio
import importlib.util
import io
import os
import sys
from collections.abc import AsyncIterator, Coroutine
from typing import Any

__all__ = ["add_commands", "default_url"]

INTERRUPTED = 130


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds both to the command line's parser."""
    chat = commands.add_parser("chat", help="talk to an agent in the terminal, or in a pipe")
    chat.add_argument("text", nargs="*", metavar="TEXT", help="one message; its answer is printed, and nothing else")
    chat.add_argument("--thread", metavar="ID", help="go on with this thread")
    chat.add_argument("--agent", metavar="NAME", help="the agent to ask (default: the server's)")
    chat.add_argument("--verbose", action="store_true", help="in a pipe: tell thinking and tools on standard error")
    chat.set_defaults(run=_chat)
    tail = commands.add_parser("tail", help="a thread's events in the terminal, as they happen")
    tail.add_argument("thread", metavar="THREAD", help="the thread's id")
    tail.add_argument("--after-seq", type=_number, default=0, metavar="N", help="only what comes after event N")
    tail.add_argument("--json", action="store_true", help="the frames as they came, one line each")
    tail.add_argument(
        "--follow", action=argparse.BooleanOptionalAction, default=True, help="go on with what happens (default)"
    )
    tail.set_defaults(run=_tail)
    for command in (chat, tail):
        command.add_argument("--url", help="where the server is (default: AGENTWS_HOST and AGENTWS_PORT here)")
        command.add_argument("--user", metavar="NAME", help="the user's name, for a server in dev auth")
        command.add_argument("--token", help="a JWT (default: AGENTWS_TOKEN)")


def default_url(host: str | None, port: str | None) -> str:
    """Where a server with these settings is found on this machine."""
    host = host or "127.0.0.1"
    # What listens on every address is reached on this machine's own.
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://{f'[{host}]' if ':' in host else host}:{port or '8000'}"


def _number(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError("it cannot be less than 0")
    return number


def _url(options: argparse.Namespace) -> str:
    given: str | None = options.url
    return given or default_url(os.environ.get("AGENTWS_HOST"), os.environ.get("AGENTWS_PORT"))


def _token(options: argparse.Namespace) -> str | None:
    given: str | None = options.token
    return given or os.environ.get("AGENTWS_TOKEN") or None


def _chat(options: argparse.Namespace) -> int:
    if importlib.util.find_spec("prompt_toolkit") is None:
        print("agentws: chat needs the extra 'chat': pip install 'agentws[chat]'", file=sys.stderr)
        return 1
    return _run(_chatting(options))


async def _chatting(options: argparse.Namespace) -> int:
    from agentws.client import plain
    from agentws.client.connection import Client

    token, thread = _token(options), options.thread
    terminal = sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
    if options.text or not terminal:
        messages = _one(" ".join(options.text)) if options.text else plain.lines_of(sys.stdin.fileno())
        async with Client(_url(options), user=options.user, token=token) as client:
            return await plain.talk(
                client,
                messages,
                thread_id=thread,
                agent=options.agent,
                verbose=options.verbose,
                live=sys.stdout.isatty(),
            )
    from agentws.client.chat import Chat

    async with Client(_url(options), user=options.user, token=token) as client:
        return await Chat(client, agent=options.agent).run(thread)


async def _one(text: str) -> AsyncIterator[str]:
    yield text


def _tail(options: argparse.Namespace) -> int:
    from agentws.client.tail import tail

    return _run(
        tail(
            _url(options),
            options.thread,
            user=options.user,
            token=_token(options),
            after_seq=options.after_seq,
            as_json=options.json,
            follow=options.follow,
            width=_width(),
        )
    )


def _width() -> int | None:
    """Cells of a line of the terminal itself, whatever COLUMNS says; None where it is none, or does not know."""
    return os.get_terminal_size(sys.stdout.fileno()).columns or None if sys.stdout.isatty() else None


def _run(command: Coroutine[Any, Any, int]) -> int:
    """Runs a command; what it could not do is one line."""
    from agentws.client.errors import ClientError

    for stream in (sys.stdout, sys.stderr):
        # What cannot show a character shows another one.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        return asyncio.run(command)
    except ClientError as error:
        print(f"agentws: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read has had enough; Python would complain once more when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
