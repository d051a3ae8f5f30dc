"""The thread that a terminal shows, and what can be done with threads; what there is to say comes back as lines.

What happens in other threads is not shown; their runs go on.
"""

from collections.abc import Callable
from uuid import uuid4

from agentws.client.connection import Client
from agentws.client.errors import ClientError
from agentws.client.link import Update
from agentws.client.reader import Event
from agentws.client.session import Gone, Reset, Trouble
from agentws.client.text import cut, one_line
from agentws.client.view import Line, ThreadView, history_lines, note, thread_lines

__all__ = ["Conversation"]

WARNING = "class:warning"
TITLE_CELLS = 60
PAGE = 50
MOST_PAGE = 200


class Conversation:
    """
    Args:
        client: an open client.
        agent: the agent to ask; None: the server's default one.
        width: how many cells a line has now.
    """

    def __init__(self, client: Client, *, agent: str | None, width: Callable[[], int]) -> None:
        self._client = client
        self._agent = agent
        self._width = width
        self._titles: dict[str, str | None] = {}
        self._listed: list[str] = []
        self.thread_id: str | None = None
        self.view = ThreadView(width())

    @property
    def title(self) -> str:
        """What the thread is called, for people."""
        if self.thread_id is None:
            return "new thread"
        return self._titles.get(self.thread_id) or self.thread_id

    def note(self, text: str, style: str = "class:note") -> list[Line]:
        return note(text, self._width(), style)

    def take(self, update: Update) -> list[Line]:
        """What happened, as lines."""
        self.view.width = self._width()
        match update:
            case Event(thread_id=self.thread_id):
                return self.view.feed(update)
            case Reset(thread_id=self.thread_id):
                told = self.note("[the thread's past was changed; it is told anew]", WARNING)
                return self._show(self.thread_id) + told
            case Gone(thread_id=self.thread_id, reason=reason):
                return self._show(None) + self.note(f"[the thread is gone: {reason}]", WARNING)
            case Trouble(error=error):
                return self.note(f"[{error.message}]", WARNING)
        return []

    def begin(self, text: str) -> tuple[str, list[Line]]:
        """A message is about to be sent; returns the id of its run, and its lines."""
        run_id = f"run-{uuid4().hex}"
        return run_id, self.view.sent(run_id, text)

    async def say(self, run_id: str, text: str) -> None:
        """Sends a message; the first one of a new thread makes it, and is its title."""
        view = self.view
        try:
            thread_id = self.thread_id or await self._create(cut(one_line(text.strip()), TITLE_CELLS))
            await self._client.start(text, thread_id=thread_id, agent=self._agent, run_id=run_id)
        except ClientError:
            view.refused(run_id)
            raise

    async def stop(self) -> list[Line]:
        """Stops what runs and waits in the thread; the lines that tell of it come with the events."""
        if self.thread_id is None:
            return self.note("There is nothing to stop.")
        stopped = await self._client.stop(thread_id=self.thread_id)
        return [] if stopped.run_ids else self.note("There is nothing to stop.")

    async def listing(self) -> list[Line]:
        page = await self._client.list_threads(limit=PAGE)
        self._listed = [thread.thread_id for thread in page.threads]
        self._titles.update((thread.thread_id, thread.title) for thread in page.threads)
        if not page.threads:
            return self.note("There are no threads yet.")
        lines = thread_lines(page.threads, self.thread_id, self._width())
        return lines + (self.note("There are older ones; /switch takes their ids.") if page.next_before else [])

    async def switch(self, which: str) -> list[Line]:
        """Goes on with another thread: its latest messages, then what happens in it.

        Args:
            which: its number in the last list, or its id.

        Raises:
            Refused: if there is no such thread.
        """
        if which.isdecimal() and 0 < int(which) <= len(self._listed):
            which = self._listed[int(which) - 1]
        history = await self._client.history(which, limit=PAGE)
        await self._leave()
        left = self._show(which)
        # What comes after it is told by events, the user's messages too.
        told = [message for message in history.messages if message.seq <= history.resume_after]
        await self._client.follow(which, after_seq=history.resume_after, epoch=history.epoch)
        return left + self.note(f"— {self.title} —") + history_lines(told, self._width())

    async def open(self, thread_id: str) -> list[Line]:
        """Switches to a thread of which nothing is known yet."""
        page = await self._client.list_threads(limit=MOST_PAGE)
        self._titles.update((thread.thread_id, thread.title) for thread in page.threads)
        return await self.switch(thread_id)

    async def new(self, title: str) -> list[Line]:
        """Begins a thread: at once where it has a title, else with the first message."""
        await self._leave()
        left = self._show(None)
        if title:
            await self._create(title)
        return left + self.note(f"— {self.title} —")

    async def name(self, title: str) -> list[Line]:
        if self.thread_id is None:
            return self.note("There is no thread yet: write a message, or /new TITLE.", WARNING)
        thread = await self._client.update_thread(self.thread_id, title=title)
        self._titles[thread.thread_id] = thread.title
        return self.note(f"The thread is called {thread.title}." if thread.title else "The thread has no title now.")

    async def delete(self) -> list[Line]:
        if self.thread_id is None:
            return self.note("There is no thread to delete.")
        deleted, title = self.thread_id, self.title
        await self._client.delete_thread(deleted)
        left = self._show(None) if self.thread_id == deleted else []
        return left + self.note(f"Deleted: {title}.")

    async def history(self, limit: int) -> list[Line]:
        """The latest messages of the thread."""
        if self.thread_id is None:
            return self.note("There are no messages yet.")
        history = await self._client.history(self.thread_id, limit=limit)
        return history_lines(history.messages, self._width())

    async def _create(self, title: str) -> str:
        thread = await self._client.create_thread(title=title)
        self._titles[thread.thread_id] = thread.title
        self.thread_id = thread.thread_id
        return thread.thread_id

    async def _leave(self) -> None:
        if self.thread_id is not None:
            await self._client.unfollow(self.thread_id)

    def _show(self, thread_id: str | None) -> list[Line]:
        """From now on shows another thread; returns what was left unfinished of the one before."""
        left = self.view.close()
        self.thread_id = thread_id
        self.view = ThreadView(self._width())
        return left
