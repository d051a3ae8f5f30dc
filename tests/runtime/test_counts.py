"""Each start counts once, summed over the processes, whichever of them ends its run (section 8 of the protocol)."""

from typing import Any

import pytest

from agentws.app import Service, assembly

from ..conftest import StartService, TestDatabase
from ..peers import peer
from .test_attempts import execute, in_tool, lose, released, restarting


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks often, so that tests need not wait."""
    monkeypatch.setattr(assembly, "_LOOK_INTERVAL_S", 0.02)


def summed(*services: Service) -> dict[str, Any]:
    told = [service.statistics.read() for service in services]
    names = ("received", "messages_processed", "errors", "duplicates", "runs_in_flight", "runs_stopped")
    return {name: sum(each[name] or 0 for each in told) for name in names}


def check(*services: Service) -> dict[str, Any]:
    counts = summed(*services)
    assert counts["runs_in_flight"] == 0
    assert counts["received"] == counts["messages_processed"] + counts["errors"] + counts["duplicates"], counts
    return counts


async def test_a_run_that_is_handed_over_or_taken_over_counts_once(
    start_service: StartService, database: TestDatabase
) -> None:
    _, agents = restarting(1)
    one = await start_service(agents)
    two = await start_service(agents)
    async with peer(one) as client:
        accepted = await client.ask("hi", idempotency_key="k")
        await in_tool(client, accepted["run_id"], 1)
        assert (await client.ask("hi", idempotency_key="k"))["duplicate"]
        behind = await client.ask("hi")
    await one.stop()
    async with peer(two) as client:
        client.send(type="subscribe", thread_id=accepted["thread_id"])
        await client.ended(accepted["run_id"])
        await in_tool(client, behind["run_id"], 1)
        await lose(two, database)
        await client.ended(behind["run_id"])
    assert check(one, two)["duplicates"] == 1


@pytest.mark.parametrize("how", ["stop", "delete", "interrupt"])
async def test_runs_that_are_stopped_between_attempts_or_while_they_wait_count_once(
    start_service: StartService, database: TestDatabase, how: str
) -> None:
    _, agents = restarting(1)
    one = await start_service(agents, restart_delay_s=3600.0)
    two = await start_service(agents, restart_delay_s=3600.0)
    async with peer(one) as client, peer(two) as other:
        accepted = await client.ask("hi")
        await in_tool(client, accepted["run_id"], 1)
        waits = await client.ask("waits")
        assert one.worker is not None
        one.worker.abandon_all()
        await one.worker.idle()
        await execute(database, "UPDATE agentws.run_queue SET owner = 12345 WHERE owner <> 0")
        await released(database)
        other.send(type="subscribe", thread_id=accepted["thread_id"])
        if how == "stop":
            other.send(type="stop_agent", thread_id=accepted["thread_id"])
        elif how == "delete":
            other.send(type="delete_thread", thread_id=accepted["thread_id"])
        else:
            third = await other.ask("now", thread_id=accepted["thread_id"], if_busy="interrupt")
            await in_tool(other, third["run_id"], 1)
            other.send(type="stop_agent", thread_id=accepted["thread_id"])
            await other.ended(third["run_id"])
        await other.ended(accepted["run_id"])
        await other.ended(waits["run_id"])
        for each in (one, two):
            assert each.worker is not None
            await each.worker.idle()
    check(one, two)
