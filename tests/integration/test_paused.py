"""A process that was paused past its lease does nothing more for what others have taken over, and goes on anew."""

import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import asyncpg
import httpx
import pytest

from agentws.store.embedded import EmbeddedPostgres

from ..conformance.client import Client, connect
from ..conformance.shapes import Frame
from ..conformance.told import until
from ..processes import ServerProcess
from .conftest import Serve

pytestmark = pytest.mark.long

TTL_S = 1.0
SETTINGS = {"lease_ttl_s": str(TTL_S), "restart_delay_s": "0.1"}


@contextlib.asynccontextmanager
async def blocked(postgres: EmbeddedPostgres) -> AsyncIterator[None]:
    """While the block lasts no event can be written; entered when one is about to be."""
    owner = await asyncpg.connect(postgres.url(user="postgres", database="agentws"))
    try:
        async with owner.transaction():
            await owner.execute("LOCK TABLE agentws.thread_head IN EXCLUSIVE MODE")
            waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%append(%'"
            await until(lambda: owner.fetchval(waiting), lambda count: count > 0)
            yield
    finally:
        await owner.close()


def pause(server: ServerProcess) -> None:
    """Returns when the process does nothing any more."""
    server.signal(signal.SIGSTOP)
    os.waitid(os.P_PID, server.pid, os.WSTOPPED | os.WNOWAIT)


async def serve_for(client: Client, seconds: float) -> None:
    """Runs one run after the other for so long, each to its end."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert (await client.run("meanwhile", agent="echo"))[-1]["type"] == "agent_completed"


async def lease_held(server: ServerProcess) -> str:
    async with httpx.AsyncClient(trust_env=False) as http:
        metrics = (await http.get(f"{server.http_url}/metrics")).text
    return next(line for line in metrics.splitlines() if line.startswith("agentws_lease_held"))


def calls(path: Path) -> list[tuple[int, int]]:
    """The calls that the tool has written down: by which process, and which one."""
    return [(int(pid), int(number)) for pid, number in (line.split() for line in path.read_text().splitlines())]


async def assert_takes_runs(server: ServerProcess, client: Client, book: Path) -> None:
    """It has a new lease, and works itself on what it is asked for."""
    thread_id = (await client.new_thread())["thread_id"]
    started = await client.start(str(book), agent="ledger", thread_id=thread_id)
    await client.event(started["run_id"], "tool_completed")
    await client.stop(run_id=started["run_id"])
    await client.ended(started["run_id"])
    assert {pid for pid, _ in calls(book)} == {server.pid}


def committed_calls(events: Sequence[Frame]) -> set[tuple[int, int]]:
    """The calls whose `tool_executing` is among the events."""
    parameters = [event["payload"]["parameters"] for event in events if event["type"] == "tool_executing"]
    return {(each["pid"], each["number"]) for each in parameters}


@pytest.mark.parametrize("agent", ["ledger", "relentless"])
async def test_a_process_paused_for_twice_its_lease_writes_nothing_and_calls_no_tool(
    serve: Serve, postgres: EmbeddedPostgres, tmp_path: Path, agent: str
) -> None:
    book = tmp_path / "book"
    sleeper, other = serve(**SETTINGS), serve(**SETTINGS)
    async with connect(sleeper, "ada") as client, connect(other, "ada") as reader:
        accepted = await client.start(str(book), agent=agent)
        run_id, thread_id = accepted["run_id"], accepted["thread_id"]
        for _ in range(3):
            await client.event(run_id, "tool_completed")
        subscribed, _ = await reader.replay(thread_id)
        async with blocked(postgres):
            pause(sleeper)
            before = calls(book)
        try:
            # Its last event is committed by now, and the answer waits for it.
            await serve_for(reader, 2.5 * TTL_S)
            taken = await reader.next(
                lambda frame: (
                    frame["type"] == "tool_completed"
                    and frame["run_id"] == run_id
                    and frame["payload"]["outcome"] == "unknown"
                ),
                "the end of the tool that was open",
            )
        finally:
            sleeper.signal(signal.SIGCONT)
        await until(lambda: lease_held(sleeper), lambda line: line.endswith(" 1.0"))
        await assert_takes_runs(sleeper, client, tmp_path / "fresh")
        if agent == "relentless":
            again = await reader.next(lambda frame: frame.get("attempt") == 2, "a second attempt")
            assert again["type"] == "agent_started"
            await reader.event(run_id, "tool_completed")
            await reader.stop(run_id=run_id)
        ended = await reader.ended(run_id)
        events = reader.reader(thread_id, after_seq=0, since=subscribed).of(run_id)
        # The sleeper tells its own clients the same.
        assert await client.ended(run_id) == ended
    assert any("the lease was lost" in line for line in sleeper.log)
    code = {"ledger": ("agent_error", "worker_lost"), "relentless": ("agent_stopped", None)}[agent]
    assert (ended["type"], ended["payload"].get("code")) == code
    assert [call for call in calls(book) if call[0] == sleeper.pid] == before
    committed = committed_calls(events)
    assert set(calls(book)) <= committed
    later = [event for event in events if event["seq"] > taken["seq"]]
    if agent == "ledger":
        assert later == [ended]
    else:
        assert {event["attempt"] for event in later} == {2}
        assert {pid for pid, _ in committed if pid != sleeper.pid} == {other.pid}
