"""What can be done with threads from a terminal, against a real server; lines are compared as text."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import pytest

from agentws.client.connection import Client
from agentws.client.conversation import Conversation
from agentws.client.errors import Refused
from agentws.client.link import Update
from agentws.client.reader import Event
from agentws.client.session import Gone
from agentws.client.view import Line

from ..conformance.client import fresh
from ..processes import ServerProcess

PATIENCE_S = 30.0


class Talk:
    """A conversation and all the lines that it gave."""

    def __init__(self, client: Client, agent: str) -> None:
        self.client = client
        self.conversation = Conversation(client, agent=agent, width=lambda: 79)
        self.shown: list[str] = []

    def show(self, lines: list[Line]) -> list[str]:
        texts = ["".join(text for _, text in line) for line in lines]
        self.shown += texts
        return texts

    async def until(self, match: Callable[[Update], bool]) -> list[str]:
        """Takes what happens up to something; returns the lines of it."""
        shown: list[str] = []
        async with asyncio.timeout(PATIENCE_S):
            while True:
                update = await anext(self.client)
                shown += self.show(self.conversation.take(update))
                if match(update):
                    return shown

    async def say(self, text: str, *, wait: bool = True) -> list[str]:
        run_id, lines = self.conversation.begin(text)
        self.show(lines)
        await self.conversation.say(run_id, text)
        if not wait:
            return []
        return await self.until(lambda update: isinstance(update, Event) and update.is_terminal)


@contextlib.asynccontextmanager
async def talking(server: ServerProcess, user: str, agent: str = "echo") -> AsyncIterator[Talk]:
    async with Client(server.http_url, user=user) as client:
        yield Talk(client, agent)


async def test_the_first_message_makes_the_thread_and_is_its_title(server: ServerProcess) -> None:
    async with talking(server, fresh("user")) as talk:
        assert talk.conversation.title == "new thread"
        shown = await talk.say("hello\nthere " + "x" * 100)
        assert shown[0] == "hello"
        assert talk.conversation.title == "hello⏎there " + "x" * 47 + "…"
        await talk.say("again")
        listed = await talk.client.list_threads()
        assert [thread.thread_id for thread in listed.threads] == [talk.conversation.thread_id]


async def test_threads_are_listed_and_switched_to_by_number_and_by_id(server: ServerProcess) -> None:
    async with talking(server, fresh("user")) as talk:
        assert talk.show(await talk.conversation.listing()) == ["There are no threads yet."]
        await talk.say("first")
        first = talk.conversation.thread_id
        assert first is not None
        assert talk.show(await talk.conversation.new("the second")) == ["— the second —"]
        await talk.say("second")
        numbered = talk.show(await talk.conversation.listing())
        assert [line.split("  20")[0] for line in numbered] == ["*  1  the second", "   2  first"]
        assert talk.show(await talk.conversation.switch("2")) == ["— first —", "", "> first", "first"]
        assert talk.conversation.thread_id == first
        assert await talk.say("more") == ["more", talk.shown[-1]]
        assert "— the second —" in talk.show(await talk.conversation.switch("1"))
        assert talk.show(await talk.conversation.switch(first))[-2:] == ["> more", "more"]
        with pytest.raises(Refused):
            await talk.conversation.switch("nowhere")
        assert talk.conversation.thread_id == first


async def test_a_thread_that_is_at_work_is_joined_without_a_seam(server: ServerProcess) -> None:
    user = fresh("user")
    async with talking(server, user, "slow") as other, talking(server, user) as talk:
        await other.say("done before", wait=False)
        await other.until(lambda update: isinstance(update, Event) and update.type == "agent_message")
        await other.conversation.stop()
        await other.until(lambda update: isinstance(update, Event) and update.is_terminal)
        await other.say("at work", wait=False)
        await other.until(lambda update: isinstance(update, Event) and update.type == "agent_message")
        thread_id = other.conversation.thread_id
        assert thread_id is not None
        past = talk.show(await talk.conversation.open(thread_id))
        assert past == ["— done before —", "", "> done before", "[stopped]", "started "]
        assert await talk.until(lambda update: isinstance(update, Event) and update.type == "agent_message") == [
            "",
            "> at work",
        ]
        assert [text for line in talk.conversation.view.live(0.0) for _, text in line] == ["started "]
        assert talk.show(await talk.conversation.stop()) == []
        ended = await talk.until(lambda update: isinstance(update, Event) and update.is_terminal)
        assert ended[0] == "started "
        assert ended[1].startswith("[stopped after ")


async def test_a_thread_is_named_and_its_name_cleared(server: ServerProcess) -> None:
    async with talking(server, fresh("user")) as talk:
        assert "There is no thread yet" in talk.show(await talk.conversation.name("x"))[0]
        await talk.say("hello")
        assert talk.show(await talk.conversation.name("Trees \x1b")) == ["The thread is called Trees ␛."]
        assert talk.conversation.title == "Trees \x1b"
        assert talk.show(await talk.conversation.name("")) == ["The thread has no title now."]
        assert talk.conversation.title == talk.conversation.thread_id


async def test_a_deleted_thread_is_gone_here_and_elsewhere(server: ServerProcess) -> None:
    user = fresh("user")
    async with talking(server, user) as one, talking(server, user) as two:
        assert one.show(await one.conversation.delete()) == ["There is no thread to delete."]
        await one.say("hello")
        thread_id = one.conversation.thread_id
        assert thread_id is not None
        await two.conversation.open(thread_id)
        assert one.show(await one.conversation.delete()) == ["Deleted: hello."]
        assert one.conversation.title == "new thread"
        assert "[the thread is gone: deleted]" in await two.until(lambda update: isinstance(update, Gone))
        assert two.conversation.thread_id is None
        await two.say("anew")
        assert two.conversation.thread_id not in (None, thread_id)


async def test_history_shows_the_latest_messages(server: ServerProcess) -> None:
    async with talking(server, fresh("user")) as talk:
        assert talk.show(await talk.conversation.history(5)) == ["There are no messages yet."]
        await talk.say("one")
        await talk.say("two")
        assert talk.show(await talk.conversation.history(2)) == ["", "> two", "two"]
        assert talk.show(await talk.conversation.stop()) == ["There is nothing to stop."]


async def test_what_happens_in_another_thread_is_not_shown(server: ServerProcess) -> None:
    async with talking(server, fresh("user"), "slow") as talk:
        # Nothing of it is taken before the other thread is shown.
        await talk.say("left alone", wait=False)
        await talk.client.stop(thread_id=talk.conversation.thread_id)
        await talk.conversation.new("")
        await talk.say("another", wait=False)
        taken: list[str] = []

        def is_of_the_other(update: Update) -> bool:
            taken.extend([update.thread_id] if isinstance(update, Event) else [])
            return taken[-1:] == [talk.conversation.thread_id] and isinstance(update, Event) and update.seq > 1

        assert await talk.until(is_of_the_other) == []
        assert len(set(taken)) == 2
        assert len(talk.conversation.view.busy) == 1


async def test_a_message_that_is_refused_is_no_run(server: ServerProcess) -> None:
    async with talking(server, fresh("user"), "nobody") as talk:
        with pytest.raises(Refused, match="agent_not_found"):
            await talk.say("hello")
        assert talk.conversation.view.busy == []
