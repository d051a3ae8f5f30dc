"""Subscriptions of one connection that have much to give have turns, and what has ended goes before later answers."""

import pytest

import agentws

from ..conftest import StartService
from ..faults import Line
from ..peers import peer

TURN = 16 * 1024
BUDGET = 400_000
THOUGHTS = 100


async def muse(run: agentws.Run) -> None:
    """Says 100 KB in events of 1 KB."""
    for number in range(THOUGHTS):
        await run.think(f"{number} ".ljust(1000, "x"))


async def test_a_thread_with_much_to_give_does_not_keep_another_waiting(start_service: StartService) -> None:
    service = await start_service({"muse": muse}, send_buffer_bytes=BUDGET)
    async with peer(service) as client, peer(service) as other:
        for thread_id in ("a", "b"):
            client.send(type="create_thread", thread_id=thread_id)
            client.send(type="subscribe", thread_id=thread_id)
            await client.until_type("caught_up")
        client.reading.clear()
        client.send(type="ping")
        for thread_id in ("a", "b"):
            await other.run("hi", thread_id=thread_id)
        client.frames.clear()
        client._taken = 0
        client.reading.set()
        await client.until(lambda frame: frame["type"] == "agent_completed" and frame["thread_id"] == "b")
        order = [frame["thread_id"] for frame in client.frames if "event_id" in frame]
        assert order.count("a") > THOUGHTS
        # The first of each turn are one more than fit: `a` was sending when nothing was taken any more.
        assert order.index("b") <= TURN // 1000 + 2


@pytest.mark.parametrize("by_other", [False, True])
async def test_the_end_of_a_thread_goes_before_what_is_answered_after_it_also_behind_many_events(
    start_service: StartService, line: Line, by_other: bool
) -> None:
    service = await start_service({"muse": muse}, send_buffer_bytes=BUDGET)
    async with peer(service) as client, peer(service) as other:
        client.send(type="create_thread", thread_id="t")
        client.send(type="subscribe", thread_id="t")
        await client.until_type("caught_up")
        client.reading.clear()
        client.send(type="ping")
        await other.run("hi", thread_id="t")
        deleter = other if by_other else client
        deleter.send(type="delete_thread", id="d", thread_id="t")
        if by_other:
            await other.until_type("thread_deleted")
        client.send(type="create_thread", id="c", thread_id="t")
        client.send(type="subscribe", id="s", thread_id="t")
        await line.answered("read_head", 2)
        client.reading.set()
        await client.until(lambda frame: frame["type"] == "caught_up" and frame["id"] == "s")
        told = [frame["type"] for frame in client.frames if frame["type"].startswith(("thread_", "subscr", "agent_c"))]
        assert told[2:] == ["agent_completed", "thread_deleted", "thread_created", "subscribed"]
