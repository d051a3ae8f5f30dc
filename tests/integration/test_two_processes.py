"""Two servers, each a process of its own, on one database: each other's events and stops, by hints alone."""

import asyncio
import signal

import httpx
import pytest

from ..conformance.client import connect
from ..processes import ServerProcess
from .conftest import Serve

pytestmark = pytest.mark.long

HOUR = {
    "broker": "postgres",
    "reconcile_interval_ms": "3600000",
    "poll_interval_ms": "3600000",
    "lease_ttl_s": "3600",
}


async def hears(server: ServerProcess) -> None:
    """Waits until a server hears of others."""
    async with httpx.AsyncClient() as http, asyncio.timeout(30):
        while "agentws_hears_hints 1.0" not in (await http.get(f"{server.http_url}/metrics")).text:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def test_events_and_stops_cross_processes_at_once(serve: Serve) -> None:
    first, second = serve(**HOUR), serve(**HOUR)
    await asyncio.gather(hears(first), hears(second))
    async with connect(first, "ada") as here, connect(second, "ada") as there:
        accepted = await here.start("hi", agent="slow")
        await there.replay(accepted["thread_id"])
        stop = await there.granted({"type": "stop_agent", "run_id": accepted["run_id"]}, "stop_accepted")
        assert stop["run_ids"] == [accepted["run_id"]]
        ended = await asyncio.gather(here.ended(accepted["run_id"]), there.ended(accepted["run_id"]))
        assert ended[0] == ended[1]
        assert ended[0]["type"] == "agent_stopped"


async def test_a_follower_of_the_other_process_hears_how_runs_end_that_end_with_theirs(serve: Serve) -> None:
    first, second = serve(**HOUR, drain_grace_s="0"), serve(**HOUR)
    await asyncio.gather(hears(first), hears(second))
    async with connect(first, "ada") as here, connect(second, "ada") as there:
        accepted = await here.start("hi", agent="slow")
        await there.replay(accepted["thread_id"])
        first.signal(signal.SIGTERM)
        ended = await there.ended(accepted["run_id"])
        assert ended["payload"]["code"] == "worker_lost"
