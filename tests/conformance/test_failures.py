"""Section 4, how runs and tools fail: with one event that is safe for users, every tool closed, nothing internal told.
That no internal text is anywhere on the wire is checked by the client on every frame."""

import pytest

from .client import Client, Server, connect
from .shapes import Frame

pytestmark = pytest.mark.needs("agents")

TOOL_CODES = {"tool_failed", "tool_timeout", "tool_stopped", "tool_too_large", "worker_lost"}


def completed_tool(events: list[Frame]) -> Frame:
    [event] = [event for event in events if event["type"] == "tool_completed"]
    return event


async def failed(client: Client, agent: str) -> Frame:
    events = await client.run("hi", agent=agent)
    assert events[-1]["type"] == "agent_error"
    payload: Frame = events[-1]["payload"]
    return payload


async def test_an_agent_that_raises_ends_in_agent_failed_with_its_text_so_far(server: Server) -> None:
    async with connect(server) as client:
        payload = await failed(client, "fail")
        assert (payload["code"], payload["response"]) == ("agent_failed", "partial")
        await client.still_serves()


async def test_an_answer_that_cannot_be_told_ends_in_agent_failed(server: Server) -> None:
    async with connect(server) as client:
        payload = await failed(client, "unencodable")
        assert payload["code"] == "agent_failed"
        assert not payload["response"]
        await client.still_serves()


async def test_an_agent_beyond_its_time_ends_in_agent_timeout(server: Server) -> None:
    async with connect(server) as client:
        assert (await failed(client, "timeout"))["code"] == "agent_timeout"
        await client.still_serves()


async def test_the_tool_that_a_timeout_leaves_open_is_closed_first(server: Server) -> None:
    async with connect(server) as client:
        events = await client.run("hi", agent="timeout")
        kinds = [event["type"] for event in events]
        assert kinds.index("tool_executing") < kinds.index("tool_completed") < kinds.index("agent_error")
        tool = completed_tool(events)
        assert tool["tool_name"] == "hang"
        assert (tool["payload"]["success"], tool["payload"]["result"], tool["results"]) == (False, None, None)
        assert tool["payload"]["outcome"] in {"stopped", "unknown"}
        assert tool["payload"]["error"]["code"] in TOOL_CODES


@pytest.mark.parametrize(("agent", "name"), [("badtool", "broken"), ("badresult", "opaque")])
async def test_a_tool_that_fails_is_told_and_the_agent_may_go_on(server: Server, agent: str, name: str) -> None:
    async with connect(server) as client:
        events = await client.run("hi", agent=agent)
        tool = completed_tool(events)
        assert tool["tool_name"] == tool["payload"]["tool_name"] == name
        assert (tool["payload"]["success"], tool["payload"]["outcome"]) == (False, "failed")
        assert (tool["payload"]["result"], tool["results"]) == (None, None)
        assert tool["payload"]["error"]["code"] in TOOL_CODES
        assert (events[-1]["type"], events[-1]["payload"]["response"]) == ("agent_completed", "recovered")


async def test_a_tool_that_raises_is_tool_failed(server: Server) -> None:
    async with connect(server) as client:
        tool = completed_tool(await client.run("hi", agent="badtool"))
        assert tool["payload"]["error"]["code"] == "tool_failed"


@pytest.mark.parametrize("agent", ["fail", "unencodable", "timeout", "badtool", "badresult"])
async def test_a_failure_is_replayed_as_it_was_told_and_leaks_nothing(server: Server, agent: str) -> None:
    async with connect(server) as client:
        told = await client.run("hi", agent=agent)
        _, replayed = await client.replay(told[0]["thread_id"])
        assert replayed[-1] == told[-1]


async def test_the_thread_goes_on_after_a_failure(server: Server) -> None:
    async with connect(server) as client:
        for agent in ("fail", "unencodable", "timeout", "badtool"):
            await client.run("hi", agent=agent)
        assert (await client.run("last", agent="echo"))[-1]["payload"]["response"] == "last"


async def test_a_failure_of_one_run_leaves_runs_of_other_threads_alone(server: Server) -> None:
    async with connect(server) as client:
        accepted = await client.start("60", agent="stream")
        other = (await client.new_thread())["thread_id"]
        await client.run("hi", agent="fail", thread_id=other)
        response = (await client.ended(accepted["run_id"]))["payload"]["response"]
        assert response.split() == [f"w{number}" for number in range(60)]


async def test_a_stop_in_the_middle_of_a_tool_closes_the_tool_first(server: Server) -> None:
    async with connect(server) as client:
        accepted = await client.start("hi", agent="phoenix")
        await client.event(accepted["run_id"], "tool_executing")
        await client.stop(run_id=accepted["run_id"])
        assert (await client.ended(accepted["run_id"]))["type"] == "agent_stopped"
        events = client.reader(accepted["thread_id"], after_seq=0, since=accepted).of(accepted["run_id"])
        tool = completed_tool(events)
        assert [event["type"] for event in events[-2:]] == ["tool_completed", "agent_stopped"]
        assert (tool["payload"]["outcome"], tool["payload"]["error"]["code"]) == ("stopped", "tool_stopped")
        assert (tool["payload"]["result"], tool["results"]) == (None, None)
