"""Sections 3 and 5, `switch_thread`: the connection's current thread from then on, subscribed from where its history
ends, or from where the client says."""

import pytest

from .client import Client, Server, connect, fresh
from .reader import Reader
from .runs import at_work
from .threads import followed, listed, switch


async def two_threads(client: Client) -> tuple[str, str]:
    """Two threads with a run each."""
    made = [(await client.new_thread())["thread_id"] for _ in range(2)]
    for thread_id in made:
        await client.run("hi", thread_id=thread_id)
    return made[0], made[1]


async def test_the_answer_describes_the_thread_and_where_its_history_ends(server: Server) -> None:
    async with connect(server) as client:
        made = await client.new_thread(title="mine", metadata={"a": 1})
        events = await client.run("hi", thread_id=made["thread_id"])
        switched, subscribed, replayed = await switch(client, made["thread_id"])
        assert switched["thread"] == (await listed(client))["threads"][0]
        assert (switched["thread"]["title"], switched["thread"]["metadata"]) == ("mine", {"a": 1})
        assert switched["resume_after"] == switched["thread"]["last_seq"] == events[-1]["seq"]
        assert (subscribed["after_seq"], subscribed["recovered"], replayed) == (events[-1]["seq"], True, [])
        assert client.position(switched) < client.position(subscribed)


async def test_a_thread_without_events_may_be_switched_to(server: Server) -> None:
    async with connect(server) as client:
        switched, subscribed, events = await switch(client, (await client.new_thread())["thread_id"])
        assert (switched["resume_after"], subscribed["after_seq"], events) == (0, 0, [])


async def test_a_start_that_names_no_thread_goes_where_the_connection_switched_to(server: Server) -> None:
    async with connect(server) as client:
        one, two = await two_threads(client)
        for thread_id in (one, two, one):
            await switch(client, thread_id)
            assert (await client.start("hi"))["thread_id"] == thread_id


async def test_a_switch_is_of_one_connection(server: Server) -> None:
    user = fresh("u")
    async with connect(server, user) as client, connect(server, user) as other:
        one, two = await two_threads(client)
        await switch(client, one)
        await switch(other, two)
        assert (await client.start("hi"))["thread_id"] == one
        assert (await other.start("hi"))["thread_id"] == two


async def test_a_run_at_work_is_told_from_its_first_event(server: Server) -> None:
    user = fresh("u")
    async with connect(server, user) as one, connect(server, user) as two:
        await one.run("before")
        accepted = await at_work(one)
        switched, subscribed, _ = await switch(two, accepted["thread_id"])
        assert switched["resume_after"] == subscribed["after_seq"] == accepted["seq"]
        assert switched["thread"]["running_run_id"] == accepted["run_id"]
        await one.stop(run_id=accepted["run_id"])
        await two.ended(accepted["run_id"])
        reader = two.reader(accepted["thread_id"], after_seq=accepted["seq"], since=subscribed)
        assert list(reader.runs) == [accepted["run_id"]]
        assert reader.runs[accepted["run_id"]].whole


@pytest.mark.parametrize("shape", ["in the payload", "flat"])
async def test_after_seq_says_where_to_begin(server: Server, shape: str) -> None:
    async with connect(server) as client:
        events = await client.run("hi")
        thread_id, last = events[0]["thread_id"], events[-1]["seq"]
        for after_seq in (0, 1, last):
            fields = {"thread_id": thread_id, "after_seq": after_seq}
            frame = {"type": "switch_thread"} | (fields if shape == "flat" else {"payload": fields})
            switched = await client.granted(frame, "thread_switched")
            subscribed, replayed = await followed(client, switched)
            assert switched["resume_after"] == last
            assert (subscribed["after_seq"], subscribed["recovered"]) == (after_seq, True)
            assert Reader(after_seq).feed_all(replayed).last_seq == last


async def test_another_epoch_is_not_recovered_and_the_thread_becomes_current_all_the_same(server: Server) -> None:
    async with connect(server) as client:
        one, two = await two_threads(client)
        await switch(client, one)
        _, subscribed, events = await switch(client, two, after_seq=1, epoch="no-such-epoch")
        assert (subscribed["recovered"], subscribed["after_seq"]) == (False, 0)
        assert Reader().feed_all(events).last_seq == subscribed["last_seq"]
        assert (await client.start("hi"))["thread_id"] == two


async def test_the_right_epoch_is_recovered(server: Server) -> None:
    async with connect(server) as client:
        events = await client.run("hi")
        thread_id, epoch = events[0]["thread_id"], events[0]["epoch"]
        _, subscribed, _ = await switch(client, thread_id, after_seq=2, epoch=epoch)
        assert (subscribed["recovered"], subscribed["after_seq"], subscribed["epoch"]) == (True, 2, epoch)


async def test_beyond_the_end_is_not_recovered(server: Server) -> None:
    async with connect(server) as client:
        events = await client.run("hi")
        _, subscribed, replayed = await switch(client, events[0]["thread_id"], after_seq=10_000)
        assert (subscribed["recovered"], subscribed["after_seq"]) == (False, 0)
        assert Reader().feed_all(replayed).last_seq == events[-1]["seq"]


async def test_live_events_follow(server: Server) -> None:
    user = fresh("u")
    async with connect(server, user) as one, connect(server, user) as two:
        thread_id = (await one.new_thread())["thread_id"]
        _, subscribed, _ = await switch(two, thread_id)
        accepted = await one.start("hi", thread_id=thread_id)
        await two.ended(accepted["run_id"])
        assert two.reader(thread_id, after_seq=0, since=subscribed).runs[accepted["run_id"]].whole


async def test_other_subscriptions_stay(server: Server) -> None:
    user = fresh("u")
    async with connect(server, user) as client, connect(server, user) as other:
        one, two = await two_threads(other)
        await client.replay(one)
        await switch(client, two)
        for thread_id in (one, two):
            accepted = await other.start("still heard", thread_id=thread_id)
            await client.ended(accepted["run_id"])


async def test_a_subscription_that_was_there_is_replaced_and_each_event_told_once(server: Server) -> None:
    async with connect(server) as client:
        events = await client.run("hi")
        thread_id = events[0]["thread_id"]
        await client.replay(thread_id)
        _, subscribed, _ = await switch(client, thread_id)
        await client.run("again")
        reader = client.reader(thread_id, after_seq=subscribed["after_seq"], since=subscribed)
        assert len(reader.runs) == 1


async def test_after_unsubscribe_the_thread_stays_current(server: Server) -> None:
    async with connect(server) as client:
        one, _ = await two_threads(client)
        await switch(client, one)
        await client.granted({"type": "unsubscribe", "thread_id": one}, "unsubscribed")
        assert (await client.start("hi"))["thread_id"] == one


async def test_a_refused_switch_changes_nothing(server: Server) -> None:
    async with connect(server) as client:
        one, two = await two_threads(client)
        await switch(client, one)
        await client.refused({"type": "switch_thread", "thread_id": fresh("t")}, "thread_not_found")
        wrong = {"type": "switch_thread", "payload": {"thread_id": two, "after_seq": -1}}
        await client.refused(wrong, "validation_error", field="after_seq")
        assert (await client.start("hi"))["thread_id"] == one


@pytest.mark.parametrize(
    ("field", "bad"),
    [
        *[("after_seq", -1), ("after_seq", "3"), ("after_seq", 1.5), ("after_seq", True), ("after_seq", [])],
        *[("epoch", 5), ("epoch", {}), ("subagents", "yes"), ("subagents", 1)],
    ],
)
async def test_a_field_of_a_wrong_type_or_range_is_named(server: Server, field: str, bad: object) -> None:
    async with connect(server) as client:
        thread_id = (await client.new_thread())["thread_id"]
        frame = {"type": "switch_thread", "payload": {"thread_id": thread_id, field: bad}}
        await client.refused(frame, "validation_error", field=field)


async def test_null_fields_count_as_absent(server: Server) -> None:
    async with connect(server) as client:
        events = await client.run("hi")
        nothing = dict.fromkeys(["after_seq", "epoch", "subagents"])
        _, subscribed, _ = await switch(client, events[0]["thread_id"], **nothing)
        assert (subscribed["after_seq"], subscribed["recovered"]) == (events[-1]["seq"], True)
