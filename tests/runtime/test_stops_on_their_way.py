"""A stop that was accepted reaches its run, whatever else is on its way; one that was not answered may be repeated."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

import agentws
from agentws.app import Service
from agentws.core.run import RunKey
from agentws.wire.ids import RunNo

from ..conftest import StartService
from ..faults import Line
from ..peers import peer


async def wait(event: asyncio.Event) -> None:
    async with asyncio.timeout(20):
        await event.wait()


async def test_a_stop_whose_answer_comes_before_the_claim_s_is_not_lost(
    start_service: StartService, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def agent(run: agentws.Run) -> None:
        await asyncio.Event().wait()

    # So long that no renewal of the lease brings the stop.
    service = await start_service({"tried": agent}, lease_ttl_s=600)
    worker = service.worker
    assert worker is not None
    plain = worker.start
    claims: list[tuple[Any, Any]] = []
    monkeypatch.setattr(worker, "start", lambda claim, **options: claims.append((claim, options)))
    async with peer(service) as client:
        accepted = await client.ask("hi")
        client.send(type="stop_agent", run_id=accepted["run_id"], reason="at once")
        await client.until_type("stop_accepted")
        ((claim, options),) = claims
        plain(claim, **options)
        events = await client.ended(accepted["run_id"])
    assert (events[-1]["type"], events[-1]["payload"]["reason"]) == ("agent_stopped", "at once")


async def test_stops_of_runs_elsewhere_are_not_kept_without_limit(service: Service) -> None:
    worker = service.worker
    assert worker is not None
    for number in range(2_000):
        worker.stop(RunKey("", "ada", RunNo(number)), "user")
    assert len(worker._early) == 1_000


async def test_a_stop_that_was_not_answered_may_be_sent_again(start_service: StartService, line: Line) -> None:
    entered = asyncio.Event()

    async def agent(run: agentws.Run) -> None:
        entered.set()
        await asyncio.Event().wait()

    service = await start_service({"tried": agent}, lease_ttl_s=600)
    async with peer(service) as client:
        accepted = await client.ask("hi")
        await wait(entered)
        line.lose_answers("stop", 3)
        for _ in range(3):
            client.send(type="stop_agent", run_id=accepted["run_id"], reason="enough")
            refused = await client.until_type("error")
            assert (refused["code"], refused["retryable"]) == ("database_unavailable", True)
        client.send(type="stop_agent", run_id=accepted["run_id"], reason="enough")
        assert (await client.until_type("stop_accepted"))["run_ids"] == [accepted["run_id"]]
        events = await client.ended(accepted["run_id"])
    assert (events[-1]["type"], events[-1]["payload"]["reason"]) == ("agent_stopped", "enough")


async def test_an_attempt_whose_stop_is_heard_of_as_it_begins_does_not_call_its_agent(
    start_service: StartService, line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[int] = []

    @agentws.agent(on_crash="restart")
    async def agent(run: agentws.Run) -> None:
        called.append(run.context.attempt)
        await asyncio.Event().wait()

    service = await start_service({"tried": agent}, lease_ttl_s=600)
    elsewhere = await start_service({"tried": agent}, lease_ttl_s=600)
    worker = service.worker
    assert worker is not None
    plain = worker.start
    monkeypatch.setattr(worker, "start", lambda claim, **options: plain(replace(claim, lost=True), **options))
    line.hold("append")
    async with peer(service) as client, peer(elsewhere) as other:
        accepted = await client.ask("hi")
        await wait(line.waiting)
        other.send(type="stop_agent", run_id=accepted["run_id"])
        await other.until_type("stop_accepted")
        line.mend()
        events = await client.ended(accepted["run_id"])
    assert events[-1]["type"] == "agent_stopped"
    assert not called
