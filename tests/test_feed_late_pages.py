"""What is committed after the journal was read, and told before its answer is there, reaches a follower; and one that
hears of another epoch of its thread looks which one that has."""

import asyncio
from typing import Any

import pytest

from agentws.core.context import Principal
from agentws.core.replay import Batch
from agentws.store.journal import PgJournal
from agentws.store.nodes import PgNodes
from agentws.store.threads import PgThreads
from agentws.wire.ids import ThreadId

from .conftest import StartService, TestDatabase
from .peers import peer
from .test_feed import dense
from .test_feed_ends import another_process

HOUR_MS = 3_600_000.0


class Late:
    """What the journal answers next arrives when it is let: what is read of it, or where threads end."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str = "read_events") -> None:
        self.read = asyncio.Event()
        self.arrive = asyncio.Event()
        plain, late = getattr(PgJournal, name), self

        async def answer(self: PgJournal, *args: Any, **named: Any) -> Any:
            answered = await plain(self, *args, **named)
            late.read.set()
            await late.arrive.wait()
            return answered

        monkeypatch.setattr(PgJournal, name, answer)


@pytest.mark.parametrize("holds_all", [False, True])
async def test_what_is_heard_while_a_page_is_on_its_way_is_read_without_a_further_hint(
    start_service: StartService, monkeypatch: pytest.MonkeyPatch, holds_all: bool
) -> None:
    service = await start_service(poll_interval_ms=HOUR_MS)
    async with peer(service) as client, peer(service) as other:
        first = await other.run("hi", agent="echo")
        thread_id, last_seq = first[0]["thread_id"], first[-1]["seq"]
        page = Late(monkeypatch)
        client.send(type="subscribe", thread_id=thread_id, after_seq=last_seq if holds_all else 0)
        await page.read.wait()
        second = await other.run("again", agent="echo", thread_id=thread_id)
        page.arrive.set()
        await client.ended(second[0]["run_id"])
        assert dense(client.frames) == (second if holds_all else [*first, *second])


async def test_the_last_events_of_a_thread_that_is_deleted_while_a_page_is_on_its_way_come_before_its_end(
    start_service: StartService, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = await start_service(poll_interval_ms=HOUR_MS)
    async with peer(service) as client, peer(service) as other:
        thread_id = (await other.ask("hi", agent="slow"))["thread_id"]
        last = await other.until_type("agent_message")
        other.send(type="unsubscribe", thread_id=thread_id)
        page = Late(monkeypatch)
        client.send(type="subscribe", thread_id=thread_id, after_seq=last["seq"])
        await page.read.wait()
        other.send(type="delete_thread", thread_id=thread_id)
        await other.until_type("thread_deleted")
        page.arrive.set()
        await client.until_type("thread_deleted")
        assert [each["type"] for each in dense(client.frames)] == ["agent_stopped"]


async def test_who_hears_of_another_epoch_is_told_at_once_where_the_thread_has_one(
    start_service: StartService, database: TestDatabase
) -> None:
    service = await start_service(poll_interval_ms=HOUR_MS)
    async with peer(service) as client, peer(service) as other, another_process(database) as pool:
        first = await client.run("hi", agent="echo")
        thread_id = first[0]["thread_id"]
        await PgNodes(pool).new_epochs()
        await other.run("again", agent="echo", thread_id=thread_id)
        ended = await client.until_type("subscription_ended")
        assert (ended["thread_id"], ended["reason"]) == (thread_id, "epoch_changed")


async def test_whose_thread_was_made_anew_unheard_of_is_told_so_when_it_hears_of_the_new_one(
    start_service: StartService, database: TestDatabase
) -> None:
    service = await start_service(poll_interval_ms=HOUR_MS)
    async with peer(service) as client, peer(service) as other, another_process(database) as pool:
        thread_id = (await client.run("hi", agent="echo"))[0]["thread_id"]
        await PgThreads(pool).delete(Principal("", "ada"), ThreadId(thread_id))
        other.send(type="create_thread", thread_id=thread_id)
        await other.until_type("thread_created")
        await other.run("again", agent="echo", thread_id=thread_id)
        assert (await client.until_type("thread_deleted"))["thread_id"] == thread_id


async def test_another_epoch_that_is_heard_of_while_the_last_look_is_on_its_way_is_looked_for_again(
    start_service: StartService, database: TestDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = await start_service(poll_interval_ms=HOUR_MS)
    async with peer(service) as client, peer(service) as other, another_process(database) as pool:
        thread_id = (await client.run("hi", agent="echo"))[0]["thread_id"]
        ends = Late(monkeypatch, "read_ends")
        assert service.feed is not None
        [subscription] = service.feed._subscriptions
        subscription.push(Batch(epoch="other", after_seq=9, last_seq=9))
        await ends.read.wait()
        await PgNodes(pool).new_epochs()
        await other.run("again", agent="echo", thread_id=thread_id)
        ends.arrive.set()
        assert (await client.until_type("subscription_ended"))["reason"] == "epoch_changed"
