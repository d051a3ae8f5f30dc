"""A thread that was made anew under its name: who followed the old one hears that it is over before it hears of the new
one, and gets the events of the runs that it starts there."""

import pytest

from ..conftest import StartService
from ..faults import Line
from ..peers import TERMINAL, Frame, Peer, peer

ENDS = ("subscription_ended", "thread_deleted")


async def follow(client: Peer, thread_id: str) -> None:
    client.send(type="create_thread", thread_id=thread_id)
    client.send(type="subscribe", thread_id=thread_id)
    await client.until_type("caught_up")


async def make_anew(client: Peer, thread_id: str) -> str:
    """Deletes a thread and makes it; returns the new epoch."""
    client.send(type="delete_thread", thread_id=thread_id)
    await client.until_type("thread_deleted")
    client.send(type="create_thread", thread_id=thread_id)
    return str((await client.until_type("thread_created"))["thread"]["epoch"])


def since(client: Peer, *types: str) -> list[Frame]:
    """The frames from the first of these types on."""
    first = next(place for place, frame in enumerate(client.frames) if frame["type"] in types)
    return client.frames[first:]


async def test_a_start_by_who_has_not_heard_of_it_yet_is_followed_in_the_new_thread(
    start_service: StartService,
) -> None:
    here, there = await start_service(poll_interval_ms=60_000.0), await start_service()
    async with peer(here) as client, peer(there) as other:
        await follow(client, "t")
        epoch = await make_anew(other, "t")
        accepted = await client.ask("hi", agent="echo", thread_id="t")
        await client.ended(accepted["run_id"])
        told = since(client, *ENDS)
        assert [frame["type"] for frame in told[:2]] == ["subscription_ended", "request_accepted"]
        assert (told[0]["reason"], told[1]["epoch"], told[-1]["type"]) == ("epoch_changed", epoch, "agent_completed")
        assert [frame["seq"] for frame in told[2:]] == [*range(1, len(told) - 1)]


async def test_a_start_that_is_accepted_while_the_end_is_heard_is_answered_after_it(
    start_service: StartService, line: Line
) -> None:
    service = await start_service()
    async with peer(service) as client, peer(service) as other:
        await follow(client, "t")
        line.hold("accept")
        client.send(type="user_message", content="hi", agent="echo", thread_id="t")
        await line.waiting.wait()
        epoch = await make_anew(other, "t")
        line.mend()
        await client.until_type(*TERMINAL)
        told = since(client, *ENDS, "request_accepted")
        assert [frame["type"] for frame in told[:2]] == ["thread_deleted", "request_accepted"]
        assert (told[1]["epoch"], told[2]["type"]) == (epoch, "agent_started")


async def test_who_deletes_the_new_thread_is_told_nothing_of_the_old_one_after_that(
    start_service: StartService,
) -> None:
    here, there = await start_service(poll_interval_ms=60_000.0), await start_service()
    async with peer(here) as client, peer(there) as other:
        await follow(client, "t")
        await make_anew(other, "t")
        client.send(type="delete_thread", id="d", thread_id="t")
        await client.until(lambda frame: frame.get("id") == "d")
        assert [frame["type"] for frame in since(client, *ENDS)] == ["subscription_ended", "thread_deleted"]


async def test_who_finds_the_new_thread_is_not_told_later_that_it_is_deleted(start_service: StartService) -> None:
    here, there = await start_service(poll_interval_ms=60_000.0), await start_service()
    async with peer(here) as client, peer(there) as other:
        await follow(client, "t")
        await make_anew(other, "t")
        client.send(type="create_thread", id="c", thread_id="t")
        await client.until(lambda frame: frame.get("id") == "c")
        assert [frame["type"] for frame in since(client, *ENDS, "caught_up")[1:]] == [
            "subscription_ended",
            "thread_created",
        ]


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ({"type": "update_thread", "title": "new"}, "thread_updated"),
        ({"type": "get_thread_history"}, "thread_history"),
        ({"type": "list_threads"}, "thread_list"),
    ],
)
async def test_who_is_told_of_the_new_thread_is_not_told_later_that_it_is_deleted(
    start_service: StartService, question: Frame, answer: str
) -> None:
    here, there = await start_service(poll_interval_ms=60_000.0), await start_service()
    async with peer(here) as client, peer(there) as other:
        await follow(client, "t")
        await make_anew(other, "t")
        fields = {} if answer == "thread_list" else {"thread_id": "t"}
        client.send(**question, **fields)
        await client.until_type(answer)
        # A look would find that the thread of the old epoch is gone.
        assert here.feed is not None
        here.feed.reconcile()
        await client.run("hi", agent="echo", thread_id="t")
        told = [frame["type"] for frame in client.frames if frame["type"] in (*ENDS, answer)]
        assert told == ["subscription_ended", answer]
