"""Section 3, `if_busy`: a start in a busy thread waits, is refused, or interrupts, as its sender wants."""

import pytest

from .client import Client, Server, connect, fresh
from .runs import ENDLESS, at_work
from .shapes import Frame
from .threads import history


def message(text: str, if_busy: str, **options: object) -> Frame:
    return {"type": "user_message", "payload": {"content": text, "if_busy": if_busy, **options}}


async def ended_after(client: Client, accepted: Frame, stopped: Frame) -> Frame:
    """The end of one run, once another has been stopped."""
    await client.stop(run_id=stopped["run_id"])
    return await client.ended(accepted["run_id"])


def started_order(client: Client, thread_id: str) -> list[str]:
    """The runs of a thread in the order in which they started."""
    return [event["run_id"] for event in client.events(thread_id) if event["type"] == "agent_started"]


@pytest.mark.parametrize("if_busy", ["queue", "reject", "interrupt"])
async def test_in_an_idle_thread_a_start_runs_at_once(server: Server, if_busy: str) -> None:
    async with connect(server) as client:
        for _ in range(2):
            events = await client.run("hi", if_busy=if_busy)
            assert [events[0]["type"], events[-1]["type"]] == ["agent_started", "agent_completed"]


async def test_reject_is_refused_while_a_run_is_at_work_and_leaves_nothing(server: Server) -> None:
    async with connect(server) as client:
        accepted = await at_work(client)
        run_id, key = fresh("run"), fresh("key")
        asked = message("later", "reject", run_id=run_id, idempotency_key=key)
        refusal = await client.refused(asked, "thread_busy")
        assert refusal["retryable"] is True
        assert len((await history(client, accepted["thread_id"]))["messages"]) == 1
        await client.stop(run_id=accepted["run_id"])
        await client.ended(accepted["run_id"])
        again = await client.granted(asked, "request_accepted")
        assert (again["run_id"], again["duplicate"]) == (run_id, False)
        await client.ended(run_id)


async def test_reject_is_refused_while_runs_wait(server: Server) -> None:
    async with connect(server) as client:
        first = await at_work(client)
        waiting = await client.start("next")
        await client.refused(message("later", "reject"), "thread_busy")
        assert (await ended_after(client, waiting, first))["type"] == "agent_completed"


async def test_reject_looks_at_its_own_thread(server: Server) -> None:
    async with connect(server) as client, connect(server) as stranger:
        accepted = await at_work(client)
        await stranger.new_thread(accepted["thread_id"])
        await stranger.run("hi", thread_id=accepted["thread_id"], if_busy="reject")
        await client.run("hi", thread_id=(await client.new_thread())["thread_id"], if_busy="reject")


async def test_a_refused_first_message_of_a_busy_thread_does_not_change_the_current_thread(server: Server) -> None:
    async with connect(server) as client:
        current = (await client.run("hi"))[0]["thread_id"]
        busy = await at_work(client, thread_id=(await client.new_thread())["thread_id"])
        await client.refused(message("hi", "reject", thread_id=busy["thread_id"]), "thread_busy")
        assert (await client.start("hi"))["thread_id"] == current


async def test_interrupt_stops_the_run_at_work_and_comes_next(server: Server) -> None:
    async with connect(server) as client:
        first = await at_work(client)
        accepted = await client.granted(message("what is 6 * 7?", "interrupt"), "request_accepted")
        stopped = await client.ended(first["run_id"])
        assert (stopped["type"], stopped["payload"]["reason"]) == ("agent_stopped", "interrupted")
        assert stopped["payload"]["response"]
        ended = await client.ended(accepted["run_id"])
        assert (ended["type"], "42" in ended["payload"]["response"]) == ("agent_completed", True)
        reader = client.reader(first["thread_id"], after_seq=first["seq"], since=first)
        assert list(reader.runs) == [first["run_id"], accepted["run_id"]]


async def test_interrupt_goes_before_those_that_wait(server: Server) -> None:
    async with connect(server) as client:
        first = await at_work(client)
        waiting = [(await client.start(text))["run_id"] for text in ("one", "two")]
        accepted = await client.granted(message("now", "interrupt"), "request_accepted")
        for run_id in (*waiting, accepted["run_id"]):
            assert (await client.ended(run_id))["type"] == "agent_completed"
        order = [first["run_id"], accepted["run_id"], *waiting]
        assert started_order(client, first["thread_id"]) == order
        client.reader(first["thread_id"], after_seq=first["seq"], since=first)


async def test_the_history_is_in_the_queues_order(server: Server) -> None:
    async with connect(server) as client:
        first = await at_work(client)
        waiting = [await client.start(text) for text in ("one", "two")]
        accepted = await client.granted(message("now", "interrupt"), "request_accepted")
        order = [each["run_id"] for each in (first, accepted, *waiting)]
        messages = (await history(client, first["thread_id"]))["messages"]
        assert [each["run_id"] for each in messages if each["role"] == "user"] == order
        for run_id in order:
            await client.ended(run_id)
        messages = (await history(client, first["thread_id"]))["messages"]
        assert [each["run_id"] for each in messages] == [run_id for run_id in order for _ in range(2)]
        assert [each["role"] for each in messages] == ["user", "assistant"] * 4


async def test_interrupt_leaves_those_that_wait_alone(server: Server) -> None:
    async with connect(server) as client:
        first = await at_work(client)
        waiting = await client.start("still mine")
        await client.granted(message("now", "interrupt"), "request_accepted")
        ended = await client.ended(waiting["run_id"])
        assert (ended["type"], "still mine" in ended["payload"]["response"]) == ("agent_completed", True)
        assert (await client.ended(first["run_id"]))["payload"]["reason"] == "interrupted"


async def test_an_interrupted_runs_interrupter_may_be_interrupted_itself(server: Server) -> None:
    async with connect(server) as client:
        first = await at_work(client)
        second = await client.start(**ENDLESS, if_busy="interrupt")
        await client.event(second["run_id"], "agent_message")
        third = await client.granted(message("now", "interrupt"), "request_accepted")
        for each in (first, second):
            assert (await client.ended(each["run_id"]))["payload"]["reason"] == "interrupted"
        assert (await client.ended(third["run_id"]))["type"] == "agent_completed"


async def test_interrupts_sent_together_leave_one_run_at_work_at_a_time_and_the_last_one_answers(
    server: Server,
) -> None:
    async with connect(server) as client:
        first = await at_work(client)
        sent = [await client.post(message(f"m{number}", "interrupt")) for number in range(4)]
        runs = [(await client.answer_to(frame_id))["run_id"] for frame_id in sent]
        ends = {run_id: await client.ended(run_id) for run_id in [first["run_id"], *runs]}
        client.reader(first["thread_id"], after_seq=first["seq"], since=first)
        assert ends[first["run_id"]]["payload"]["reason"] == "interrupted"
        assert ends[runs[-1]]["type"] == "agent_completed"
        reasons = {end["payload"].get("reason") for end in ends.values() if end["type"] == "agent_stopped"}
        assert reasons == {"interrupted"}


async def test_a_stop_that_came_first_keeps_its_reason(server: Server) -> None:
    async with connect(server) as client:
        first = await at_work(client)
        stop = await client.post({"type": "stop_agent", "run_id": first["run_id"], "reason": "mine"})
        accepted = await client.granted(message("now", "interrupt"), "request_accepted")
        assert (await client.answer_to(stop))["run_ids"] == [first["run_id"]]
        assert (await client.ended(first["run_id"]))["payload"]["reason"] == "mine"
        assert (await client.ended(accepted["run_id"]))["type"] == "agent_completed"


async def test_interrupt_looks_at_its_own_thread(server: Server) -> None:
    async with connect(server) as client, connect(server) as stranger:
        accepted = await at_work(client)
        await stranger.new_thread(accepted["thread_id"])
        await stranger.run("hi", thread_id=accepted["thread_id"], if_busy="interrupt")
        await client.run("hi", thread_id=(await client.new_thread())["thread_id"], if_busy="interrupt")
        assert (await client.new_thread(accepted["thread_id"]))["running_run_id"] == accepted["run_id"]


async def test_a_repeat_of_an_interrupt_interrupts_nothing(server: Server) -> None:
    async with connect(server) as client:
        await at_work(client)
        asked = message("now", "interrupt", idempotency_key=fresh("key"))
        await client.ended((await client.granted(asked, "request_accepted"))["run_id"])
        next_one = await at_work(client)
        assert (await client.granted(asked, "request_accepted"))["duplicate"] is True
        assert (await client.new_thread(next_one["thread_id"]))["running_run_id"] == next_one["run_id"]


@pytest.mark.parametrize("field", ["if_busy", "on_disconnect"])
async def test_the_option_belongs_to_the_content_of_a_key(server: Server, field: str) -> None:
    async with connect(server) as client:
        other = {"if_busy": "reject", "on_disconnect": "stop"}[field]
        first = await client.start("hi", idempotency_key="k")
        await client.ended(first["run_id"])
        payload = {"content": "hi", "idempotency_key": "k"}
        await client.refused({"type": "user_message", "payload": payload | {field: other}}, "idempotency_conflict")
        second = await client.start("hi", idempotency_key="l", **{field: other})
        repeat = await client.start("hi", idempotency_key="l", **{field: other})
        assert (repeat["duplicate"], repeat["run_id"]) == (True, second["run_id"])
        assert first["run_id"] != second["run_id"]


async def position_of(client: Client, key: str) -> tuple[str, int]:
    """How a run that waits is told to stand, by a repeat of its start."""
    repeat = await client.start(key, idempotency_key=key)
    assert repeat["duplicate"] is True
    return repeat["status"], repeat["position"]


async def test_positions_count_those_that_wait_before(server: Server) -> None:
    async with connect(server) as client:
        first = await at_work(client)
        waiting = [await client.start(key, idempotency_key=key) for key in ("a", "b", "c")]
        assert [each["position"] for each in waiting] == [1, 2, 3]
        assert [await position_of(client, key) for key in ("a", "b", "c")] == [("queued", n) for n in (1, 2, 3)]
        await client.stop(run_id=waiting[0]["run_id"])
        await client.ended(waiting[0]["run_id"])
        assert await position_of(client, "a") == ("stopped", 0)
        assert [await position_of(client, key) for key in ("b", "c")] == [("queued", 1), ("queued", 2)]
        assert (await client.start("d"))["position"] == 3
        assert (await ended_after(client, waiting[2], first))["type"] == "agent_completed"


async def test_an_interrupter_that_waits_is_told_the_first_position(server: Server) -> None:
    async with connect(server) as client:
        first = await at_work(client)
        await client.start("one", idempotency_key="one")
        accepted = await client.start(**ENDLESS, if_busy="interrupt")
        assert accepted["position"] in {0, 1}
        queued = [event for event in client.events(first["thread_id"]) if event["type"] == "agent_queued"]
        told = [event["payload"]["position"] for event in queued if event["run_id"] == accepted["run_id"]]
        assert told in ([], [1])
        await client.event(accepted["run_id"], "agent_message")
        assert await position_of(client, "one") == ("queued", 1)


async def test_a_thread_is_idle_once_the_end_of_its_only_run_was_told(server: Server) -> None:
    """A start that follows a terminal event is never refused for the run that it ended."""
    async with connect(server) as client:
        for _ in range(10):
            accepted = await client.start("hi", if_busy="reject")
            await client.ended(accepted["run_id"])
