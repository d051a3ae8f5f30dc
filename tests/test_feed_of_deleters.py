"""Who deletes a thread is told so once, as the answer, whoever else tells of the same end, and when."""

import asyncio
from typing import Any

import pytest

from agentws.ports import StoreUnavailable
from agentws.store.nodes import PgNodes
from agentws.store.threads import PgThreads

from .conftest import StartService, TestDatabase
from .faults import Line
from .peers import Peer, peer
from .test_feed_ends import another_process, of_thread, polled


class SlowAnswer:
    """Deletions take effect, and their answers wait."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.done = asyncio.Event()
        self.go_on = asyncio.Event()
        self.is_lost = False
        plain, slow = PgThreads.delete, self

        async def delete(self: PgThreads, *names: Any) -> Any:
            deleted = await plain(self, *names)
            slow.done.set()
            await slow.go_on.wait()
            if slow.is_lost:
                raise StoreUnavailable("the answer was lost")
            return deleted

        monkeypatch.setattr(PgThreads, "delete", delete)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> SlowAnswer:
    return SlowAnswer(monkeypatch)


def ends(client: Peer, thread_id: str) -> list[tuple[str, str | None]]:
    frames = [frame for frame in of_thread(client, thread_id) if "event_id" not in frame]
    return [(frame["type"], frame.get("id")) for frame in frames]


@pytest.mark.parametrize(("agent", "last"), [("slow", "agent_stopped"), ("echo", "agent_completed")])
async def test_a_deleter_who_is_told_of_the_end_before_the_answer_is_there_hears_the_answer_only(
    start_service: StartService, slow: SlowAnswer, agent: str, last: str
) -> None:
    service = await start_service(poll_interval_ms=20)
    async with peer(service) as client, peer(service) as other:
        thread_id = (await client.ask("hi", agent=agent))["thread_id"]
        await client.until_type("agent_message")
        if agent == "echo":
            await client.until_type(last)
        other.send(type="subscribe", thread_id=thread_id)
        await other.until_type("caught_up")
        client.send(type="delete_thread", id="d", thread_id=thread_id)
        await slow.done.wait()
        # Both are told of it in the same look.
        await other.until_type("thread_deleted")
        slow.go_on.set()
        await client.until(lambda frame: frame.get("id") == "d")
        client.send(type="ping", id="p")
        await client.until(lambda frame: frame.get("id") == "p")
        assert ends(client, thread_id) == [("thread_deleted", "d")]
        assert ends(other, thread_id) == [("thread_deleted", None)]
        # The run's end, which the transaction may have written, comes before.
        assert [frame["type"] for frame in of_thread(client, thread_id)][-2:] == [last, "thread_deleted"]


async def test_a_deleter_whose_answer_is_lost_is_told_as_the_others_are(
    start_service: StartService, slow: SlowAnswer
) -> None:
    service = await start_service(poll_interval_ms=20)
    async with peer(service) as client, peer(service) as other:
        thread_id = (await client.run("hi", agent="echo"))[0]["thread_id"]
        other.send(type="subscribe", thread_id=thread_id)
        await other.until_type("caught_up")
        client.send(type="delete_thread", id="d", thread_id=thread_id)
        await slow.done.wait()
        await other.until_type("thread_deleted")
        slow.is_lost = True
        slow.go_on.set()
        assert (await client.until_type("error"))["code"] == "database_unavailable"
        assert ends(client, thread_id) == [("thread_deleted", None)]


async def test_a_thread_that_got_a_new_epoch_and_is_deleted_at_once_ends_once_for_everybody(
    start_service: StartService, database: TestDatabase, line: Line
) -> None:
    service = await start_service(poll_interval_ms=20)
    async with peer(service) as client, peer(service) as other, another_process(database) as pool:
        thread_id = (await client.run("hi", agent="echo"))[0]["thread_id"]
        other.send(type="subscribe", thread_id=thread_id)
        await other.until_type("caught_up")
        line.hold("read_heads")
        await line.waiting.wait()
        await PgNodes(pool).new_epochs()
        client.send(type="delete_thread", id="d", thread_id=thread_id)
        await client.until(lambda frame: frame.get("id") == "d")
        line.mend()
        await other.until_type("thread_deleted")
        async with peer(service, "bob") as bystander:
            await bystander.run("hi", agent="echo")
            for each in (client, other):
                await polled(line, each)
        assert ends(client, thread_id) == [("subscription_ended", None), ("thread_deleted", "d")]
        assert ends(other, thread_id) == [("thread_deleted", None)]
