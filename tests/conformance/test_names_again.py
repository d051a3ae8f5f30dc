"""Sections 3 and 5: a deleted thread's name may be made anew, with nothing of its past: another epoch, seq from 1."""

from .client import Client, Server, connect, fresh, of_type
from .reader import Reader
from .runs import at_work
from .shapes import Frame
from .threads import delete, history, switch


async def made_anew(client: Client) -> tuple[Frame, Frame]:
    """The last event of a thread that is gone, and the thread that has its name now."""
    thread = await client.new_thread(title="old", metadata={"old": True})
    events = await client.run("old words", thread_id=thread["thread_id"])
    await delete(client, thread["thread_id"])
    return events[-1], await client.new_thread(thread["thread_id"])


async def test_a_name_made_anew_has_another_epoch_and_nothing_of_the_past(server: Server) -> None:
    async with connect(server) as client:
        last, thread = await made_anew(client)
        assert thread["thread_id"] == last["thread_id"]
        assert thread["epoch"] != last["epoch"]
        assert (thread["title"], thread["metadata"] or {}, thread["last_seq"]) == (None, {}, 0)
        answer = await history(client, thread["thread_id"])
        assert (answer["messages"], answer["last_seq"], answer["epoch"]) == ([], 0, thread["epoch"])


async def test_its_numbers_begin_with_one_again(server: Server) -> None:
    async with connect(server) as client:
        _, thread = await made_anew(client)
        events = await client.run("new words", thread_id=thread["thread_id"])
        assert events[0]["seq"] == 1
        assert {event["epoch"] for event in events} == {thread["epoch"]}
        _, replayed = await client.replay(thread["thread_id"])
        assert Reader().feed_all(replayed).last_seq == events[-1]["seq"]
        assert "old words" not in [event["payload"].get("message") for event in replayed]


async def test_who_held_the_old_one_is_not_recovered(server: Server) -> None:
    async with connect(server) as client:
        last, thread = await made_anew(client)
        events = await client.run("new words", thread_id=thread["thread_id"])
        subscribed, replayed = await client.replay(thread["thread_id"], after_seq=1, epoch=last["epoch"])
        assert (subscribed["recovered"], subscribed["after_seq"]) == (False, 0)
        assert subscribed["epoch"] == thread["epoch"]
        assert Reader().feed_all(replayed).last_seq == events[-1]["seq"]
        subscribed, _ = await client.replay(thread["thread_id"], after_seq=1, epoch=thread["epoch"])
        assert (subscribed["recovered"], subscribed["after_seq"]) == (True, 1)


async def test_a_switch_with_the_old_epoch_is_not_recovered(server: Server) -> None:
    async with connect(server) as client:
        last, thread = await made_anew(client)
        _, subscribed, _ = await switch(client, thread["thread_id"], after_seq=0, epoch=last["epoch"])
        assert (subscribed["recovered"], subscribed["epoch"]) == (False, thread["epoch"])


async def test_a_subscription_of_the_old_one_does_not_hear_the_new_one(server: Server) -> None:
    user = fresh("u")
    async with connect(server, user) as one, connect(server, user) as two:
        thread_id = (await one.new_thread())["thread_id"]
        await two.replay(thread_id)
        await delete(one, thread_id)
        told = await two.next(of_type("thread_deleted"), "thread_deleted")
        await one.new_thread(thread_id)
        await one.run("unheard", thread_id=thread_id)
        subscribed, events = await two.replay(thread_id)
        assert two.events(thread_id, since=told, until=subscribed) == []
        assert Reader().feed_all(events).last_seq == events[-1]["seq"]


async def test_three_lives_of_a_name_have_three_epochs(server: Server) -> None:
    async with connect(server) as client:
        name, epochs = fresh("t"), set()
        for _ in range(3):
            epochs.add((await client.new_thread(name))["epoch"])
            events = await client.run("hi", thread_id=name)
            assert events[0]["seq"] == 1
            await delete(client, name)
        assert len(epochs) == 3


async def test_a_run_of_the_old_life_does_not_make_the_new_one_busy(server: Server) -> None:
    async with connect(server) as client:
        accepted = await at_work(client)
        thread_id = accepted["thread_id"]
        await delete(client, thread_id)
        thread = await client.new_thread(thread_id)
        assert thread["running_run_id"] is None
        events = await client.run("at once", thread_id=thread_id)
        assert [events[0]["type"], events[0]["seq"]] == ["agent_started", 1]


async def test_a_repeat_of_a_start_whose_thread_is_gone_is_answered_as_a_repeat(server: Server) -> None:
    async with connect(server) as client:
        key = fresh("key")
        first = await client.start("hi", idempotency_key=key)
        await client.ended(first["run_id"])
        await delete(client, first["thread_id"])
        repeat = await client.start("hi", idempotency_key=key)
        assert repeat["duplicate"] is True
        for name in ("request_id", "run_id", "thread_id"):
            assert repeat[name] == first[name]
        await client.refused({"type": "subscribe", "thread_id": first["thread_id"]}, "thread_not_found")
        await client.refused({"type": "user_message", "content": "ho", "idempotency_key": key}, "idempotency_conflict")


async def test_a_repeat_that_names_the_thread_that_is_gone_is_a_repeat_too(server: Server) -> None:
    async with connect(server) as client:
        thread_id = (await client.new_thread())["thread_id"]
        first = await client.start("hi", thread_id=thread_id, idempotency_key="k")
        await delete(client, thread_id)
        repeat = await client.start("hi", thread_id=thread_id, idempotency_key="k")
        assert (repeat["duplicate"], repeat["run_id"]) == (True, first["run_id"])


async def test_a_repeat_does_not_subscribe_to_the_new_life_of_the_name(server: Server) -> None:
    user = fresh("u")
    async with connect(server, user) as one, connect(server, user) as two:
        thread_id = (await one.new_thread())["thread_id"]
        first = await one.start("hi", thread_id=thread_id, idempotency_key="k")
        await one.ended(first["run_id"])
        await delete(one, thread_id)
        thread = await one.new_thread(thread_id)
        repeat = await two.start("hi", thread_id=thread_id, idempotency_key="k")
        assert (repeat["duplicate"], repeat["run_id"]) == (True, first["run_id"])
        await one.run("unheard", thread_id=thread_id)
        subscribed, _ = await two.replay(thread_id)
        assert two.events(thread_id, until=subscribed) == []
        assert subscribed["epoch"] == thread["epoch"]
