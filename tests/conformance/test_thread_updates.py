"""Section 3, `update_thread`: what is given replaces the whole old value, what is not given stays."""

import pytest

from .client import Server, connect, fresh
from .threads import listed, update


async def test_a_title_is_replaced_and_the_metadata_stay(server: Server) -> None:
    async with connect(server) as client:
        made = await client.new_thread(title="old", metadata={"a": 1})
        changed = await update(client, made["thread_id"], title="Zoë's 🎈")
        assert (changed["title"], changed["metadata"]) == ("Zoë's 🎈", {"a": 1})


async def test_metadata_are_replaced_as_a_whole_and_the_title_stays(server: Server) -> None:
    async with connect(server) as client:
        made = await client.new_thread(title="old", metadata={"a": 1, "deep": {"b": 2, "c": 3}})
        for metadata in ({"deep": {"b": 5}}, {"x": [None, True, 1.5, "é"]}, {}):
            changed = await update(client, made["thread_id"], metadata=metadata)
            assert (changed["title"], changed["metadata"]) == ("old", metadata)


async def test_both_may_be_given_at_once_also_to_a_thread_that_had_neither(server: Server) -> None:
    async with connect(server) as client:
        thread_id = (await client.new_thread())["thread_id"]
        changed = await update(client, thread_id, title="new", metadata={"n": 1})
        assert (changed["title"], changed["metadata"]) == ("new", {"n": 1})


async def test_an_empty_text_clears_the_title(server: Server) -> None:
    async with connect(server) as client:
        made = await client.new_thread(title="old", metadata={"a": 1})
        changed = await update(client, made["thread_id"], title="")
        assert (changed["title"], changed["metadata"]) == (None, {"a": 1})
        assert (await listed(client))["threads"][0]["title"] is None


async def test_what_is_absent_or_null_stays(server: Server) -> None:
    async with connect(server) as client:
        made = await client.new_thread(title="old", metadata={"a": 1})
        for nothing in ({}, {"title": None}, {"metadata": None}, {"title": None, "metadata": None}):
            changed = await update(client, made["thread_id"], **nothing)
            assert (changed["title"], changed["metadata"]) == ("old", {"a": 1})


@pytest.mark.parametrize(
    ("field", "bad"),
    [("title", 5), ("title", []), ("title", False), ("metadata", "x"), ("metadata", []), ("metadata", 0)],
)
async def test_a_field_of_a_wrong_type_is_named_and_nothing_changes(server: Server, field: str, bad: object) -> None:
    async with connect(server) as client:
        made = await client.new_thread(title="old", metadata={"a": 1})
        payload = {"thread_id": made["thread_id"], "title": "new", "metadata": {}, field: bad}
        await client.refused({"type": "update_thread", "payload": payload}, "validation_error", field=field)
        assert (await listed(client))["threads"] == [made]


async def test_an_update_moves_the_time_and_leaves_all_else(server: Server) -> None:
    async with connect(server) as client:
        events = await client.run("hi")
        made = await client.new_thread(events[0]["thread_id"])
        changed = await update(client, made["thread_id"], title="new")
        assert changed["updated_at"] >= made["updated_at"] >= made["created_at"]
        for name in ("created_at", "epoch", "last_seq", "running_run_id"):
            assert changed[name] == made[name]
        assert changed["last_seq"] == events[-1]["seq"]


async def test_every_connection_of_the_user_sees_the_new_value(server: Server) -> None:
    user = fresh("u")
    async with connect(server, user) as one, connect(server, user) as two:
        thread_id = (await one.new_thread(title="old"))["thread_id"]
        changed = await update(one, thread_id, title="new")
        assert (await listed(two))["threads"] == [changed]
        assert await two.new_thread(thread_id, title="newer") == changed


async def test_an_update_is_answered_to_the_asker_alone(server: Server) -> None:
    user = fresh("u")
    async with connect(server, user) as one, connect(server, user) as two:
        thread_id = (await one.new_thread())["thread_id"]
        for client in (one, two):
            await client.replay(thread_id)
        await update(one, thread_id, title="new")
        await two.still_serves()
        assert not any(frame["type"] == "thread_updated" for frame in two.log)


async def test_a_thread_at_work_may_be_updated(server: Server) -> None:
    async with connect(server) as client:
        accepted = await client.start("hi")
        changed = await update(client, accepted["thread_id"], title="busy")
        assert changed["title"] == "busy"
        await client.ended(accepted["run_id"])
