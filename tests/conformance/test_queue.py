"""Section 3, `if_busy: queue`: a thread runs one at a time and the others wait in the order of acceptance."""

import json

import pytest

from .client import Client, Server, connect, fresh
from .runs import at_work, streaming
from .shapes import TERMINAL, Frame


async def stop(client: Client, run_id: str) -> Frame:
    return await client.granted({"type": "stop_agent", "run_id": run_id}, "stop_accepted")


async def test_a_run_in_an_idle_thread_does_not_wait(server: Server) -> None:
    async with connect(server) as client:
        accepted = await client.start("hi")
        assert accepted["position"] == 0
        await client.ended(accepted["run_id"])
        kinds = [event["type"] for event in client.events(accepted["thread_id"])]
        assert "agent_queued" not in kinds
        assert kinds[0] == "agent_started"


async def test_a_run_in_a_busy_thread_waits_and_is_told_its_position(server: Server) -> None:
    async with connect(server) as client:
        first = await at_work(client)
        for position in (1, 2, 3):
            accepted = await client.start(f"u{position}")
            assert accepted["thread_id"] == first["thread_id"]
            assert (accepted["status"], accepted["position"]) == ("queued", position)
            queued = await client.event(accepted["run_id"])
            assert (queued["type"], queued["payload"]["position"]) == ("agent_queued", position)
            assert queued["seq"] == accepted["seq"] + 1


async def test_queued_runs_go_one_after_the_other_in_the_order_of_acceptance(server: Server) -> None:
    async with connect(server) as client:
        first = await at_work(client)
        waiting = [await client.start(text, if_busy="queue") for text in ("u1", "u2", "u3")]
        runs = [accepted["run_id"] for accepted in (first, *waiting)]
        await stop(client, runs[0])
        await client.ended(runs[-1])
        reader = client.reader(first["thread_id"], after_seq=first["seq"], since=first)
        marks = [(event["run_id"], event["type"]) for event in reader.events]
        order = [(run, kind) for run, kind in marks if kind in TERMINAL or kind == "agent_started"]
        ends = ["agent_stopped", "agent_completed", "agent_completed", "agent_completed"]
        assert order == [
            mark for run, end in zip(runs, ends, strict=True) for mark in [(run, "agent_started"), (run, end)]
        ]
        assert all(text in reader.answer(run) for run, text in zip(runs[1:], ("u1", "u2", "u3"), strict=True))


async def test_a_queued_run_begins_with_agent_queued_and_has_one_agent_started(server: Server) -> None:
    async with connect(server) as client:
        first = await at_work(client)
        accepted = await client.start("u1")
        await stop(client, first["run_id"])
        await client.ended(accepted["run_id"])
        reader = client.reader(first["thread_id"], after_seq=first["seq"], since=first)
        kinds = [event["type"] for event in reader.of(accepted["run_id"])]
        assert kinds[:2] == ["agent_queued", "agent_started"]
        assert kinds.count("agent_queued") == kinds.count("agent_started") == 1


@pytest.mark.needs("agents")
async def test_a_queued_run_sees_the_questions_and_answers_before_it_in_order(server: Server) -> None:
    async with connect(server) as client:
        first = await at_work(client)
        for text in ("one", "two"):
            await client.start(text, agent="echo")
        last = await client.start("and so?", agent="history")
        await stop(client, first["run_id"])
        history = json.loads((await client.ended(last["run_id"]))["payload"]["response"])
        told = [entry for entry in history if entry[1] in {"one", "two"}]
        assert told == [["user", "one"], ["assistant", "one"], ["user", "two"], ["assistant", "two"]]


async def test_messages_sent_together_are_answered_in_their_order(server: Server) -> None:
    async with connect(server) as client:
        texts = [f"m{number}" for number in range(4)]
        sent = [await client.post({"type": "chat", "content": text}) for text in texts]
        answers = [await client.answer_to(frame_id) for frame_id in sent]
        ends = [await client.ended(answer["run_id"]) for answer in answers]
        assert all(text in end["payload"]["response"] for end, text in zip(ends, texts, strict=True))
        assert [end["seq"] for end in ends] == sorted(end["seq"] for end in ends)


async def test_two_connections_share_the_queue_of_a_thread(server: Server) -> None:
    user = fresh("u")
    async with connect(server, user) as one, connect(server, user) as two:
        first = await at_work(one)
        accepted = await two.start("from two", thread_id=first["thread_id"])
        assert (accepted["status"], accepted["position"]) == ("queued", 1)
        await stop(two, first["run_id"])
        assert "from two" in (await two.ended(accepted["run_id"]))["payload"]["response"]
        assert "from two" in (await one.ended(accepted["run_id"]))["payload"]["response"]


async def test_another_thread_does_not_wait(server: Server) -> None:
    async with connect(server) as client:
        await at_work(client)
        other = (await client.new_thread())["thread_id"]
        events = await client.run("meanwhile", thread_id=other)
        assert [events[0]["type"], events[-1]["type"]] == ["agent_started", "agent_completed"]


@pytest.mark.needs("agents")
async def test_a_failed_run_lets_the_next_one_run(server: Server) -> None:
    async with connect(server) as client:
        first = await at_work(client)
        failing = await client.start("u1", agent="fail")
        last = await client.start("u2")
        await stop(client, first["run_id"])
        assert (await client.ended(failing["run_id"]))["type"] == "agent_error"
        assert "u2" in (await client.ended(last["run_id"]))["payload"]["response"]


async def test_a_run_goes_on_when_its_connection_is_gone(server: Server) -> None:
    user = fresh("u")
    async with connect(server, user) as witness:
        thread_id = (await witness.new_thread())["thread_id"]
        async with connect(server, user) as client:
            accepted = await client.start(**streaming(40), thread_id=thread_id)
            await client.socket.close()
        await witness.replay(thread_id)
        terminal = await witness.ended(accepted["run_id"])
        assert terminal["type"] == "agent_completed"
        assert len(terminal["payload"]["response"].split()) >= 40
