"""Section 3, `create_thread`: a name, a title and data of a user's own, made once."""

import asyncio

import pytest

from .client import Client, Server, connect, fresh
from .runs import at_work
from .shapes import CLIENT_ID, Frame


async def create(client: Client, **payload: object) -> Frame:
    answer = await client.granted({"type": "create_thread", "payload": payload}, "thread_created")
    thread: Frame = answer["thread"]
    return thread


async def test_a_thread_without_a_name_gets_one(server: Server) -> None:
    async with connect(server) as client:
        one, two = await create(client), await create(client)
        assert one["thread_id"] != two["thread_id"]
        assert CLIENT_ID.fullmatch(one["thread_id"])
        assert (one["last_seq"], one["running_run_id"]) == (0, None)


async def test_a_frame_with_nothing_but_its_type_makes_a_thread(server: Server) -> None:
    async with connect(server) as client:
        await client.granted({"type": "create_thread"}, "thread_created")


async def test_a_thread_keeps_its_name_title_and_metadata(server: Server) -> None:
    async with connect(server) as client:
        given = {"thread_id": fresh("T.:-_"), "title": "Zoë's 🎈", "metadata": {"a": [1, 2.5, None, {"b": True}]}}
        thread = await create(client, **given)
        assert {name: thread[name] for name in given} == given


async def test_the_fields_may_stand_at_the_top(server: Server) -> None:
    async with connect(server) as client:
        given = {"thread_id": fresh("t"), "title": "flat", "metadata": {"a": 1}}
        answer = await client.granted({"type": "create_thread", **given}, "thread_created")
        assert {name: answer["thread"][name] for name in given} == given


async def test_the_same_name_again_is_the_same_thread(server: Server) -> None:
    async with connect(server) as client:
        first = await create(client, thread_id=fresh("t"), title="first", metadata={"n": 1})
        again = await create(client, thread_id=first["thread_id"], title="second", metadata={"n": 2})
        for name in ("thread_id", "title", "metadata", "epoch", "created_at", "last_seq"):
            assert again[name] == first[name]


async def test_the_same_name_again_leaves_its_events(server: Server) -> None:
    async with connect(server) as client:
        thread_id = (await create(client))["thread_id"]
        events = await client.run("hi", thread_id=thread_id)
        again = await create(client, thread_id=thread_id)
        assert (again["last_seq"], again["epoch"]) == (events[-1]["seq"], events[-1]["epoch"])


async def test_a_thread_made_by_a_start_may_be_created_again(server: Server) -> None:
    async with connect(server) as client:
        events = await client.run("hi")
        thread = await create(client, thread_id=events[0]["thread_id"])
        assert (thread["epoch"], thread["last_seq"]) == (events[0]["epoch"], events[-1]["seq"])


async def test_two_connections_that_create_it_at_once_make_one(server: Server) -> None:
    user = fresh("u")
    async with connect(server, user) as one, connect(server, user) as two:
        for _ in range(5):
            thread_id = fresh("t")
            first, second = await asyncio.gather(*(create(client, thread_id=thread_id) for client in (one, two)))
            assert (first["epoch"], first["created_at"]) == (second["epoch"], second["created_at"])


async def test_the_running_run_is_named(server: Server) -> None:
    async with connect(server) as client:
        accepted = await at_work(client)
        assert (await create(client, thread_id=accepted["thread_id"]))["running_run_id"] == accepted["run_id"]
        await client.granted({"type": "stop_agent", "run_id": accepted["run_id"]}, "stop_accepted")
        await client.ended(accepted["run_id"])
        assert (await create(client, thread_id=accepted["thread_id"]))["running_run_id"] is None


@pytest.mark.parametrize(
    ("field", "bad"), [("title", 5), ("title", []), ("title", False), ("metadata", "x"), ("metadata", [])]
)
async def test_a_field_of_a_wrong_type_is_named_and_no_thread_is_made(server: Server, field: str, bad: object) -> None:
    async with connect(server) as client:
        thread_id = fresh("t")
        frame = {"type": "create_thread", "thread_id": thread_id, "payload": {field: bad}}
        await client.refused(frame, "validation_error", field=field)
        await client.refused({"type": "subscribe", "thread_id": thread_id}, "thread_not_found")


async def test_a_created_thread_is_not_subscribed(server: Server) -> None:
    user = fresh("u")
    async with connect(server, user) as maker, connect(server, user) as other:
        thread_id = (await create(maker))["thread_id"]
        await other.run("hi", thread_id=thread_id)
        subscribed, _ = await maker.replay(thread_id)
        assert maker.events(thread_id, until=subscribed) == []


async def test_the_same_name_of_two_users_is_two_threads(server: Server) -> None:
    thread_id = fresh("t")
    async with connect(server) as one, connect(server) as two:
        first = await create(one, thread_id=thread_id, title="one's")
        second = await create(two, thread_id=thread_id, title="two's")
        assert (first["title"], second["title"]) == ("one's", "two's")
        await one.run("hi", thread_id=thread_id)
        assert (await create(two, thread_id=thread_id))["last_seq"] == 0
