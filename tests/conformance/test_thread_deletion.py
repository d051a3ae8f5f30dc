"""Section 3, Threads: deleting ends the runs of a thread, its subscriptions, and the thread."""

import asyncio

import pytest

from .client import Client, Server, connect, fresh, of_type
from .reader import Reader
from .runs import at_work
from .shapes import Frame
from .threads import delete, switch


async def unused(client: Client) -> None:
    """A frame whose answer comes after all that was told before it."""
    await client.granted({"type": "heartbeat"}, "heartbeat_ack")


def of_log(client: Client, kind: str) -> list[Frame]:
    return [frame for frame in client.log if frame["type"] == kind]


AFTERWARDS: list[Frame] = [
    {"type": "subscribe"},
    {"type": "switch_thread"},
    {"type": "update_thread", "title": "new"},
    {"type": "get_thread_history"},
    {"type": "delete_thread"},
    {"type": "user_message", "content": "hi"},
    {"type": "start_agent", "user_request": "hi"},
]


@pytest.mark.parametrize("frame", AFTERWARDS, ids=lambda frame: str(frame["type"]))
async def test_a_deleted_thread_is_not_found(server: Server, frame: Frame) -> None:
    user = fresh("u")
    async with connect(server, user) as one, connect(server, user) as two:
        thread_id = (await one.run("hi"))[0]["thread_id"]
        await delete(one, thread_id)
        for client in (one, two):
            await client.refused(frame | {"thread_id": thread_id}, "thread_not_found")


async def test_the_asker_hears_once_with_its_id_whether_it_was_subscribed_or_not(server: Server) -> None:
    async with connect(server) as client:
        for subscribed in (True, False):
            thread_id = (await client.new_thread())["thread_id"]
            if subscribed:
                await client.replay(thread_id)
            answer = await delete(client, thread_id)
            await unused(client)
            told = [frame for frame in of_log(client, "thread_deleted") if frame["thread_id"] == thread_id]
            assert told == [answer]


async def test_every_subscribed_connection_hears_with_id_null(server: Server) -> None:
    user = fresh("u")
    async with connect(server, user) as asker, connect(server, user) as two, connect(server, user) as three:
        thread_id = (await asker.new_thread())["thread_id"]
        await two.replay(thread_id)
        await three.run("hi", thread_id=thread_id)
        await delete(asker, thread_id)
        for client in (two, three):
            told = await client.next(of_type("thread_deleted"), "thread_deleted")
            assert (told["id"], told["thread_id"]) == (None, thread_id)


async def test_who_is_not_subscribed_or_another_user_hears_nothing(server: Server) -> None:
    user = fresh("u")
    async with connect(server, user) as asker, connect(server, user) as other, connect(server) as stranger:
        thread_id = (await asker.new_thread())["thread_id"]
        await stranger.new_thread(thread_id)
        await stranger.replay(thread_id)
        await delete(asker, thread_id)
        for client in (other, stranger):
            await client.still_serves()
            assert of_log(client, "thread_deleted") == []
        await stranger.run("still there", thread_id=thread_id)


async def test_the_runs_end_before_the_thread_is_told_deleted(server: Server) -> None:
    user = fresh("u")
    async with connect(server, user) as asker, connect(server, user) as other:
        accepted = await at_work(asker)
        thread_id = accepted["thread_id"]
        waiting = [(await asker.start(text))["run_id"] for text in ("one", "two")]
        subscribed, _ = await other.replay(thread_id)
        answer = await delete(asker, thread_id)
        told = await other.next(of_type("thread_deleted"), "thread_deleted")
        for client, mark, end in [(asker, accepted, answer), (other, subscribed, told)]:
            events = client.events(thread_id, since=mark, until=end)
            reader = Reader(accepted["seq"] if client is asker else 0).feed_all(events)
            for run_id in (accepted["run_id"], *waiting):
                terminal = reader.runs[run_id].terminal
                assert terminal is not None
                assert (terminal["type"], terminal["payload"]["reason"]) == ("agent_stopped", "thread_deleted")
            assert [event["type"] for event in events].count("agent_started") == 1


async def test_nothing_of_the_thread_is_told_after_its_deletion(server: Server) -> None:
    async with connect(server) as client:
        accepted = await at_work(client)
        answer = await delete(client, accepted["thread_id"])
        await client.still_serves()
        assert client.events(accepted["thread_id"], since=answer) == []


async def test_runs_of_other_threads_go_on(server: Server) -> None:
    async with connect(server) as client:
        accepted = await at_work(client)
        other = (await client.new_thread())["thread_id"]
        await at_work(client, thread_id=other)
        await delete(client, other)
        await unused(client)
        assert (await client.new_thread(accepted["thread_id"]))["running_run_id"] == accepted["run_id"]


async def test_a_run_of_a_deleted_thread_is_not_stopped_again(server: Server) -> None:
    async with connect(server) as client:
        accepted = await at_work(client)
        await delete(client, accepted["thread_id"])
        answer = await client.ask({"type": "stop_agent", "run_id": accepted["run_id"]})
        if answer["type"] == "error":
            assert answer["code"] == "run_not_found"
        else:
            assert (answer["run_ids"], answer["already_ended"]) == ([], [accepted["run_id"]])


async def test_the_current_thread_is_unset_when_it_is_deleted(server: Server) -> None:
    async with connect(server) as client:
        first = (await client.start("hi"))["thread_id"]
        await delete(client, first)
        second = (await client.start("hi"))["thread_id"]
        assert second != first
        await switch(client, (await client.new_thread())["thread_id"])
        await delete(client, second)
        assert (await client.start("hi"))["thread_id"] not in {first, second}


@pytest.mark.parametrize("subscribed", [True, False], ids=["subscribed", "not subscribed"])
async def test_the_current_thread_is_unset_when_another_connection_deletes_it(server: Server, subscribed: bool) -> None:
    user = fresh("u")
    async with connect(server, user) as client, connect(server, user) as other:
        gone = (await client.run("hi"))[0]["thread_id"]
        if not subscribed:
            await client.granted({"type": "unsubscribe", "thread_id": gone}, "unsubscribed")
        await delete(other, gone)
        if subscribed:
            await client.next(of_type("thread_deleted"), "thread_deleted")
        accepted = await client.start("on")
        assert accepted["thread_id"] != gone
        assert (await client.start("and on"))["thread_id"] == accepted["thread_id"]


async def test_another_current_thread_stays(server: Server) -> None:
    async with connect(server) as client:
        current = (await client.start("hi"))["thread_id"]
        await delete(client, (await client.new_thread())["thread_id"])
        assert (await client.start("hi"))["thread_id"] == current


async def test_of_two_that_delete_at_once_one_does(server: Server) -> None:
    user = fresh("u")
    async with connect(server, user) as one, connect(server, user) as two:
        for _ in range(5):
            asked = {"type": "delete_thread", "thread_id": (await one.new_thread())["thread_id"]}
            answers = await asyncio.gather(one.ask(asked), two.ask(asked))
            assert sorted(answer["type"] for answer in answers) == ["error", "thread_deleted"]
            assert {answer.get("code") for answer in answers} == {None, "thread_not_found"}


async def test_a_deletion_amid_starts_leaves_each_run_one_end(server: Server) -> None:
    user = fresh("u")
    async with connect(server, user) as one, connect(server, user) as two:
        thread_id = (await one.new_thread())["thread_id"]
        sent = [await one.post({"type": "chat", "content": "hi", "thread_id": thread_id}) for _ in range(6)]
        await delete(two, thread_id)
        answers = [await one.answer_to(frame_id) for frame_id in sent]
        accepted = [answer for answer in answers if answer["type"] == "request_accepted"]
        assert {answer["code"] for answer in answers if answer not in accepted} <= {"thread_not_found"}
        for answer in accepted:
            await one.ended(answer["run_id"])
        if accepted:
            one.reader(thread_id, after_seq=accepted[0]["seq"], since=accepted[0])
            await one.next(of_type("thread_deleted"), "thread_deleted")
