"""Section 6, what is read beside the WebSocket: the user, the threads, one thread, its messages; the same as there."""

import pytest

from .api import anonymous, calling
from .client import JwtServer, Server, connect, fresh
from .runs import at_work
from .shapes import Frame, check_body
from .threads import history, listed, update


def path_of(thread_id: str, rest: str = "") -> str:
    return f"/api/threads/{thread_id}{rest}"


async def test_me_tells_who_is_asking(server: Server) -> None:
    async with calling(server) as api:
        me = await api.get("/api/me")
        check_body("me", me)
        assert (me["user_id"], me["tenant_id"]) == (api.user_id, "")


@pytest.mark.needs("dev")
async def test_in_dev_auth_who_names_nobody_is_dev_over_http_too(server: Server) -> None:
    async with anonymous(server) as http:
        assert (await http.get("/api/me")).json()["user_id"] == "dev"


@pytest.mark.parametrize("user", ["auth0|5f7c8ec7c33c6c004bbafe82", "Zoë Å. 🎈", "x" * 255, "a@b.example"])
async def test_a_user_id_is_any_text_over_http_too(server: Server, user: str) -> None:
    async with calling(server, user) as api:
        assert (await api.get("/api/me"))["user_id"] == user


async def test_the_list_is_the_list_of_the_websocket(server: Server) -> None:
    async with connect(server) as client, calling(server, client.user_id) as api:
        assert (await api.get("/api/threads"))["threads"] == []
        for title in ("one", "two", "three"):
            await client.new_thread(title=title, metadata={"n": title})
        there = await listed(client)
        here = await api.get("/api/threads")
        check_body("thread_list", here)
        assert (here["threads"], here["next_before"]) == (there["threads"], there["next_before"])


@pytest.mark.parametrize("limit", [1, 2, 5, 200])
async def test_the_list_is_read_page_by_page(server: Server, limit: int) -> None:
    async with connect(server) as client, calling(server, client.user_id) as api:
        made = [(await client.new_thread())["thread_id"] for _ in range(5)][::-1]
        found: list[str] = []
        page = await api.get("/api/threads", limit=limit)
        while True:
            found += [thread["thread_id"] for thread in page["threads"]]
            assert len(page["threads"]) <= limit
            if page["next_before"] is None:
                break
            page = await api.get("/api/threads", limit=limit, before=page["next_before"])
        assert found == made


async def test_a_thread_is_described_as_in_the_list(server: Server) -> None:
    async with connect(server) as client, calling(server, client.user_id) as api:
        made = await client.new_thread(title="mine", metadata={"a": [1, None, "ü"]})
        thread = await api.get(path_of(made["thread_id"]))
        check_body("thread", thread)
        assert {name: thread[name] for name in made} == made
        changed = await update(client, made["thread_id"], title="new")
        assert (await api.get(path_of(made["thread_id"])))["title"] == changed["title"]


async def test_a_thread_names_its_run_at_work(server: Server) -> None:
    async with connect(server) as client, calling(server, client.user_id) as api:
        accepted = await at_work(client)
        assert (await api.get(path_of(accepted["thread_id"])))["running_run_id"] == accepted["run_id"]


async def test_the_messages_are_those_of_the_websocket(server: Server) -> None:
    async with connect(server) as client, calling(server, client.user_id) as api:
        events = [await client.run(text) for text in ("one", "what is 6 * 7?")][-1]
        thread_id = events[0]["thread_id"]
        there = await history(client, thread_id)
        here = await api.get(path_of(thread_id, "/messages"))
        check_body("thread_history", here)
        for name in ("thread_id", "epoch", "last_seq", "resume_after", "messages", "next_before"):
            assert here[name] == there[name]


async def test_the_messages_are_read_page_by_page(server: Server) -> None:
    async with connect(server) as client, calling(server, client.user_id) as api:
        thread_id = [(await client.run(text))[0]["thread_id"] for text in ("one", "two", "three")][-1]
        whole = (await history(client, thread_id))["messages"]
        found: list[Frame] = []
        page = await api.get(path_of(thread_id, "/messages"), limit=4)
        while True:
            found = page["messages"] + found
            if page["next_before"] is None:
                break
            page = await api.get(path_of(thread_id, "/messages"), limit=4, before=page["next_before"])
        assert found == whole
        assert len(found) == 6


@pytest.mark.parametrize("rest", ["", "/messages", "/events"])
async def test_a_thread_that_the_user_lacks_is_404(server: Server, rest: str) -> None:
    async with calling(server) as api:
        await api.refused("GET", path_of(fresh("t"), rest), "thread_not_found")


BAD_LIMITS = [("limit", bad) for bad in ("0", "-1", "201", "x", "1.5", "", "9" * 30)]


@pytest.mark.parametrize("rest", ["/api/threads", "messages"])
@pytest.mark.parametrize(("field", "bad"), [*BAD_LIMITS, ("before", "no cursor"), ("before", "")])
async def test_a_parameter_out_of_its_range_is_named(server: Server, rest: str, field: str, bad: str) -> None:
    async with connect(server) as client, calling(server, client.user_id) as api:
        thread_id = (await client.new_thread())["thread_id"]
        path = path_of(thread_id, "/messages") if rest == "messages" else rest
        await api.refused("GET", path, "validation_error", field=field, params={field: bad})


@pytest.mark.parametrize("bad", ["a%20b", "x" * 129, "%C3%BC", "a%00b"])
@pytest.mark.parametrize("rest", ["", "/messages", "/events"])
async def test_a_thread_id_of_the_wrong_form_is_no_thread(server: Server, rest: str, bad: str) -> None:
    async with calling(server) as api:
        await api.refused("GET", path_of(bad, rest), "validation_error", "thread_not_found")


async def test_the_longest_id_is_found_in_a_path(server: Server) -> None:
    async with connect(server) as client, calling(server, client.user_id) as api:
        thread_id = (await client.new_thread(fresh("T.:-_") + "x" * 80))["thread_id"]
        assert (await api.get(path_of(thread_id)))["thread_id"] == thread_id


async def test_reading_over_http_needs_a_token_and_finds_ones_own(jwt_server: JwtServer) -> None:
    async with connect(jwt_server) as client, calling(jwt_server, client.user_id) as api:
        made = await client.new_thread(title="mine")
        assert (await api.get("/api/threads"))["threads"] == [made]
