"""Section 3, `on_disconnect`: a run that wants it is stopped once nobody has watched its thread for a time."""

import pytest

from .client import Client, Server, connect, fresh
from .runs import at_work
from .shapes import Frame
from .threads import history
from .told import until

pytestmark = pytest.mark.needs("settings")


async def thread_of(client: Client) -> str:
    thread_id = (await client.new_thread())["thread_id"]
    assert isinstance(thread_id, str)
    return thread_id


async def left_behind(server: Server, user: str, thread_id: str, **options: object) -> Frame:
    """A run at work whose connection is gone."""
    async with connect(server, user) as client:
        accepted = await at_work(client, thread_id=thread_id, **options)
        await client.socket.close()
    return accepted


async def statuses(client: Client, thread_id: str) -> list[str]:
    messages = (await history(client, thread_id))["messages"]
    return [message["status"] for message in messages if message["role"] == "user"]


async def stopped_unwatched(client: Client, thread_id: str) -> None:
    """Asks, without subscribing, until every run of the thread has been stopped."""
    await until(lambda: statuses(client, thread_id), lambda found: set(found) == {"stopped"})


async def test_stop_ends_a_run_that_nobody_watches_and_continue_does_not(server: Server) -> None:
    user = fresh("u")
    async with connect(server, user) as witness:
        stops, goes_on = await thread_of(witness), await thread_of(witness)
        kept = await left_behind(server, user, goes_on, on_disconnect="continue")
        run = await left_behind(server, user, stops, on_disconnect="stop")
        await stopped_unwatched(witness, stops)
        assert await statuses(witness, goes_on) == ["running"]
        _, events = await witness.replay(stops)
        assert (events[-1]["type"], events[-1]["run_id"]) == ("agent_stopped", run["run_id"])
        assert events[-1]["payload"]["reason"] == "disconnected"
        await witness.stop(run_id=kept["run_id"])


async def test_another_connection_that_watches_keeps_it_at_work_until_it_unsubscribes(server: Server) -> None:
    user = fresh("u")
    async with connect(server, user) as witness:
        watched, unwatched = await thread_of(witness), await thread_of(witness)
        await witness.replay(watched)
        for thread_id in (watched, unwatched):
            await left_behind(server, user, thread_id, on_disconnect="stop")
        await stopped_unwatched(witness, unwatched)
        assert await statuses(witness, watched) == ["running"]
        await witness.granted({"type": "unsubscribe", "thread_id": watched}, "unsubscribed")
        await stopped_unwatched(witness, watched)


async def test_who_comes_back_in_time_keeps_it_at_work(server: Server) -> None:
    user = fresh("u")
    async with connect(server, user) as witness:
        kept, lost = await thread_of(witness), await thread_of(witness)
        await left_behind(server, user, kept, on_disconnect="stop")
        async with connect(server, user) as back:
            await back.replay(kept)
            await left_behind(server, user, lost, on_disconnect="stop")
            await stopped_unwatched(witness, lost)
            assert await statuses(witness, kept) == ["running"]


async def test_a_start_that_does_not_subscribe_is_watched_by_nobody(server: Server) -> None:
    async with connect(server) as client:
        thread_id = await thread_of(client)
        await client.start("hi", agent="slow", thread_id=thread_id, subscribe=False, on_disconnect="stop")
        await stopped_unwatched(client, thread_id)


async def test_another_users_subscription_to_a_thread_of_that_name_does_not_count(server: Server) -> None:
    user = fresh("u")
    async with connect(server, user) as witness, connect(server) as stranger:
        thread_id = await thread_of(witness)
        await stranger.new_thread(thread_id)
        await stranger.replay(thread_id)
        await left_behind(server, user, thread_id, on_disconnect="stop")
        await stopped_unwatched(witness, thread_id)


async def test_runs_that_wait_end_too(server: Server) -> None:
    user = fresh("u")
    async with connect(server, user) as witness:
        thread_id = await thread_of(witness)
        async with connect(server, user) as client:
            await at_work(client, thread_id=thread_id, on_disconnect="stop")
            waiting = await client.start("hi", thread_id=thread_id, agent="slow", on_disconnect="stop")
            await client.socket.close()
        await stopped_unwatched(witness, thread_id)
        _, events = await witness.replay(thread_id)
        of_it = [event["payload"].get("reason") for event in events if event["run_id"] == waiting["run_id"]]
        assert of_it[-1] == "disconnected"


async def test_a_run_with_stop_that_ends_in_time_is_as_any_other(server: Server) -> None:
    async with connect(server) as client:
        events = await client.run("hi", on_disconnect="stop")
        assert events[-1]["type"] == "agent_completed"
