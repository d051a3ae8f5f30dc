"""Section 3 and 4, `list_threads`: the user's own threads, latest first, page by page."""

import pytest

from .client import Client, Server, connect, fresh
from .runs import at_work
from .shapes import Frame
from .threads import delete, history, listed, pages, update


async def some_threads(client: Client, count: int) -> list[str]:
    """New threads, the latest first."""
    return [(await client.new_thread())["thread_id"] for _ in range(count)][::-1]


def names(threads: list[Frame]) -> list[str]:
    return [thread["thread_id"] for thread in threads]


async def test_a_user_without_threads_has_an_empty_list(server: Server) -> None:
    async with connect(server) as client:
        answer = await listed(client)
        assert (answer["threads"], answer["next_before"]) == ([], None)


@pytest.mark.parametrize("frame", [{}, {"payload": {}}, {"payload": None}, {"limit": None, "before": None}])
async def test_the_list_may_be_asked_for_in_every_shape_of_a_frame(server: Server, frame: Frame) -> None:
    async with connect(server) as client:
        made = await some_threads(client, 2)
        answer = await client.granted({"type": "list_threads", **frame}, "thread_list")
        assert names(answer["threads"]) == made


async def test_a_list_describes_threads_as_their_making_did(server: Server) -> None:
    async with connect(server) as client:
        first = await client.new_thread(title="one", metadata={"a": [1, None]})
        second = await client.new_thread()
        assert (await listed(client))["threads"] == [second, first]


async def test_the_latest_change_comes_first(server: Server) -> None:
    async with connect(server) as client:
        c, b, a = await some_threads(client, 3)
        assert names((await listed(client))["threads"]) == [c, b, a]
        await update(client, a, title="changed")
        assert names((await listed(client))["threads"]) == [a, c, b]
        await client.run("hi", thread_id=b)
        assert names((await listed(client))["threads"]) == [b, a, c]


async def test_a_thread_made_by_a_start_is_listed(server: Server) -> None:
    async with connect(server) as client:
        accepted = await client.start("hi")
        ended = await client.ended(accepted["run_id"])
        [thread] = (await listed(client))["threads"]
        assert (thread["thread_id"], thread["epoch"]) == (accepted["thread_id"], accepted["epoch"])
        assert (thread["last_seq"], thread["running_run_id"]) == (ended["seq"], None)


async def test_the_running_run_is_named(server: Server) -> None:
    async with connect(server) as client:
        accepted = await at_work(client)
        [thread] = (await listed(client))["threads"]
        assert thread["running_run_id"] == accepted["run_id"]
        await client.stop(run_id=accepted["run_id"])
        await client.ended(accepted["run_id"])
        [thread] = (await listed(client))["threads"]
        assert thread["running_run_id"] is None


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 8, 200])
async def test_the_pages_joined_are_the_list(server: Server, limit: int) -> None:
    async with connect(server) as client:
        made = await some_threads(client, 7)
        found = await pages(client, {"type": "list_threads", "payload": {"limit": limit}}, "threads")
        assert [name for page in found for name in names(page)] == made
        assert all(len(page) == limit for page in found[:-1])
        assert len(found[-1]) <= limit


async def test_a_page_has_fifty_threads_where_no_limit_is_given(server: Server) -> None:
    async with connect(server) as client:
        made = await some_threads(client, 53)
        first = await listed(client)
        assert names(first["threads"]) == made[:50]
        second = await listed(client, before=first["next_before"])
        assert (names(second["threads"]), second["next_before"]) == (made[50:], None)


async def test_a_cursor_serves_again_and_on_another_connection(server: Server) -> None:
    user = fresh("u")
    async with connect(server, user) as one, connect(server, user) as two:
        made = await some_threads(one, 4)
        cursor = (await listed(one, limit=2))["next_before"]
        for client in (one, two, one):
            assert names((await listed(client, limit=2, before=cursor))["threads"]) == made[2:]


async def test_a_thread_that_moves_between_pages_is_told_once(server: Server) -> None:
    async with connect(server) as client:
        made = await some_threads(client, 6)
        first = await listed(client, limit=3)
        await update(client, made[1], title="moved")
        rest = await listed(client, limit=3, before=first["next_before"])
        assert names(first["threads"]) + names(rest["threads"]) == made


@pytest.mark.parametrize("kind", ["list_threads", "get_thread_history"])
@pytest.mark.parametrize("bad", [0, -1, 201, 10**9, "5", 1.5, True, [], {}])
async def test_a_limit_outside_its_range_is_refused_and_never_clamped(server: Server, kind: str, bad: object) -> None:
    async with connect(server) as client:
        thread_id = (await client.new_thread())["thread_id"]
        frame = {"type": kind, "payload": {"thread_id": thread_id, "limit": bad}}
        await client.refused(frame, "validation_error", field="limit")


@pytest.mark.parametrize("kind", ["list_threads", "get_thread_history"])
@pytest.mark.parametrize("bad", [5, True, [], {}, "no cursor at all", "", "x" * 5000])
async def test_a_cursor_that_is_none_is_named(server: Server, kind: str, bad: object) -> None:
    async with connect(server) as client:
        thread_id = (await client.new_thread())["thread_id"]
        frame = {"type": kind, "payload": {"thread_id": thread_id, "before": bad}}
        await client.refused(frame, "validation_error", field="before")
        await client.still_serves()


async def test_a_list_holds_no_other_users_threads(server: Server) -> None:
    async with connect(server) as one, connect(server) as two:
        ours, theirs = await some_threads(one, 3), await some_threads(two, 3)
        assert names((await listed(one))["threads"]) == ours
        assert names((await listed(two))["threads"]) == theirs


@pytest.mark.parametrize("kind", ["list_threads", "get_thread_history"])
async def test_another_users_cursor_opens_nothing_of_theirs(server: Server, kind: str) -> None:
    name = fresh("t")
    async with connect(server) as one, connect(server) as two:
        for client in (one, two):
            await client.run("hi", thread_id=(await client.new_thread(name))["thread_id"])
            await client.new_thread()
        asked = {"thread_id": name, "limit": 1}
        cursor = (await one.ask({"type": kind, "payload": asked}))["next_before"]
        answer = await two.ask({"type": kind, "payload": asked | {"before": cursor}})
        if answer["type"] == "error":
            assert answer["code"] == "validation_error"
        else:
            own = [*(await listed(two))["threads"], *(await history(two, name))["messages"]]
            told: list[Frame] = answer["threads" if kind == "list_threads" else "messages"]
            assert all(entry in own for entry in told)


async def test_a_deleted_thread_is_not_listed(server: Server) -> None:
    async with connect(server) as client:
        made = await some_threads(client, 3)
        await delete(client, made[1])
        assert names((await listed(client))["threads"]) == [made[0], made[2]]
