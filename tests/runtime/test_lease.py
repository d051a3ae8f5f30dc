"""A lease is renewed while the database answers; before it runs out, the runs of this process are dropped."""

import asyncio

from agentws.ports import Renewal
from agentws.runtime.lease import Lease
from agentws.store.nodes import PgNodes
from agentws.store.pool import Database

from ..conftest import StartService, TestDatabase
from ..faults import Line
from ..peers import peer


async def test_a_lease_is_held_and_renewed(start_service: StartService, line: Line) -> None:
    service = await start_service(lease_ttl_s=1.0)
    async with peer(service) as client:
        while line.calls.count("renew_node") < 5:
            assert (await client.run("hi", agent="echo"))[-1]["type"] == "agent_completed"
    assert line.calls.count("register_node_2") == 1


async def test_what_is_not_renewed_in_time_is_dropped_before_it_runs_out(database: TestDatabase, line: Line) -> None:
    store = Database(database.url, size=1, timeout_s=5)
    await store.open(wait_s=5)
    lost = asyncio.Event()
    renewals: list[Renewal] = []
    lease = Lease(PgNodes(store), ttl_s=0.6, agents=(), on_renewed=renewals.append, on_lost=lost.set)
    try:
        await lease.take()
        first = lease.node_id
        assert first is not None
        keeping = asyncio.create_task(lease.keep())
        line.cut("renew_node")
        loop = asyncio.get_running_loop()
        until = loop.time() + 0.6
        async with asyncio.timeout(20):
            await lost.wait()
        # Two thirds of the time are over, and the database still counts the lease.
        assert loop.time() < until
        assert _node(lease) is None
        line.mend()
        await line.answered("register_node_2", 2)
        assert _node(lease) not in (None, first)
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
        await lease.give_up()
        assert _node(lease) is None
    finally:
        await store.close()


def _node(lease: Lease) -> int | None:
    return lease.node_id


async def test_a_held_renewal_does_not_hold_the_loss_up(start_service: StartService, line: Line) -> None:
    service = await start_service(lease_ttl_s=0.6)
    async with peer(service) as client:
        accepted = await client.ask("hi", agent="slow")
        await client.until_type("agent_message")
        line.hold("renew_node")
        await line.waiting.wait()
        # Dropped, then taken over under a new lease and ended.
        line.cut("append")
        while "register_node_2" not in line.calls[line.calls.index("renew_node") :]:
            client.send(type="ping")
            await client.until_type("pong")
        line.mend()
        events = await client.ended(accepted["run_id"])
        assert events[-1]["payload"]["code"] == "worker_lost"


async def test_a_lease_that_is_hurried_is_renewed_now_and_once_for_all_who_hurry(
    database: TestDatabase, line: Line
) -> None:
    store = Database(database.url, size=1, timeout_s=5)
    await store.open(wait_s=5)
    asked: list[int] = []
    renewed = asyncio.Event()
    lease = Lease(
        PgNodes(store),
        ttl_s=3600,
        agents=(),
        on_asked=lambda: asked.append(line.calls.count("renew_node")),
        on_renewed=lambda _: renewed.set(),
        on_lost=lambda: None,
    )
    try:
        await lease.take()
        keeping = asyncio.create_task(lease.keep())
        line.hold("renew_node")
        for _ in range(10):
            lease.hurry()
        await line.waiting.wait()
        # Told before the call, so that what is noted then is older than what the database says.
        assert asked == [0]
        # One that is under way may be too early for who hurries now.
        for _ in range(10):
            lease.hurry()
        line.mend()
        await line.answered("renew_node", 2)
        renewed.clear()
        lease.hurry()
        async with asyncio.timeout(20):
            await renewed.wait()
        assert line.calls.count("renew_node") == 3
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
        await lease.give_up()
    finally:
        await store.close()
