"""How a server goes away: it says so, gives runs a time, ends the rest, and closes with 1001."""

import asyncio
import signal
import socket

import asyncpg
import httpx
import pytest
import websockets

from agentws.store.embedded import EmbeddedPostgres

from ..conformance.client import connect
from ..processes import ServerProcess
from .conftest import Serve

pytestmark = pytest.mark.long


async def test_a_draining_server_tells_refuses_ends_and_closes(serve: Serve) -> None:
    server = serve(drain_grace_s="2")
    async with connect(server, "ada") as client:
        accepted = await client.start("hi", agent="slow")
        await client.event(accepted["run_id"], "agent_message")
        server.signal(signal.SIGTERM)
        draining = await client.next(lambda frame: frame["type"] == "draining", "draining")
        assert draining["retry_after_ms"] > 0
        refused = await client.refused({"type": "chat", "payload": {"content": "no"}}, "draining")
        assert refused["retryable"] is True
        async with httpx.AsyncClient() as http:
            assert (await http.get(f"{server.http_url}/readyz")).status_code == 503
            assert (await http.get(f"{server.http_url}/healthz")).status_code == 200
        ended = await client.ended(accepted["run_id"])
        assert (ended["type"], ended["payload"]["code"]) == ("agent_error", "worker_lost")
        assert await client.closed() == 1001
    assert server.wait() == 0


def listens(server: ServerProcess) -> bool:
    host, port = server.http_url.removeprefix("http://").split(":")
    with socket.socket() as tried:
        return tried.connect_ex((host, int(port))) == 0


async def test_an_upgrade_on_its_way_is_told_to_come_back(serve: Serve, postgres: EmbeddedPostgres) -> None:
    server = serve(drain_grace_s="0")
    async with httpx.AsyncClient(base_url=server.http_url) as http:
        ticket = (await http.post("/api/tickets?user=ada", json={})).json()["websocket_url"]
    owner = await asyncpg.connect(postgres.url(user="postgres", database="agentws"))
    async with connect(server, "ada") as client, owner.transaction():
        await owner.execute("LOCK TABLE agentws.ticket")
        upgrade = asyncio.ensure_future(websockets.connect(ticket).__aenter__())
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%ticket%'"
        while not await owner.fetchval(waiting):
            pass
        server.signal(signal.SIGTERM)
        assert await client.closed() == 1001
        while listens(server):  # noqa: ASYNC110
            await asyncio.sleep(0)
    await owner.close()
    with pytest.raises(websockets.InvalidStatus) as refused:
        await upgrade
    assert refused.value.response.status_code == 503
    assert server.wait() == 0


async def test_a_run_that_ends_in_time_is_not_disturbed(serve: Serve) -> None:
    server = serve(drain_grace_s="60")
    async with connect(server, "ada") as client:
        accepted = await client.start("300", agent="stream")
        await client.event(accepted["run_id"], "agent_message")
        server.signal(signal.SIGTERM)
        assert (await client.ended(accepted["run_id"]))["type"] == "agent_completed"
        assert await client.closed() == 1001
    assert server.wait() == 0


async def test_a_second_signal_hurries(serve: Serve) -> None:
    server = serve(drain_grace_s="600")
    async with connect(server, "ada") as client:
        accepted = await client.start("hi", agent="slow")
        await client.event(accepted["run_id"], "agent_message")
        server.signal(signal.SIGTERM)
        await client.next(lambda frame: frame["type"] == "draining", "draining")
        server.signal(signal.SIGTERM)
        assert (await client.ended(accepted["run_id"]))["payload"]["code"] == "worker_lost"
    assert server.wait() == 0


async def test_what_waits_behind_a_drained_run_is_left_for_another_process(serve: Serve) -> None:
    server = serve(drain_grace_s="0")
    async with connect(server, "ada") as client:
        first = await client.start("hi", agent="slow")
        second = await client.start("waits", agent="echo", thread_id=first["thread_id"])
        server.signal(signal.SIGTERM)
        await client.ended(first["run_id"])
        # Only then: a client that leaves an open connection stops what it started.
        assert await client.closed() == 1001
    server.wait()
    server.start()
    async with connect(server, "ada") as client:
        await client.replay(first["thread_id"])
        assert (await client.ended(second["run_id"]))["payload"]["response"] == "waits"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_an_idle_server_goes_at_once(serve: Serve, number: signal.Signals) -> None:
    server = serve(drain_grace_s="600")
    async with connect(server) as client:
        server.signal(number)
        assert await client.closed() == 1001
    assert server.wait() == 0


async def test_a_tool_in_a_thread_that_does_not_end_does_not_keep_the_server(serve: Serve) -> None:
    server = serve(drain_grace_s="0", stop_grace_s="1")
    async with connect(server, "ada") as client:
        accepted = await client.start("hi", agent="stuck")
        await client.event(accepted["run_id"], "tool_executing")
        server.signal(signal.SIGTERM)
        ended = await client.ended(accepted["run_id"])
        assert ended["payload"]["code"] == "worker_lost"
    assert server.wait(20) == 0
    assert any("have not ended" in line for line in server.log)


async def test_a_run_that_may_be_restarted_is_handed_to_another_process(serve: Serve) -> None:
    going, staying = serve(drain_grace_s="0"), serve(restart_delay_s="600")
    async with connect(going, "ada") as client, connect(staying, "ada") as reader:
        accepted = await client.start("hi", agent="phoenix")
        await client.event(accepted["run_id"], "tool_executing")
        subscribed, _ = await reader.replay(accepted["thread_id"])
        going.signal(signal.SIGTERM)
        ended = await reader.ended(accepted["run_id"])
        assert await client.closed() == 1001
    assert going.wait() == 0
    events = reader.reader(accepted["thread_id"], after_seq=0, since=subscribed).of(accepted["run_id"])
    assert [(event["type"], event["attempt"]) for event in events] == [
        ("agent_started", 1),
        ("agent_message", 1),
        ("tool_executing", 1),
        ("tool_completed", 1),
        ("agent_started", 2),
        ("agent_message", 2),
        ("agent_completed", 2),
    ]
    # The agent was cancelled and has ended, its tool too: that is known.
    assert events[3]["payload"]["outcome"] == "stopped"
    assert ended == events[-1]


async def test_a_handed_over_run_is_begun_by_the_next_start_where_nobody_else_is_there(serve: Serve) -> None:
    server = serve(drain_grace_s="0", restart_delay_s="600")
    async with connect(server, "ada") as client:
        accepted = await client.start("hi", agent="phoenix")
        await client.event(accepted["run_id"], "tool_executing")
        server.signal(signal.SIGTERM)
        assert await client.closed() == 1001
    assert server.wait() == 0
    server.start()
    async with connect(server, "ada") as client:
        await client.replay(accepted["thread_id"])
        ended = await client.ended(accepted["run_id"])
        assert (ended["type"], ended["attempt"]) == ("agent_completed", 2)


async def test_an_agent_that_does_not_end_keeps_its_run_until_the_process_goes(serve: Serve) -> None:
    going, staying = serve(drain_grace_s="0", stop_grace_s="0.5"), serve(restart_delay_s="0.1")
    async with connect(going, "ada") as client, connect(staying, "ada") as reader:
        accepted = await client.start("hi", agent="clinging")
        await client.event(accepted["run_id"], "agent_message")
        await reader.replay(accepted["thread_id"])
        going.signal(signal.SIGTERM)
        # Nothing is begun elsewhere while it may still do something.
        assert await client.closed() == 1001
        assert not any(frame.get("attempt") == 2 for frame in client.log)
        ended = await reader.ended(accepted["run_id"])
        assert (ended["type"], ended["attempt"]) == ("agent_completed", 2)
        assert ended["payload"]["response"] == "let go"
    assert going.wait() == 0
    assert any("agents have not ended" in line for line in going.log)
    # Not released while the agent was there: taken over from a process that had gone.
    assert any("took over run" in line for line in staying.log)
