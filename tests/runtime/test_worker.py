"""Claims are worked on once, wherever they come from: an accept, the run before, a scan, a call without an answer."""

import asyncio
from typing import Any

import pytest

import agentws

from ..conftest import StartService
from ..faults import Line
from ..peers import Peer, peer


async def test_a_run_without_a_free_slot_waits_and_is_worked_on_when_there_is_one(start_service: StartService) -> None:
    service = await start_service(max_runs=1)
    async with peer(service) as client, peer(service, "eve") as other:
        slow = await client.ask("hi", agent="slow")
        waiting = await other.ask("waits", agent="echo")
        assert (waiting["status"], waiting["position"]) == ("queued", 1)
        assert (await other.until_type("agent_queued"))["payload"] == {"position": 1}
        client.send(type="stop_agent", run_id=slow["run_id"])
        assert (await other.ended(waiting["run_id"]))[-1]["payload"]["response"] == "waits"


async def test_a_thread_s_runs_go_one_after_the_other_on_one_slot(start_service: StartService) -> None:
    going = 0
    most = 0

    async def counted(run: agentws.Run) -> str:
        nonlocal going, most
        going += 1
        most = max(most, going)
        await asyncio.sleep(0)
        going -= 1
        return run.text

    service = await start_service({"counted": counted})
    async with peer(service) as client:
        accepted = [await client.ask(f"m{number}") for number in range(10)]
        for number, each in enumerate(accepted):
            assert (await client.ended(each["run_id"]))[-1]["payload"]["response"] == f"m{number}"
    assert most == 1


async def test_a_run_accepted_by_a_call_without_an_answer_is_worked_on_once(
    start_service: StartService, line: Line
) -> None:
    calls: list[str] = []

    async def counted(run: agentws.Run) -> str:
        calls.append(run.context.run_id)
        return run.text

    service = await start_service({"counted": counted})
    async with peer(service) as client:
        line.lose_answers("accept", 1)
        events = await client.run("hi", run_id="mine")
        assert [event["type"] for event in events] == ["agent_started", "agent_message", "agent_completed"]
    assert calls == ["mine"]


async def test_a_run_accepted_by_calls_that_were_never_answered_is_found_and_worked_on(
    start_service: StartService, line: Line
) -> None:
    service = await start_service(lease_ttl_s=0.6)
    async with peer(service) as client:
        line.lose_answers("accept", 3)
        refused = await client.ask("hi", agent="echo", idempotency_key="k", run_id="mine")
        assert refused["code"] == "database_unavailable"
        again = await client.ask("hi", agent="echo", idempotency_key="k", run_id="mine")
        assert (again["type"], again["duplicate"]) == ("request_accepted", True)
        events = await client.ended("mine")
        assert events[-1]["type"] == "agent_completed"


async def test_a_claim_at_the_end_of_a_run_whose_answer_is_lost_is_found(
    start_service: StartService, line: Line
) -> None:
    go_on = asyncio.Event()

    async def gated(run: agentws.Run) -> str:
        await go_on.wait()
        return run.text

    service = await start_service({"gated": gated}, lease_ttl_s=0.6)
    async with peer(service) as client:
        first = await client.ask("one")
        second = await client.ask("two")
        assert second["status"] == "queued"
        line.lose_answers("append", 1)
        go_on.set()
        await client.ended(first["run_id"])
        events = await client.ended(second["run_id"])
        assert (
            len([event for event in events if event["type"].startswith("agent_") and "response" in event["payload"]])
            == 1
        )


async def _contexts(client: Peer, count: int) -> list[dict[str, Any]]:
    return [event for _ in range(count) for event in await client.run("hi", agent="context")]


@pytest.mark.parametrize("size", [1, 4])
async def test_a_small_pool_serves_many_runs_that_wait_for_each_other(start_service: StartService, size: int) -> None:
    barrier = asyncio.Barrier(10)

    async def together(run: agentws.Run) -> str:
        await barrier.wait()
        return run.text

    service = await start_service({"together": together}, pool_size=size)
    async with peer(service) as client:
        accepted = []
        for number in range(10):
            client.send(type="create_thread", thread_id=f"t{number}")
            accepted.append(await client.ask(f"m{number}", thread_id=f"t{number}"))
        for number, each in enumerate(accepted):
            assert (await client.ended(each["run_id"]))[-1]["payload"]["response"] == f"m{number}"
