"""Section 6, the events of a thread as JSON pages: a subscription's past, page by page."""

import pytest

from .api import Api, calling
from .client import Client, Server, connect
from .reader import Reader
from .runs import QUESTION, at_work
from .shapes import Frame, check_body
from .threads import delete


async def page(api: Api, thread_id: str, **params: object) -> Frame:
    body = await api.get(f"/api/threads/{thread_id}/events", **params)
    check_body("events", body)
    assert body["thread_id"] == thread_id
    return body


async def told(client: Client) -> tuple[str, Reader]:
    """A thread of two runs, and what a live client read of it."""
    thread_id = (await client.new_thread())["thread_id"]
    accepted = await client.start(QUESTION, thread_id=thread_id)
    await client.ended(accepted["run_id"])
    await client.run("again", thread_id=thread_id)
    return thread_id, client.reader(thread_id, after_seq=0, since=accepted)


async def test_a_page_has_the_fields_of_subscribed_and_the_events(server: Server) -> None:
    async with connect(server) as client, calling(server, client.user_id) as api:
        thread_id, live = await told(client)
        subscribed, _ = await client.replay(thread_id)
        body = await page(api, thread_id)
        for name in ("epoch", "first_seq", "last_seq", "after_seq", "recovered"):
            assert body[name] == subscribed[name]
        reader = Reader().feed_all(body["events"])
        assert (reader.last_seq, reader.runs) == (live.last_seq, live.runs)


@pytest.mark.parametrize("limit", [1, 2, 3, 1000])
async def test_going_on_from_the_last_ones_seq_reads_everything_once(server: Server, limit: int) -> None:
    async with connect(server) as client, calling(server, client.user_id) as api:
        thread_id, live = await told(client)
        reader = Reader()
        while True:
            body = await page(api, thread_id, after_seq=reader.last_seq, limit=limit, epoch=live.events[0]["epoch"])
            assert (body["after_seq"], body["recovered"]) == (reader.last_seq, True)
            assert 1 <= len(body["events"]) <= limit
            reader.feed_all(body["events"])
            if reader.last_seq >= body["last_seq"]:
                break
        assert (reader.last_seq, reader.runs) == (live.last_seq, live.runs)


async def test_after_the_last_event_there_is_nothing(server: Server) -> None:
    async with connect(server) as client, calling(server, client.user_id) as api:
        thread_id, live = await told(client)
        body = await page(api, thread_id, after_seq=live.last_seq)
        assert (body["events"], body["recovered"]) == ([], True)


async def test_a_thread_without_events_has_an_empty_page(server: Server) -> None:
    async with connect(server) as client, calling(server, client.user_id) as api:
        thread = await client.new_thread()
        body = await page(api, thread["thread_id"])
        assert (body["events"], body["last_seq"], body["epoch"]) == ([], 0, thread["epoch"])


async def test_a_page_may_begin_after_any_event(server: Server) -> None:
    async with connect(server) as client, calling(server, client.user_id) as api:
        thread_id, live = await told(client)
        for held in range(len(live.events)):
            reader = Reader().feed_all(live.events[:held])
            body = await page(api, thread_id, after_seq=reader.last_seq)
            assert reader.feed_all(body["events"]).runs == live.runs


async def test_another_epoch_or_a_number_beyond_the_end_is_not_recovered(server: Server) -> None:
    async with connect(server) as client, calling(server, client.user_id) as api:
        thread_id, live = await told(client)
        for params in ({"after_seq": 2, "epoch": "no-such-epoch"}, {"after_seq": live.last_seq + 1}):
            body = await page(api, thread_id, **params)
            assert (body["recovered"], body["after_seq"]) == (False, 0)
            assert Reader().feed_all(body["events"]).runs == live.runs


async def test_a_name_made_anew_has_pages_of_its_own(server: Server) -> None:
    async with connect(server) as client, calling(server, client.user_id) as api:
        thread_id, live = await told(client)
        await delete(client, thread_id)
        await api.refused("GET", f"/api/threads/{thread_id}/events", "thread_not_found")
        thread = await client.new_thread(thread_id)
        body = await page(api, thread_id, after_seq=1, epoch=live.events[0]["epoch"])
        assert (body["events"], body["recovered"], body["epoch"]) == ([], False, thread["epoch"])


async def test_the_events_of_a_run_at_work_are_there(server: Server) -> None:
    async with connect(server) as client, calling(server, client.user_id) as api:
        accepted = await at_work(client)
        body = await page(api, accepted["thread_id"])
        assert body["events"][0]["type"] == "agent_started"
        assert Reader().feed_all(body["events"]).answer(accepted["run_id"])


@pytest.mark.parametrize(
    ("field", "bad"),
    [
        *(("after_seq", bad) for bad in ("-1", "x", "1.5", "", "9" * 30)),
        *(("limit", bad) for bad in ("0", "-1", "1001", "x", "1.5", "")),
        ("subagents", "perhaps"),
    ],
)
async def test_a_parameter_out_of_its_range_is_named(server: Server, field: str, bad: str) -> None:
    async with connect(server) as client, calling(server, client.user_id) as api:
        path = f"/api/threads/{(await client.new_thread())['thread_id']}/events"
        await api.refused("GET", path, "validation_error", field=field, params={field: bad})


@pytest.mark.parametrize("subagents", ["true", "false"])
async def test_sub_runs_may_be_asked_for(server: Server, subagents: str) -> None:
    async with connect(server) as client, calling(server, client.user_id) as api:
        thread_id, live = await told(client)
        body = await page(api, thread_id, subagents=subagents)
        assert Reader().feed_all(body["events"]).runs == live.runs


@pytest.mark.needs("agents")
async def test_a_page_has_two_hundred_events_where_no_limit_is_given(server: Server) -> None:
    async with connect(server) as client, calling(server, client.user_id) as api:
        thread_id, last_seq = (await client.new_thread())["thread_id"], 0
        while last_seq <= 220:
            last_seq = (await client.run("hi", agent="thinker", thread_id=thread_id))[-1]["seq"]
        body = await page(api, thread_id)
        assert (len(body["events"]), body["last_seq"]) == (200, last_seq)
        rest = await page(api, thread_id, after_seq=body["events"][-1]["seq"])
        assert Reader().feed_all(body["events"] + rest["events"]).last_seq == last_seq
