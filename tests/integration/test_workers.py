"""Several processes at one port: each can be told apart, none is missed when it goes, and none is left."""

import asyncio
import json
import os
import signal
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import httpx
import pytest

from ..conformance.client import Client, connect
from ..conformance.shapes import Frame
from ..conftest import TestDatabase
from ..processes import ServerProcess
from .workers import begun, is_alive, process_of, processes, serving, two_clients, until

pytestmark = pytest.mark.long

Serving = Callable[..., AbstractContextManager[ServerProcess]]


@pytest.fixture
def two_workers(database: TestDatabase) -> Serving:
    """Serves on this test's database; keyword arguments are settings."""

    def serve(**settings: str) -> AbstractContextManager[ServerProcess]:
        env = {"AGENTWS_DATABASE_URL": database.url, "AGENTWS_MIGRATE_URL": database.owner_url}
        return serving({**env, **{f"AGENTWS_{name.upper()}": value for name, value in settings.items()}})

    return serve


async def at_work(client: Client, agent: str = "slow", content: str = "hi") -> Frame:
    """Starts a run and waits for its first text."""
    accepted = await client.start(content, agent=agent)
    await client.event(accepted["run_id"], "agent_message")
    return accepted


def in_the_log(server: ServerProcess, text: str) -> list[str]:
    return [line for line in [*server.log] if text in line]


async def test_two_workers_answer_at_one_port_and_each_says_which_it_is(two_workers: Serving) -> None:
    uptimes: dict[int, list[float]] = {1: [], 2: []}
    with two_workers(force="dev_auth", poolsize="3", log_format="json") as server:
        async with asyncio.timeout(30):
            while min(map(len, uptimes.values())) < 3:
                async with httpx.AsyncClient(base_url=server.http_url) as http:
                    text = (await http.get("/metrics")).text
                    stats = (await http.get("/api/stats")).json()
                samples = [line for line in text.splitlines() if not line.startswith("#")]
                assert all(f'worker="{stats["worker"]}"' in line for line in samples)
                uptimes[stats["worker"]].append(stats["uptime_seconds"])
    # Two processes, and not one that gives itself two names.
    assert all(values == sorted(values) for values in uptimes.values())
    assert len(in_the_log(server, "AGENTWS_FORCE lifts dev_auth")) == 1
    assert len(in_the_log(server, "AGENTWS_POOLSIZE is not a setting")) == 1
    assert sorted(json.loads(line)["worker"] for line in in_the_log(server, "draining")) == [1, 2]


async def test_a_run_of_one_worker_is_watched_and_stopped_through_the_other(two_workers: Serving) -> None:
    with two_workers() as server:
        async with two_clients(server, "ada") as (here, _, there, _):
            accepted = await at_work(here)
            await there.replay(accepted["thread_id"])
            await there.stop(run_id=accepted["run_id"])
            ended = [await each.ended(accepted["run_id"]) for each in (here, there)]
            assert ended[0] == ended[1]
            assert ended[0]["type"] == "agent_stopped"


async def test_a_worker_that_is_killed_comes_back_and_its_runs_are_taken_over(two_workers: Serving) -> None:
    with two_workers() as server:
        async with two_clients(server, "ada") as (here, lost, there, _):
            accepted = await at_work(here, agent="phoenix")
            await there.replay(accepted["thread_id"])
            (number,) = (each for each, pid in processes(server).items() if pid == lost)
            os.kill(lost, signal.SIGKILL)
            assert (await there.ended(accepted["run_id"]))["attempt"] == 2
            await until(lambda: len(begun(server)) == 3)
            os.kill(processes(server)[number], signal.SIGKILL)
            await until(lambda: len(begun(server)) == 4)
            await there.still_serves()
            async with two_clients(server, "bob") as (_, one, _, other):
                assert {one, other} == set(processes(server).values())
    assert [line.strip().rpartition(": ")[2] for line in in_the_log(server, "it is begun again")] == [
        "was killed by SIGKILL; it is begun again in 0.5 s",
        "was killed by SIGKILL; it is begun again in 1.0 s",
    ]


async def test_a_signal_drains_all_and_the_parent_ends_after_them(two_workers: Serving) -> None:
    with two_workers(drain_grace_s="60") as server:
        async with two_clients(server, "ada") as (here, _, there, idle):
            accepted = await at_work(here, agent="stream", content="500")
            # As a service manager does, which signals every process that it knows of; and a terminal, a whole group.
            os.kill(idle, signal.SIGTERM)
            os.killpg(server.pid, signal.SIGINT)
            for pid in processes(server).values():
                os.kill(pid, signal.SIGTERM)
            for each in (here, there):
                await each.next(lambda frame: frame["type"] == "draining", "draining")
            assert await there.closed() == 1001
            assert (await here.ended(accepted["run_id"]))["type"] == "agent_completed"
            assert await here.closed() == 1001
        assert server.wait() == 0
    assert len(begun(server)) == 2


async def test_a_second_signal_hurries_all(two_workers: Serving) -> None:
    with two_workers(drain_grace_s="600") as server:
        async with two_clients(server, "ada") as (here, _, there, _):
            runs = [(each, await at_work(each)) for each in (here, there)]
            server.signal(signal.SIGTERM)
            for each in (here, there):
                await each.next(lambda frame: frame["type"] == "draining", "draining")
            server.signal(signal.SIGTERM)
            for each, accepted in runs:
                assert (await each.ended(accepted["run_id"]))["payload"]["code"] == "worker_lost"
        assert server.wait() == 0


async def test_of_a_parent_that_is_killed_nothing_is_left(data_dir: Path) -> None:
    with serving({"AGENTWS_DATA_DIR": str(data_dir)}) as server:
        async with two_clients(server, "ada") as (here, _, there, _):
            accepted = await at_work(here)
            server.kill()
            for each in (here, there):
                await each.next(lambda frame: frame["type"] == "draining", "draining")
            with pytest.raises(httpx.ConnectError):
                async with httpx.AsyncClient(base_url=server.http_url) as http:
                    await http.get("/healthz")
            # Its database outlives it for as long as there is somebody to serve.
            assert (await here.ended(accepted["run_id"]))["payload"]["code"] == "worker_lost"
            assert [await each.closed() for each in (here, there)] == [1001, 1001]
        await until(lambda: not any(is_alive(pid) for _, pid in begun(server)))
        postmaster = data_dir / "data" / "postmaster.pid"
        await until(lambda: not postmaster.exists())


async def test_workers_are_replaced_one_after_the_other_and_no_run_is_lost(two_workers: Serving) -> None:
    with two_workers(drain_grace_s="60") as server:
        former = processes(server)
        async with two_clients(server, "ada") as clients:
            one, other = (clients[0], clients[2]) if clients[1] == former[1] else (clients[2], clients[0])
            accepted = await at_work(one)
            server.signal(signal.SIGHUP)
            await one.next(lambda frame: frame["type"] == "draining", "draining")
            for _ in range(10):
                async with connect(server, "bob") as client:
                    assert await process_of(client) in {processes(server)[1], former[2]}
            assert len(begun(server)) == 3
            await other.still_serves()
            await one.stop(run_id=accepted["run_id"])
            assert [await each.closed() for each in (one, other)] == [1001, 1001]
        await until(lambda: not any(is_alive(pid) for pid in former.values()))
        async with two_clients(server, "ada") as (_, first, _, second):
            assert {first, second} == set(processes(server).values())


async def test_an_embedded_database_that_dies_is_started_again_by_the_parent(data_dir: Path) -> None:
    with serving({"AGENTWS_DATA_DIR": str(data_dir), "AGENTWS_POOL_SIZE": "60"}) as server:
        postmaster = data_dir / "data" / "postmaster.pid"
        first = postmaster.read_text().split()[0]
        os.kill(int(first), signal.SIGKILL)
        await until(lambda: in_the_log(server, "serves again"))
        assert not any("worker=" in line for line in in_the_log(server, "serves again"))
        assert postmaster.read_text().split()[0] != first
        async with connect(server, "ada") as client:
            await client.still_serves()
