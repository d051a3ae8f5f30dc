"""Section 5, `resume_after`: a history and a subscription join there without a gap and without a double, also while
runs are at work."""

from .client import Client, Server, connect, fresh, of_type
from .reader import Reader
from .runs import ENDLESS, at_work, streaming
from .shapes import Frame
from .threads import history

ENDED = {"completed", "failed", "stopped"}


async def test_a_thread_at_rest_is_resumed_at_its_end(server: Server) -> None:
    async with connect(server) as client:
        events = await client.run("hi")
        answer = await history(client, events[0]["thread_id"])
        assert answer["resume_after"] == answer["last_seq"] == events[-1]["seq"]


async def test_a_run_at_work_is_resumed_before_its_first_event(server: Server) -> None:
    async with connect(server) as client:
        ended = (await client.run("hi"))[-1]
        accepted = await at_work(client)
        answer = await history(client, accepted["thread_id"])
        assert answer["resume_after"] == accepted["seq"] == ended["seq"]
        assert answer["last_seq"] > answer["resume_after"]


async def test_the_oldest_run_that_has_not_ended_decides(server: Server) -> None:
    """The second run's first event is its `agent_queued`, which came before the first run's end."""
    async with connect(server) as client:
        first = await at_work(client)
        second = await client.start(**ENDLESS)
        await client.start("third")
        assert (await history(client, first["thread_id"]))["resume_after"] == first["seq"]
        await client.stop(run_id=first["run_id"])
        ended = await client.ended(first["run_id"])
        await client.event(second["run_id"], "agent_message")
        assert (await history(client, first["thread_id"]))["resume_after"] == second["seq"] < ended["seq"]


async def test_a_page_of_older_messages_resumes_where_the_first_page_does(server: Server) -> None:
    async with connect(server) as client:
        await client.run("hi")
        accepted = await at_work(client)
        first = await history(client, accepted["thread_id"], limit=1)
        second = await history(client, accepted["thread_id"], limit=1, before=first["next_before"])
        assert first["resume_after"] == second["resume_after"] == accepted["seq"]


async def joined(client: Client, thread_id: str) -> tuple[Frame, Frame, Reader]:
    """A history, and the subscription that goes on from it, held to the dense rule."""
    snapshot = await history(client, thread_id)
    after_seq = snapshot["resume_after"]
    subscribed, events = await client.replay(thread_id, after_seq=after_seq, epoch=snapshot["epoch"])
    assert (subscribed["after_seq"], subscribed["recovered"]) == (after_seq, True)
    assert subscribed["last_seq"] >= snapshot["last_seq"]
    return snapshot, subscribed, Reader(after_seq).feed_all(events)


def answers_in(messages: list[Frame]) -> dict[str, str]:
    return {message["run_id"]: message["content"] for message in messages if message["role"] == "assistant"}


async def test_history_and_subscription_hold_everything_once_while_runs_are_at_work(server: Server) -> None:
    user = fresh("u")
    async with connect(server, user) as writer, connect(server, user) as client:
        thread_id = (await writer.new_thread())["thread_id"]
        runs = [(await writer.start(**streaming(20), thread_id=thread_id))["run_id"] for _ in range(4)]
        while True:
            snapshot, subscribed, _ = await joined(client, thread_id)
            ended = {message["run_id"] for message in snapshot["messages"] if message["status"] in ENDED}
            unended = [run_id for run_id in runs if run_id not in ended]
            if not unended:
                break
            await client.next(of_type("agent_message"), "a piece of an answer")
            terminal = await client.ended(unended[0])
            reader = client.reader(thread_id, after_seq=snapshot["resume_after"], since=subscribed)
            assert reader.runs[unended[0]].whole
            assert reader.answer(unended[0]) == terminal["payload"]["response"]
            known = [message["run_id"] for message in snapshot["messages"] if message["role"] == "user"]
            assert known == runs[: len(known)]
        final = answers_in(snapshot["messages"])
        assert list(final) == runs
        for run_id in runs:
            assert (await writer.ended(run_id))["payload"]["response"] == final[run_id]
        writer.reader(thread_id, after_seq=0, since=writer.established)


async def test_what_was_not_in_the_history_comes_live_after_it(server: Server) -> None:
    user = fresh("u")
    async with connect(server, user) as writer, connect(server, user) as client:
        accepted = await at_work(writer)
        thread_id, waiting = accepted["thread_id"], await writer.start("what is 6 * 7?")
        snapshot, subscribed, _ = await joined(client, thread_id)
        assert answers_in(snapshot["messages"]) == {}
        await writer.stop(run_id=accepted["run_id"])
        await client.ended(waiting["run_id"])
        reader = client.reader(thread_id, after_seq=snapshot["resume_after"], since=subscribed)
        final = answers_in((await history(client, thread_id))["messages"])
        assert {run_id: reader.answer(run_id) for run_id in final} == final
        assert all(reader.runs[run_id].whole for run_id in (accepted["run_id"], waiting["run_id"]))
