"""A line to the database that carries nothing any more: nothing waits for it beyond its time."""

import asyncio

import pytest

import agentws

from ..conftest import StartService
from ..peers import peer
from .conftest import Wire


@pytest.mark.parametrize("writes", [False, True])
async def test_agents_are_cancelled_before_their_lease_can_run_out(
    start_service: StartService, wire: Wire, writes: bool
) -> None:
    going, cancelled = asyncio.Event(), asyncio.Event()

    async def agent(run: agentws.Run) -> None:
        going.set()
        try:
            while writes:
                await run.think("on and on")
                await asyncio.sleep(0)
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    # Calls may take longer than the lease: it must not wait for them.
    service = await start_service(
        {"agent": agent}, env="staging", database_url=wire.url, lease_ttl_s=6.0, database_timeout_s=60.0
    )
    async with peer(service) as client:
        await client.ask("hi", subscribe=False)
        await going.wait()
        loop = asyncio.get_running_loop()
        wire.stall()
        stalled = loop.time()
        async with asyncio.timeout(30):
            await cancelled.wait()
        # The database has counted six seconds from the last renewal at the earliest.
        assert loop.time() < stalled + 6.0
        wire.flow()
