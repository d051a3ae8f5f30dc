"""A run whose process was lost gets another attempt where its agent allows it: one at a time, and not at once."""

import asyncio
from datetime import datetime
from typing import Any

import asyncpg
import pytest

import agentws
from agentws.app import Service, assembly
from agentws.runtime.clock import now

from ..conftest import StartService, TestDatabase
from ..faults import Line
from ..peers import TERMINAL, Peer, peer

STARTED = ["agent_started", "agent_message", "tool_executing"]
GONE = 12345


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks often, so that tests need not wait."""
    monkeypatch.setattr(assembly, "_LOOK_INTERVAL_S", 0.02)


class Agent:
    """Hangs in a tool at its first `failures` attempts, then answers; counts its calls, and how many are at work."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.attempts: list[int] = []
        self.at_work = 0
        self.most = 0
        self.two = asyncio.Event()
        self.go_on = asyncio.Event()

    async def hang(self) -> None:
        await asyncio.Event().wait()

    async def __call__(self, run: agentws.Run) -> str:
        self.attempts.append(run.context.attempt)
        self.at_work += 1
        self.most = max(self.most, self.at_work)
        if self.at_work == 2:
            self.two.set()
        try:
            await run.write(f"attempt {run.context.attempt}")
            if run.context.attempt <= self.failures:
                await run.call_tool("hang", self.hang)
            await self.go_on.wait()
            return ""
        finally:
            self.at_work -= 1


def restarting(failures: int) -> tuple[Agent, dict[str, Any]]:
    made = Agent(failures)
    made.go_on.set()

    @agentws.agent(on_crash="restart")
    async def call(run: agentws.Run) -> str:
        return await made(run)

    return made, {"phoenix": call}


async def execute(database: TestDatabase, sql: str) -> None:
    owner = await asyncpg.connect(database.owner_url)
    try:
        await owner.execute(sql)
    finally:
        await owner.close()


async def lose(service: Service, database: TestDatabase) -> None:
    """As if the process that works on all runs had died, and this one were another."""
    assert service.worker is not None
    service.worker.abandon_all()
    await service.worker.idle()
    await execute(database, f"UPDATE agentws.run_queue SET owner = {GONE} WHERE owner <> 0")


async def released(database: TestDatabase, count: int = 1) -> None:
    """Waits until so many runs are nobody's."""
    owner = await asyncpg.connect(database.owner_url)
    try:
        async with asyncio.timeout(20):
            while await owner.fetchval("SELECT count(*) FROM agentws.run_queue WHERE owner = 0") != count:
                pass
    finally:
        await owner.close()


async def pass_two_minutes(database: TestDatabase) -> None:
    """Who is gone has been for so long, and what waits has waited; who is there has been there."""
    await execute(
        database,
        "UPDATE agentws.run_queue SET available_at = now() - interval '2 minutes';"
        " UPDATE agentws.node SET started_at = started_at - interval '2 minutes';"
        " UPDATE agentws.node SET expires_at = expires_at - interval '2 minutes' WHERE expires_at < now()",
    )


async def in_tool(client: Peer, run_id: str, attempt: int) -> None:
    await client.until(
        lambda frame: (frame["type"], frame.get("run_id"), frame.get("attempt")) == ("tool_executing", run_id, attempt)
    )


def kinds(events: list[dict[str, Any]]) -> list[tuple[str, int]]:
    return [(event["type"], event["attempt"]) for event in events]


def at(event: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(event["timestamp"])


async def test_there_are_three_attempts_at_most_each_after_a_longer_time(
    start_service: StartService, database: TestDatabase
) -> None:
    agent, agents = restarting(3)
    service = await start_service(agents, restart_delay_s=0.2)
    async with peer(service) as client:
        accepted = await client.ask("hi")
        for attempt in (1, 2, 3):
            await in_tool(client, accepted["run_id"], attempt)
            await lose(service, database)
        events = await client.ended(accepted["run_id"])
    assert kinds(events) == [
        *((kind, attempt) for attempt in (1, 2, 3) for kind in (*STARTED, "tool_completed")),
        ("agent_error", 3),
    ]
    assert {event["payload"]["outcome"] for event in events if event["type"] == "tool_completed"} == {"unknown"}
    assert events[-1]["payload"]["code"] == "worker_lost"
    assert events[-1]["payload"]["response"] == "attempt 3"
    assert [event["seq"] for event in events] == list(range(1, 14))
    assert 0.2 <= (at(events[4]) - at(events[3])).total_seconds() < 0.8
    assert (at(events[8]) - at(events[7])).total_seconds() >= 0.8
    assert agent.attempts == [1, 2, 3]


async def test_restarted_runs_do_not_pass_the_limit_of_slots(
    start_service: StartService, database: TestDatabase
) -> None:
    agent, agents = restarting(1)
    first = await start_service(agents)
    run_ids = []
    async with peer(first) as client:
        for number in range(6):
            client.send(type="create_thread", thread_id=f"t{number}")
            run_ids.append((await client.ask("hi", thread_id=f"t{number}"))["run_id"])
            await in_tool(client, run_ids[-1], 1)
    assert agent.most == 6
    await first.stop()
    await execute(database, f"UPDATE agentws.run_queue SET owner = {GONE}")
    agent.most = 0
    agent.go_on.clear()
    agent.two.clear()
    second = await start_service(agents, max_runs=2, restart_delay_s=0.0)
    async with peer(second) as client:
        await released(database, 4)
        await agent.two.wait()
        agent.go_on.set()
        for number, run_id in enumerate(run_ids):
            client.send(type="subscribe", thread_id=f"t{number}")
            assert (await client.ended(run_id))[-1]["type"] == "agent_completed"
    assert agent.most == 2
    assert agent.attempts == [1] * 6 + [2] * 6


async def test_a_stop_ends_a_run_that_waits_for_its_next_attempt(
    start_service: StartService, database: TestDatabase
) -> None:
    agent, agents = restarting(1)
    service = await start_service(agents, restart_delay_s=3600.0)
    async with peer(service) as client:
        accepted = await client.ask("hi")
        await in_tool(client, accepted["run_id"], 1)
        await lose(service, database)
        await released(database)
        assert service.statistics.read()["runs_in_flight"] == 0
        client.send(type="stop_agent", run_id=accepted["run_id"], reason="enough")
        assert (await client.until_type("stop_accepted"))["run_ids"] == [accepted["run_id"]]
        events = await client.ended(accepted["run_id"])
        assert kinds(events) == [(kind, 1) for kind in (*STARTED, "tool_completed", "agent_stopped")]
        assert events[-1]["payload"]["reason"] == "enough"
        assert events[-1]["payload"]["response"] == "attempt 1"
        assert service.statistics.read()["runs_stopped"] == 1
    assert agent.attempts == [1]


@pytest.mark.parametrize("fault", ["lose_answers", "cut"])
async def test_a_release_that_is_not_answered_is_repeated_and_takes_place_once(
    start_service: StartService, database: TestDatabase, line: Line, fault: str
) -> None:
    agent, agents = restarting(1)
    service = await start_service(agents, restart_delay_s=0.1)
    async with peer(service) as client:
        accepted = await client.ask("hi")
        await in_tool(client, accepted["run_id"], 1)
        getattr(line, fault)("release_run", 1)
        await lose(service, database)
        events = await client.ended(accepted["run_id"])
    assert kinds(events) == [
        *((kind, 1) for kind in (*STARTED, "tool_completed")),
        *((kind, 2) for kind in ("agent_started", "agent_message", "agent_completed")),
    ]
    assert agent.attempts == [1, 2]


async def test_who_dies_between_closing_and_releasing_is_followed_by_another(
    start_service: StartService, database: TestDatabase, line: Line
) -> None:
    agent, agents = restarting(1)
    service = await start_service(agents, restart_delay_s=0.1)
    async with peer(service) as client:
        accepted = await client.ask("hi")
        await in_tool(client, accepted["run_id"], 1)
        line.hold("release_run")
        await lose(service, database)
        await client.until_type("tool_completed")
        async with asyncio.timeout(20):
            await line.waiting.wait()
        await lose(service, database)
        line.mend()
        events = await client.ended(accepted["run_id"])
    assert [event["type"] for event in events].count("tool_completed") == 1
    assert kinds(events)[-1] == ("agent_completed", 2)
    assert agent.attempts == [1, 2]


async def test_a_released_run_of_an_agent_that_is_gone_fails_after_a_time(
    start_service: StartService, database: TestDatabase
) -> None:
    _, agents = restarting(1)
    first = await start_service(agents, restart_delay_s=3600.0)
    async with peer(first) as client:
        accepted = await client.ask("hi")
        await in_tool(client, accepted["run_id"], 1)
        await lose(first, database)
        await released(database)
    await first.stop()
    second = await start_service({})
    async with peer(second) as client:
        client.send(type="subscribe", thread_id=accepted["thread_id"])
        await client.until_type("caught_up")
        await pass_two_minutes(database)
        events = await client.ended(accepted["run_id"])
    assert (events[-1]["type"], events[-1]["payload"]["code"]) == ("agent_error", "worker_lost")
    assert events[-1]["payload"]["response"] == "attempt 1"


async def test_a_waiting_run_of_an_agent_that_is_gone_fails_after_a_time_and_its_thread_goes_on(
    start_service: StartService, database: TestDatabase
) -> None:
    agent, agents = restarting(0)
    agent.go_on.clear()
    first = await start_service(agents, max_runs=1)
    async with peer(first) as client:
        await client.ask("at work", agent="phoenix")
        client.send(type="create_thread", thread_id="t")
        waits = await client.ask("waits", agent="phoenix", thread_id="t")
        behind = await client.ask("behind", agent="demo", thread_id="t")
        assert (waits["position"], behind["position"]) == (1, 2)
    await first.stop()
    second = await start_service({})
    async with peer(second) as client:
        client.send(type="subscribe", thread_id="t")
        await client.until_type("caught_up")
        await pass_two_minutes(database)
        events = await client.ended(waits["run_id"])
        assert [event["type"] for event in events] == ["agent_queued", "agent_started", "agent_error"]
        assert events[-1]["payload"]["code"] == "agent_failed"
        assert (await client.ended(behind["run_id"]))[-1]["type"] == "agent_completed"


async def test_no_tool_is_called_where_the_lease_ran_out_before_the_commit_was_answered(
    start_service: StartService, line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[str] = []
    begun = asyncio.Event()

    async def touch() -> None:
        called.append("touch")

    async def agent(run: agentws.Run) -> None:
        await begun.wait()
        await run.call_tool("touch", touch)

    service = await start_service({"tried": agent}, lease_ttl_s=2.0)
    async with peer(service) as client:
        accepted = await client.ask("hi")
        line.hold("append")
        begun.set()
        async with asyncio.timeout(20):
            await line.waiting.wait()
        # The process was paused here: its clock knows it, and no timer has come yet.
        monkeypatch.setattr("agentws.runtime.lease.now", lambda: now() + 60)
        line.mend()
        await client.until_type("tool_executing")
        events = await client.ended(accepted["run_id"])
    assert called == []
    assert [event["type"] for event in events] == ["agent_started", "tool_executing", "tool_completed", "agent_error"]
    assert events[2]["payload"]["outcome"] == "unknown"
    assert events[-1]["payload"]["code"] == "worker_lost"
    assert sum(event["type"] in TERMINAL for event in events) == 1


async def test_a_start_that_is_accepted_for_a_lease_that_was_lost_meanwhile_is_not_begun_under_it(
    start_service: StartService, line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent, agents = restarting(0)
    service = await start_service(agents, lease_ttl_s=2.0, restart_delay_s=0.0)
    async with peer(service) as client:
        line.hold("accept")
        client.send(type="user_message", content="hi")
        async with asyncio.timeout(20):
            await line.waiting.wait()
        # A pause: the lease is lost, and another one taken.
        with monkeypatch.context() as paused:
            paused.setattr("agentws.runtime.lease.now", lambda: now() + 60)
            assert service.worker is not None
            await line.answered("register_node_2", 2)
        line.mend()
        accepted = await client.until_type("request_accepted")
        events = await client.ended(accepted["run_id"])
    # Whoever takes over what was claimed under the old one is the first to call the agent.
    assert agent.attempts == [2]
    assert kinds(events) == [
        ("agent_started", 1),
        *((kind, 2) for kind in ("agent_started", "agent_message", "agent_completed")),
    ]


async def test_a_release_that_is_answered_when_the_next_attempt_is_claimed_here_already_delays_nothing(
    start_service: StartService, database: TestDatabase, line: Line
) -> None:
    agent, agents = restarting(1)
    # Nobody would find it as an orphan during this test.
    service = await start_service(agents, lease_ttl_s=3600.0, restart_delay_s=0.1)
    claimed = asyncio.Event()

    async def until_claimed() -> None:
        await line.answered("begin_run", line.answers("begin_run") + 1)
        claimed.set()

    async with peer(service) as client:
        accepted = await client.ask("hi")
        await in_tool(client, accepted["run_id"], 1)
        line.on_loss = until_claimed
        line.lose_answers("release_run", 1)
        await lose(service, database)
        events = await client.ended(accepted["run_id"])
    assert claimed.is_set()
    assert kinds(events)[-1] == ("agent_completed", 2)
    assert agent.attempts == [1, 2]
    assert agent.most == 1
