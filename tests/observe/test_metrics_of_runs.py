"""What is counted of runs, their events and their tools moves when that happens."""

import asyncio
import gc
import threading
from typing import Any

import pytest

import agentws
from agentws.observe.meters import RunMeter

from ..conftest import StartService
from ..faults import Line
from ..peers import Peer, peer
from .reading import moved, until, value


async def stop(client: Peer, accepted: dict[str, Any]) -> list[dict[str, Any]]:
    client.send(type="stop_agent", run_id=accepted["run_id"])
    return await client.ended(accepted["run_id"])


async def test_a_run_is_counted_while_it_is_at_work(start_service: StartService) -> None:
    service = await start_service()
    async with peer(service) as client:
        with moved(service, "agentws_runs_in_flight", by=1):
            accepted = await client.ask("hi", agent="slow")
        await stop(client, accepted)
        assert value(service, "agentws_runs_in_flight") == 0


@pytest.mark.parametrize(("agent", "outcome"), [("echo", "completed"), ("fail", "failed"), ("slow", "stopped")])
async def test_a_run_s_end_is_counted_by_agent_and_outcome_and_timed(
    start_service: StartService, agent: str, outcome: str
) -> None:
    service = await start_service()
    async with peer(service) as client:
        with (
            moved(service, "agentws_runs_ended_total", by=1, agent=agent, outcome=outcome),
            moved(service, "agentws_run_seconds_count", by=1, outcome=outcome),
            moved(service, "agentws_run_seconds_sum", outcome=outcome),
        ):
            accepted = await client.ask("hi", agent=agent)
            await (stop(client, accepted) if agent == "slow" else client.ended(accepted["run_id"]))


async def test_a_failure_is_counted_by_its_code_and_a_code_of_the_agent_s_own_under_one_name(
    start_service: StartService,
) -> None:
    async def own(run: agentws.Run) -> None:
        raise agentws.AgentError(f"code_{run.text}", "no")

    async def fail(run: agentws.Run) -> None:
        raise RuntimeError

    service = await start_service({"own": own, "fail": fail})
    async with peer(service) as client:
        with moved(service, "agentws_run_failures_total", by=1, code="agent_failed"):
            await client.run("hi", agent="fail")
        with moved(service, "agentws_run_failures_total", by=2, code="unknown"):
            await client.run("1", agent="own")
            await client.run("2", agent="own")


def test_what_is_not_known_beforehand_makes_no_new_series() -> None:
    meter = RunMeter(agents=("known",))
    before = len(meter._ended)
    meter.ended("stranger", "completed", code=None, seconds=1, stopping_s=None)
    assert len(meter._ended) == before
    assert meter._ended["unknown", "completed"]._value.get() == 1


async def test_a_run_that_another_may_take_is_counted_as_left(start_service: StartService, line: Line) -> None:
    service = await start_service(lease_ttl_s=0.6)
    async with peer(service) as client:
        with moved(service, "agentws_runs_left_total", by=1):
            await client.ask("hi", agent="slow")
            line.cut("renew_node")
            line.hold("take_over_2")
            await until(lambda: value(service, "agentws_lease_held") == 0)
            await until(lambda: value(service, "agentws_runs_in_flight") == 0)
        line.mend()


async def test_waiting_first_event_and_end_are_timed_from_the_acceptance_on(start_service: StartService) -> None:
    gate = asyncio.Event()

    async def gated(run: agentws.Run) -> str:
        if run.text == "first":
            await gate.wait()
        return run.text

    service = await start_service({"gated": gated})
    async with peer(service) as client:
        first = await client.ask("first")
        await client.ended((await _queued(client, gate))["run_id"])
        await client.ended(first["run_id"])
    waited = value(service, "agentws_run_wait_seconds_sum")
    to_first = value(service, "agentws_first_event_seconds_sum")
    to_end = value(service, "agentws_run_seconds_sum", outcome="completed")
    assert value(service, "agentws_run_wait_seconds_count") == value(service, "agentws_first_event_seconds_count") == 2
    # The second waited for at least as long as it takes to be answered; its own events came after that.
    assert 0 < waited < to_first <= to_end


async def _queued(client: Peer, gate: asyncio.Event) -> dict[str, Any]:
    second = await client.ask("second")
    assert second["status"] == "queued"
    gate.set()
    return second


async def test_waiting_and_the_first_event_are_timed(start_service: StartService) -> None:
    service = await start_service()
    async with peer(service) as client:
        with (
            moved(service, "agentws_run_wait_seconds_count", by=1),
            moved(service, "agentws_first_event_seconds_count", by=1),
        ):
            await client.run("hi", agent="tool")


async def test_the_time_from_a_stop_to_the_end_is_measured(start_service: StartService) -> None:
    service = await start_service()
    async with peer(service) as client:
        accepted = await client.ask("hi", agent="slow")
        with moved(service, "agentws_stop_seconds_count", by=1), moved(service, "agentws_stop_seconds_sum"):
            await stop(client, accepted)
        with moved(service, "agentws_runs_ended_total", by=1, agent="echo", outcome="completed"):
            await client.run("hi", agent="echo")
    assert value(service, "agentws_stop_seconds_count") == 1


async def test_events_are_counted_by_type_when_they_are_committed(start_service: StartService) -> None:
    service = await start_service()
    async with peer(service) as client:
        events = await client.run("hi", agent="tool")
    types = [event["type"] for event in events]
    assert len(set(types)) == 6
    for each in types:
        assert value(service, "agentws_events_committed_total", type=each) == 1


async def test_an_append_without_an_answer_is_counted_and_its_events_once(
    start_service: StartService, line: Line
) -> None:
    service = await start_service()
    async with peer(service) as client:
        with (
            moved(service, "agentws_append_retries_total", by=2),
            moved(service, "agentws_events_committed_total", by=1, type="agent_completed"),
        ):
            line.lose_answers("append", 2)
            await client.run("hi", agent="echo")


async def _hang() -> None:
    await asyncio.Event().wait()


async def _raise() -> None:
    raise ValueError


async def test_tools_are_timed_by_outcome(start_service: StartService) -> None:
    release = threading.Event()

    async def calls(run: agentws.Run) -> None:
        tools: dict[str, Any] = {"done": dict, "failed": _raise, "stopped": _hang, "unknown": release.wait}
        await run.call_tool("any", tools[run.text])

    service = await start_service({"calls": calls}, stop_grace_s=0.5)
    try:
        async with peer(service) as client:
            for outcome in ("done", "failed", "stopped", "unknown"):
                with (
                    moved(service, "agentws_tool_seconds_count", by=1, outcome=outcome),
                    moved(service, "agentws_tool_seconds_sum", outcome=outcome),
                ):
                    accepted = await client.ask(outcome)
                    if outcome in ("stopped", "unknown"):
                        await client.until_type("tool_executing")
                        await stop(client, accepted)
                    completed = (await client.ended(accepted["run_id"]))[-2]
                    assert completed["payload"]["outcome"] == outcome
    finally:
        release.set()


async def test_supervisors_and_contexts_that_are_kept_alive_show(start_service: StartService) -> None:
    kept: list[agentws.UserExecutionContext] = []

    async def keeper(run: agentws.Run) -> None:
        if run.text == "keep":
            kept.append(run.context)
        else:
            await asyncio.Event().wait()

    service = await start_service({"keeper": keeper})
    async with peer(service) as client:
        with moved(service, "agentws_supervisors", by=1), moved(service, "agentws_contexts", by=1):
            accepted = await client.ask("work")
        await stop(client, accepted)
        gc.collect()
        assert value(service, "agentws_supervisors") == value(service, "agentws_contexts") == 0
        await client.run("keep")
        gc.collect()
        assert (value(service, "agentws_supervisors"), value(service, "agentws_contexts")) == (0, 1)
        kept.clear()
        gc.collect()
        assert value(service, "agentws_contexts") == 0


async def test_an_agent_that_does_not_end_when_it_is_cancelled_is_counted_until_it_does(
    start_service: StartService,
) -> None:
    release = asyncio.Event()

    async def stubborn(run: agentws.Run) -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    service = await start_service({"stubborn": stubborn}, stop_grace_s=0.05)
    async with peer(service) as client:
        accepted = await client.ask("hi")
        with moved(service, "agentws_abandoned_tasks", by=1):
            await stop(client, accepted)
        release.set()
        await until(lambda: value(service, "agentws_abandoned_tasks") == 0)


async def test_tools_in_threads_are_counted_and_those_that_nobody_waits_for(start_service: StartService) -> None:
    release, begun = threading.Event(), threading.Event()

    def block() -> None:
        begun.set()
        release.wait()

    async def calls(run: agentws.Run) -> None:
        await run.call_tool("block", block)

    service = await start_service({"calls": calls}, stop_grace_s=0.05)
    try:
        async with peer(service) as client:
            with moved(service, "agentws_tool_threads", by=1):
                accepted = await client.ask("hi")
                await asyncio.to_thread(begun.wait)
            assert value(service, "agentws_abandoned_tool_threads") == 0
            with moved(service, "agentws_abandoned_tool_threads", by=1):
                await stop(client, accepted)
            assert value(service, "agentws_tool_threads") == 1
    finally:
        release.set()
    await until(lambda: value(service, "agentws_tool_threads") == 0)
    assert value(service, "agentws_abandoned_tool_threads") == 0
