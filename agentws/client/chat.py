"""`agentws chat` in a terminal: what the user enters becomes messages and commands, what happens becomes lines."""

import asyncio
import signal
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

from prompt_toolkit.input import Input
from prompt_toolkit.output import Output

from agentws.client.connection import Client
from agentws.client.console import Console
from agentws.client.conversation import Conversation
from agentws.client.errors import ClientError, Closed
from agentws.client.link import Connected, Lost, Update
from agentws.client.view import Line

__all__ = ["COMMANDS", "Chat"]

COMMANDS = {
    "/threads": "your threads, numbered",
    "/switch": "ID or number: go on with a thread",
    "/new": "[TITLE]: a new thread",
    "/title": "TEXT: names this thread",
    "/delete": "deletes this thread",
    "/history": "[N]: the latest messages of this thread",
    "/stop": "stops what runs and waits in this thread; so does Ctrl-C",
    "/help": "this",
    "/quit": "leaves; so does Ctrl-D",
}
WARNING, ERROR = "class:warning", "class:error"
LAST_WORDS_S = 2.0
HISTORY = 20
MOST_HISTORY = 200


class Chat:
    """
    Args:
        client: an open client.
        agent: the agent to ask; None: the server's default one.
        source, sink: the terminal, where it is not the process's.
    """

    def __init__(
        self, client: Client, *, agent: str | None = None, source: Input | None = None, sink: Output | None = None
    ) -> None:
        self._client = client
        self._console = Console(
            commands=list(COMMANDS),
            status=self._status,
            live=self._live,
            interrupt=self._interrupt,
            source=source,
            sink=sink,
        )
        self._talk = Conversation(client, agent=agent, width=lambda: self._console.width)
        self._state = "connected"
        self._stopping = False
        self._deleting = False
        self._failure: Closed | None = None
        self._tools_since: float | None = None
        self._entered: asyncio.Queue[str] = asyncio.Queue()
        self._tasks = asyncio.TaskGroup()
        self._running: set[asyncio.Task[None]] = set()

    async def run(self, thread_id: str | None) -> int:
        """Talks until the user leaves; returns the exit status.

        Args:
            thread_id: the thread to go on with; None: a new one, made by the first message.

        Raises:
            ClientError: if there is no such thread, or the connection is over.
        """
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, self._console.interrupted)
        try:
            self._note(f"Connected as {self._client.user_id}. /help tells the commands, Ctrl-D leaves.")
            if thread_id is not None:
                self._console.show(await self._talk.open(thread_id))
            async with self._tasks:
                self._beside(self._follow())
                self._beside(self._work())
                await self._console.run(self._enter)
                await self._finish()
                for task in self._running:
                    task.cancel()
        finally:
            loop.remove_signal_handler(signal.SIGINT)
        self._console.show(self._talk.view.close())
        if self._failure is not None:
            raise self._failure
        if self._talk.thread_id is not None:
            still = " What runs there goes on." if self._talk.view.busy else ""
            self._note(f"agentws chat --thread {self._talk.thread_id} comes back to this thread.{still}")
        return 0

    # What the user does

    def _enter(self, line: str) -> None:
        """Takes a line; what needs no server is done at once, so that it works without one."""
        match line.strip():
            case "":
                pass
            case "/quit":
                self._console.leave()
            case "/help":
                width = max(map(len, COMMANDS))
                text = "\n".join(f"{name:<{width}}  {what}" for name, what in COMMANDS.items())
                self._note(f"{text}\n//… sends a message that begins with /")
            case _:
                self._entered.put_nowait(line)

    def _interrupt(self, has_text: bool) -> bool:
        """Ctrl-C; returns whether to clear the line that is being edited."""
        if not self._talk.view.busy:
            if not has_text:
                self._note("Ctrl-D or /quit leaves.")
            return True
        if self._stopping:
            self._console.leave()
        else:
            self._stopping = True
            self._beside(self._print(self._talk.stop()))
        return False

    async def _work(self) -> None:
        """Carries out what was entered, in order."""
        while True:
            line = await self._entered.get()
            await self._print(self._done(line))
            self._entered.task_done()

    async def _finish(self) -> None:
        """Waits for what was entered before the user left, if it does not take long."""
        if not self._stopping and self._failure is None:
            with suppress(TimeoutError):
                async with asyncio.timeout(LAST_WORDS_S):
                    await self._entered.join()

    async def _print(self, doing: Coroutine[Any, Any, list[Line]]) -> None:
        """Does something and prints what there is to say of it."""
        try:
            self._console.show(await doing)
        except Closed:
            pass  # Whoever follows what happens tells it.
        except ClientError as error:
            self._note(f"[{error}]", ERROR)

    async def _done(self, line: str) -> list[Line]:
        """Does what a line says; returns what there is to say."""
        talk = self._talk
        if self._deleting:
            self._deleting = False
            sure = line.strip().lower() in ("y", "yes")
            return await talk.delete() if sure else talk.note("Nothing was deleted.")
        if line.startswith("//") or not line.startswith("/"):
            return await self._say(line.removeprefix("/") if line.startswith("//") else line)
        name, _, rest = line.strip().partition(" ")
        rest = rest.strip()
        match name:
            case "/threads":
                return await talk.listing()
            case "/switch" if rest:
                return await talk.switch(rest)
            case "/new":
                return await talk.new(rest)
            case "/title":
                return await talk.name(rest)
            case "/delete":
                self._deleting = talk.thread_id is not None
                ask = f"Delete “{talk.title}” and all that was said in it? y deletes it."
                return talk.note(ask, WARNING) if self._deleting else talk.note("There is no thread to delete.")
            case "/history" if not rest or rest.isdecimal():
                return await talk.history(max(1, min(int(rest or HISTORY), MOST_HISTORY)))
            case "/stop":
                return await talk.stop()
            case _ if name in COMMANDS:
                return talk.note(f"{name} {COMMANDS[name]}", WARNING)
        return talk.note(f"There is no command {name}; /help tells them.", WARNING)

    async def _say(self, text: str) -> list[Line]:
        run_id, lines = self._talk.begin(text)
        self._console.show(lines)
        await self._talk.say(run_id, text)
        return []

    # What happens

    async def _follow(self) -> None:
        """Shows what happens; what came together is printed together."""
        while True:
            try:
                update: Update | None = await anext(self._client)
            except Closed as closed:
                self._failure = closed
                self._console.leave()
                return
            lines: list[Line] = []
            while update is not None:
                lines += self._take(update)
                update = self._client.waiting_update()
            self._console.show(lines)
            self._console.refresh()

    def _take(self, update: Update) -> list[Line]:
        lines: list[Line] = []
        match update:
            case Lost(why=why, retry_in_s=retry_in_s):
                # Told below the prompt only: the answer goes on as if nothing had been.
                soon = f" in {retry_in_s:.0f} s" if retry_in_s >= 1 else ""
                self._state = f"{why}, reconnecting{soon}"
            case Connected():
                self._state = "connected"
            case _:
                lines = self._talk.take(update)
        view = self._talk.view
        self._stopping = self._stopping and bool(view.busy)
        if not view.tools_at_work:
            self._tools_since = None
        elif self._tools_since is None:
            self._tools_since = asyncio.get_running_loop().time()
        return lines

    # What is shown around the prompt

    def _status(self) -> str:
        work = ""
        if self._stopping:
            work = " · stopping, Ctrl-C again leaves"
        elif self._talk.view.busy:
            work = " · working, Ctrl-C stops"
        # What changes stands first, where a narrow terminal shows it.
        return f"{self._state}{work} · {self._talk.title} · {self._client.user_id}"

    def _live(self) -> list[Line]:
        since = self._tools_since
        return self._talk.view.live(0.0 if since is None else asyncio.get_running_loop().time() - since)

    def _note(self, text: str, style: str = "class:note") -> None:
        self._console.show(self._talk.note(text, style))

    def _beside(self, doing: Coroutine[Any, Any, None]) -> None:
        """Does something until the user leaves."""
        task = self._tasks.create_task(doing)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
