"""Section 5: a subscription tells the past in order and then the present, each event once, wherever one comes in."""

import pytest

from .client import Client, Server, connect, fresh
from .reader import Reader
from .runs import streaming
from .shapes import Frame

MERGED = {"agent_message", "agent_thinking", "tool_progress"}


def kept(events: list[Frame]) -> list[Frame]:
    """The events that are never merged nor changed."""
    return [event for event in events if event["type"] not in MERGED]


def assert_same_fold(one: Reader, two: Reader) -> None:
    assert one.last_seq == two.last_seq
    assert one.runs == two.runs


async def past_of(client: Client) -> tuple[str, Frame, Reader]:
    """A thread of three runs that have ended, its first answer, and what a live client read of it."""
    thread_id = (await client.new_thread())["thread_id"]
    first = await client.start("what is 12 * (3 + 4)?", thread_id=thread_id)
    await client.ended(first["run_id"])
    for options in ({"content": "abc"}, streaming(12)):
        await client.ended((await client.start(**options, thread_id=thread_id))["run_id"])
    return thread_id, first, client.reader(thread_id, after_seq=first["seq"], since=first)


async def test_a_replay_equals_what_was_told_live(server: Server) -> None:
    user = fresh("u")
    async with connect(server, user) as one, connect(server, user) as two:
        thread_id, accepted, live = await past_of(one)
        subscribed, events = await two.replay(thread_id)
        assert (subscribed["after_seq"], subscribed["recovered"]) == (0, True)
        assert subscribed["first_seq"] == 1
        assert subscribed["last_seq"] == live.last_seq
        assert subscribed["epoch"] == accepted["epoch"]
        assert_same_fold(Reader().feed_all(events), live)
        assert kept(events) == kept(live.events)


async def test_a_replay_may_begin_after_any_event(server: Server) -> None:
    user = fresh("u")
    async with connect(server, user) as one, connect(server, user) as two:
        thread_id = (await one.new_thread())["thread_id"]
        accepted = await one.start("abcdef", thread_id=thread_id)
        await one.ended(accepted["run_id"])
        live = one.reader(thread_id, after_seq=accepted["seq"], since=accepted)
        for held in range(len(live.events) + 1):
            reader = Reader(accepted["seq"]).feed_all(live.events[:held])
            subscribed, events = await two.replay(thread_id, after_seq=reader.last_seq, epoch=accepted["epoch"])
            assert (subscribed["after_seq"], subscribed["recovered"]) == (reader.last_seq, True)
            assert_same_fold(reader.feed_all(events), live)


async def test_a_replay_may_begin_within_the_pieces_of_an_answer(server: Server) -> None:
    user = fresh("u")
    async with connect(server, user) as one, connect(server, user) as two:
        events = await one.run(**streaming(30))
        run_id, last, response = events[0]["run_id"], events[-1]["seq"], events[-1]["payload"]["response"]
        for after_seq in range(1, last, 1 + last // 6):
            subscribed, replayed = await two.replay(events[0]["thread_id"], after_seq=after_seq)
            assert (subscribed["after_seq"], subscribed["recovered"]) == (after_seq, True)
            reader = Reader(after_seq).feed_all(replayed)
            assert reader.last_seq == last
            piece = reader.runs[run_id].answer
            assert piece.start is None or response[piece.start :] == piece.text


async def test_nothing_is_replayed_after_the_last_event(server: Server) -> None:
    async with connect(server) as client:
        events = await client.run("hi")
        last = events[-1]
        subscribed, replayed = await client.replay(last["thread_id"], after_seq=last["seq"], epoch=last["epoch"])
        assert (subscribed["recovered"], subscribed["last_seq"], replayed) == (True, last["seq"], [])


async def test_an_empty_thread_is_caught_up_at_once_and_then_live(server: Server) -> None:
    user = fresh("u")
    async with connect(server, user) as one, connect(server, user) as two:
        thread = await one.new_thread()
        subscribed, events = await two.replay(thread["thread_id"])
        assert (subscribed["last_seq"], subscribed["epoch"], events) == (0, thread["epoch"], [])
        accepted = await one.start("hi", thread_id=thread["thread_id"])
        await two.ended(accepted["run_id"])
        reader = two.reader(thread["thread_id"], after_seq=0, since=subscribed)
        assert reader.runs[accepted["run_id"]].whole


async def test_live_events_go_on_after_a_replay(server: Server) -> None:
    user = fresh("u")
    async with connect(server, user) as one, connect(server, user) as two:
        thread_id, _, _ = await past_of(one)
        subscribed, _ = await two.replay(thread_id)
        accepted = await one.start("more", thread_id=thread_id)
        assert await two.ended(accepted["run_id"]) == await one.ended(accepted["run_id"])
        reader = two.reader(thread_id, after_seq=0, since=subscribed)
        assert "more" in reader.answer(accepted["run_id"])


async def test_a_subscription_in_the_middle_of_a_run_has_no_seam(server: Server) -> None:
    user = fresh("u")
    async with connect(server, user) as one, connect(server, user) as two, connect(server, user) as three:
        accepted = await one.start(**streaming(60))
        thread_id, run_id = accepted["thread_id"], accepted["run_id"]
        await one.event(run_id, "agent_message")
        for client in (two, three):
            subscribed, _ = await client.replay(thread_id)
            terminal = await client.ended(run_id)
            reader = client.reader(thread_id, after_seq=0, since=subscribed)
            assert reader.answer(run_id) == terminal["payload"]["response"]
            assert len(reader.answer(run_id).split()) >= 60
            assert terminal["type"] == "agent_completed"


async def test_subscribing_again_divides_the_two_streams(server: Server) -> None:
    async with connect(server) as client:
        accepted = await client.start(**streaming(30))
        thread_id, run_id = accepted["thread_id"], accepted["run_id"]
        await client.event(run_id, "agent_message")
        second, _ = await client.replay(thread_id)
        third, _ = await client.replay(thread_id, after_seq=1)
        response = (await client.ended(run_id))["payload"]["response"]
        last = await client.granted({"type": "subscribe", "thread_id": thread_id}, "subscribed")
        await client.answer_to(last["id"])
        Reader(accepted["seq"]).feed_all(client.events(thread_id, since=accepted, until=second))
        Reader().feed_all(client.events(thread_id, since=second, until=third))
        Reader(1).feed_all(client.events(thread_id, since=third, until=last))
        whole = Reader().feed_all(client.events(thread_id, since=last))
        assert whole.answer(run_id) == response


async def test_another_epoch_is_not_recovered(server: Server) -> None:
    async with connect(server) as client:
        events = await client.run("hi")
        thread_id = events[0]["thread_id"]
        subscribed, replayed = await client.replay(thread_id, after_seq=2, epoch="no-such-epoch")
        assert subscribed["recovered"] is False
        assert subscribed["after_seq"] == subscribed["first_seq"] - 1
        assert subscribed["epoch"] == events[0]["epoch"]
        assert Reader(subscribed["after_seq"]).feed_all(replayed).last_seq == events[-1]["seq"]


@pytest.mark.parametrize("beyond", [1, 1000, 2**53, 2**62])
async def test_a_number_beyond_the_last_is_not_recovered(server: Server, beyond: int) -> None:
    async with connect(server) as client:
        events = await client.run("hi")
        last = events[-1]["seq"]
        subscribed, replayed = await client.replay(events[0]["thread_id"], after_seq=last + beyond)
        assert (subscribed["recovered"], subscribed["last_seq"]) == (False, last)
        assert subscribed["after_seq"] == subscribed["first_seq"] - 1
        assert Reader(subscribed["after_seq"]).feed_all(replayed).last_seq == last


async def test_a_thread_that_the_user_lacks_is_not_found(server: Server) -> None:
    async with connect(server) as client, connect(server) as other:
        theirs = (await other.new_thread(fresh("t")))["thread_id"]
        for thread_id in (fresh("unknown"), theirs):
            await client.refused({"type": "subscribe", "thread_id": thread_id}, "thread_not_found")
        await client.still_serves()


async def test_a_subscription_without_a_thread_names_the_field(server: Server) -> None:
    async with connect(server) as client:
        await client.refused({"type": "subscribe"}, "validation_error", field="thread_id")
        nothing = {"thread_id": None}
        await client.refused({"type": "subscribe", "payload": nothing}, "validation_error", field="thread_id")


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
        frame = {"type": "subscribe", "payload": {"thread_id": thread_id, field: bad}}
        await client.refused(frame, "validation_error", field=field)


async def test_null_fields_of_a_subscription_count_as_absent(server: Server) -> None:
    async with connect(server) as client:
        events = await client.run("hi")
        nothing = dict.fromkeys(["after_seq", "epoch", "subagents"])
        subscribed, replayed = await client.replay(events[0]["thread_id"], **nothing)
        assert (subscribed["after_seq"], subscribed["recovered"]) == (0, True)
        assert kept(replayed) == kept(events)


async def test_the_subscription_of_a_start_is_not_announced(server: Server) -> None:
    async with connect(server) as client:
        await client.run("hi")
        await client.run("again")
        await client.new_thread()
        assert not any(frame["type"] in {"subscribed", "caught_up"} for frame in client.log)


async def test_events_follow_the_answer_that_accepted_their_run(server: Server) -> None:
    async with connect(server) as client:
        for text in ("one", "two", "three"):
            accepted = await client.start(text)
            await client.ended(accepted["run_id"])
            first = next(
                event for event in client.events(accepted["thread_id"]) if event["run_id"] == accepted["run_id"]
            )
            assert client.position(first) > client.position(accepted)
            assert first["seq"] == accepted["seq"] + 1
            assert first["epoch"] == accepted["epoch"]


async def test_a_start_that_does_not_subscribe_is_told_nothing(server: Server) -> None:
    user = fresh("u")
    async with connect(server, user) as client, connect(server, user) as witness:
        thread_id = (await client.new_thread())["thread_id"]
        await witness.replay(thread_id)
        accepted = await client.start("hi", thread_id=thread_id, subscribe=False)
        await witness.ended(accepted["run_id"])
        subscribed, events = await client.replay(thread_id)
        assert client.events(thread_id, until=subscribed) == []
        assert events[-1]["type"] == "agent_completed"


async def test_a_start_that_does_not_subscribe_leaves_a_subscription_alone(server: Server) -> None:
    async with connect(server) as client:
        thread_id = (await client.new_thread())["thread_id"]
        subscribed, _ = await client.replay(thread_id)
        accepted = await client.start("hi", thread_id=thread_id, subscribe=False)
        await client.ended(accepted["run_id"])
        assert "hi" in client.reader(thread_id, after_seq=0, since=subscribed).answer(accepted["run_id"])


@pytest.mark.parametrize("by_start", [True, False], ids=["made by a start", "made by subscribe"])
async def test_after_unsubscribe_nothing_more_is_told(server: Server, by_start: bool) -> None:
    user = fresh("u")
    async with connect(server, user) as client, connect(server, user) as witness:
        thread_id = (await client.new_thread())["thread_id"]
        if by_start:
            await client.run("hi", thread_id=thread_id)
        else:
            await client.replay(thread_id)
        gone = await client.granted({"type": "unsubscribe", "thread_id": thread_id}, "unsubscribed")
        assert gone["thread_id"] == thread_id
        await witness.run("unheard", thread_id=thread_id)
        subscribed, events = await client.replay(thread_id)
        assert client.events(thread_id, since=gone, until=subscribed) == []
        assert "unheard" in [event["payload"].get("message") for event in events]


async def test_unsubscribe_is_answered_where_there_was_no_subscription(server: Server) -> None:
    async with connect(server) as client:
        thread_id = (await client.new_thread())["thread_id"]
        for _ in range(2):
            await client.granted({"type": "unsubscribe", "thread_id": thread_id}, "unsubscribed")


async def test_unsubscribe_ends_one_subscription_of_one_connection(server: Server) -> None:
    user = fresh("u")
    async with connect(server, user) as one, connect(server, user) as two:
        here, there = [(await one.new_thread())["thread_id"] for _ in range(2)]
        for client, thread_id in [(one, here), (one, there), (two, here)]:
            await client.replay(thread_id)
        await one.granted({"type": "unsubscribe", "thread_id": here}, "unsubscribed")
        accepted = await one.start("hi", thread_id=here, subscribe=False)
        assert "hi" in (await two.ended(accepted["run_id"]))["payload"]["response"]
        accepted = await two.start("ho", thread_id=there)
        assert "ho" in (await one.ended(accepted["run_id"]))["payload"]["response"]
