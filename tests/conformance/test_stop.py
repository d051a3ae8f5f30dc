"""Section 3, `stop_agent`: what it names, what it answers, and how the runs end."""

import pytest

from .client import Client, Server, connect, fresh
from .reader import Reader
from .runs import ENDLESS, at_work
from .shapes import Frame


async def stop(client: Client, **payload: str | None) -> Frame:
    return await client.granted({"type": "stop_agent", "payload": payload}, "stop_accepted")


@pytest.mark.parametrize("name", ["run_id", "request_id", "thread_id"])
async def test_a_run_is_stopped_by_each_of_its_ids(server: Server, name: str) -> None:
    async with connect(server) as client:
        accepted = await at_work(client)
        stopping = await stop(client, **{name: accepted[name]})
        assert (stopping["run_ids"], stopping["already_ended"]) == ([accepted["run_id"]], [])
        assert (await client.ended(accepted["run_id"]))["type"] == "agent_stopped"


async def test_a_stopped_run_keeps_its_text_and_says_who_stopped_it(server: Server) -> None:
    async with connect(server) as client:
        accepted = await at_work(client)
        await stop(client, run_id=accepted["run_id"])
        payload = (await client.ended(accepted["run_id"]))["payload"]
        assert (payload["status"], payload["reason"]) == ("stopped", "user")
        reader = client.reader(accepted["thread_id"], after_seq=accepted["seq"], since=accepted)
        assert payload["response"] == reader.answer(accepted["run_id"]) != ""


async def test_the_clients_reason_is_told(server: Server) -> None:
    async with connect(server) as client:
        accepted = await at_work(client)
        await stop(client, run_id=accepted["run_id"], reason="changed my mind")
        assert (await client.ended(accepted["run_id"]))["payload"]["reason"] == "changed my mind"


@pytest.mark.parametrize("frame", [{}, {"thread_id": None}, {"payload": {"reason": "why"}}])
async def test_a_stop_that_names_nothing_names_run_id(server: Server, frame: Frame) -> None:
    async with connect(server) as client:
        await client.refused({"type": "stop_agent", **frame}, "validation_error", field="run_id")
        await at_work(client)
        await client.refused({"type": "stop_agent", **frame}, "validation_error", field="run_id")


@pytest.mark.parametrize("name", ["run_id", "request_id"])
async def test_an_unknown_run_is_not_found(server: Server, name: str) -> None:
    async with connect(server) as client:
        await client.refused({"type": "stop_agent", name: fresh("x")}, "run_not_found")
        await client.still_serves()


async def test_an_unknown_thread_is_not_found(server: Server) -> None:
    async with connect(server) as client:
        await client.refused({"type": "stop_agent", "thread_id": fresh("t")}, "run_not_found", "thread_not_found")


@pytest.mark.parametrize("name", ["run_id", "request_id", "thread_id", "reason"])
@pytest.mark.parametrize("bad", [5, False, [], {}])
async def test_a_field_of_a_wrong_type_is_named(server: Server, name: str, bad: object) -> None:
    async with connect(server) as client:
        frame = {"type": "stop_agent", "payload": {"run_id": "some-run", name: bad}}
        await client.refused(frame, "validation_error", field=name)


async def test_the_first_id_given_decides(server: Server) -> None:
    async with connect(server) as client:
        one = await at_work(client)
        other = (await client.new_thread())["thread_id"]
        two = await at_work(client, thread_id=other)
        by_run = await stop(client, run_id=one["run_id"], request_id=two["request_id"], thread_id=other)
        assert by_run["run_ids"] == [one["run_id"]]
        by_request = await stop(client, run_id=None, request_id=two["request_id"], thread_id=one["thread_id"])
        assert by_request["run_ids"] == [two["run_id"]]
        assert (await client.ended(one["run_id"]))["type"] == "agent_stopped"
        assert (await client.ended(two["run_id"]))["type"] == "agent_stopped"


async def test_stopping_again_changes_nothing(server: Server) -> None:
    async with connect(server) as client:
        accepted = await at_work(client)
        run_id = accepted["run_id"]
        await stop(client, run_id=run_id, reason="first")
        again = await stop(client, run_id=run_id, reason="second")
        assert again["run_ids"] + again["already_ended"] == [run_id]
        assert (await client.ended(run_id))["payload"]["reason"] == "first"
        late = await stop(client, request_id=accepted["request_id"], reason="third")
        assert (late["run_ids"], late["already_ended"]) == ([], [run_id])
        _, events = await client.replay(accepted["thread_id"])
        Reader().feed_all(events)
        assert [event["type"] for event in events].count("agent_stopped") == 1


async def test_a_run_that_completed_had_already_ended(server: Server) -> None:
    async with connect(server) as client:
        run_id = (await client.run("hi"))[-1]["run_id"]
        answer = await stop(client, run_id=run_id)
        assert (answer["run_ids"], answer["already_ended"]) == ([], [run_id])


async def test_a_thread_at_rest_has_nothing_to_stop(server: Server) -> None:
    async with connect(server) as client:
        thread_id = (await client.run("hi"))[-1]["thread_id"]
        assert (await stop(client, thread_id=thread_id))["run_ids"] == []
        await client.run("again", thread_id=thread_id)


async def test_a_waiting_run_is_stopped_without_having_started(server: Server) -> None:
    async with connect(server) as client:
        first = await at_work(client)
        waiting = await client.start("wait")
        last = await client.start("go on")
        assert (await stop(client, run_id=waiting["run_id"]))["run_ids"] == [waiting["run_id"]]
        await client.ended(waiting["run_id"])
        await stop(client, run_id=first["run_id"])
        assert "go on" in (await client.ended(last["run_id"]))["payload"]["response"]
        reader = client.reader(first["thread_id"], after_seq=first["seq"], since=first)
        events = reader.of(waiting["run_id"])
        assert [event["type"] for event in events] == ["agent_queued", "agent_stopped"]
        assert not events[-1]["payload"]["response"]


async def test_stopping_a_thread_stops_the_running_and_the_waiting_ones(server: Server) -> None:
    async with connect(server) as client:
        first = await at_work(client)
        other = await at_work(client, thread_id=(await client.new_thread())["thread_id"])
        waiting = [await client.start(text) for text in ("u1", "u2")]
        runs = [accepted["run_id"] for accepted in (first, *waiting)]
        stopping = await stop(client, thread_id=first["thread_id"], reason="all of it")
        assert sorted(stopping["run_ids"]) == sorted(runs)
        for run_id in runs:
            ended = await client.ended(run_id)
            assert (ended["type"], ended["payload"]["reason"]) == ("agent_stopped", "all of it")
        _, events = await client.replay(first["thread_id"])
        assert [event["type"] for event in events].count("agent_started") == 1
        assert (await stop(client, run_id=other["run_id"]))["run_ids"] == [other["run_id"]]


async def test_a_thread_goes_on_after_a_stop(server: Server) -> None:
    async with connect(server) as client:
        accepted = await at_work(client)
        await stop(client, thread_id=accepted["thread_id"])
        await client.ended(accepted["run_id"])
        events = await client.run("next")
        assert events[0]["thread_id"] == accepted["thread_id"]
        assert "next" in events[-1]["payload"]["response"]


async def test_another_connection_of_the_user_may_stop(server: Server) -> None:
    user = fresh("u")
    async with connect(server, user) as one, connect(server, user) as two:
        accepted = await at_work(one)
        assert (await stop(two, run_id=accepted["run_id"]))["run_ids"] == [accepted["run_id"]]
        assert (await one.ended(accepted["run_id"]))["type"] == "agent_stopped"


async def test_a_run_of_nobody_listening_may_be_stopped(server: Server) -> None:
    async with connect(server) as client:
        accepted = await client.start(**ENDLESS, subscribe=False)
        answer = await stop(client, run_id=accepted["run_id"])
        assert answer["run_ids"] == [accepted["run_id"]]
        await client.replay(accepted["thread_id"])
        assert (await client.ended(accepted["run_id"]))["type"] == "agent_stopped"
