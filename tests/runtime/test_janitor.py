"""Runs that nobody works on are found, and only by who may work on them; an agent is not called twice for that."""

import asyncio
from typing import Any

import asyncpg
import pytest

import agentws
from agentws.core.run import Appended
from agentws.store.journal import PgJournal

from ..conftest import StartService, TestDatabase
from ..faults import Line
from ..peers import TERMINAL, peer


async def test_a_process_that_goes_away_claims_nothing_more(start_service: StartService, line: Line) -> None:
    called: list[str] = []
    go_on = asyncio.Event()

    async def gated(run: agentws.Run) -> str:
        called.append(run.text)
        if run.text != "busy":
            await go_on.wait()
            return run.text
        await asyncio.Event().wait()
        return ""

    service = await start_service({"gated": gated}, drain_grace_s=2.0)
    async with peer(service) as client:
        await client.ask("busy")
        client.send(type="create_thread", thread_id="t")
        first = await client.ask("one", thread_id="t")
        second = await client.ask("two", thread_id="t")
        draining = asyncio.create_task(service.drain())
        await client.until_type("draining")
        go_on.set()
        await client.ended(first["run_id"])
        await draining
        assert called == ["busy", "one"]
        assert [frame["type"] for frame in client.frames if frame.get("run_id") == second["run_id"]] == [
            "request_accepted",
            "agent_queued",
        ]


async def test_a_run_taken_over_by_a_call_that_cannot_begin_it_is_lost_all_the_same(
    start_service: StartService, database: TestDatabase, line: Line
) -> None:
    calls: list[int] = []

    async def quiet(run: agentws.Run) -> None:
        calls.append(run.context.attempt)
        await asyncio.Event().wait()

    service = await start_service({"quiet": quiet}, lease_ttl_s=0.6)
    async with peer(service) as client:
        accepted = await client.ask("hi")
        await line.answered("renew_node")
        line.cut("begin_run", 3)
        # As if another process had begun it and died.
        assert service.worker is not None
        service.worker.abandon_all()
        await service.worker.idle()
        owner = await asyncpg.connect(database.owner_url)
        await owner.execute("UPDATE agentws.run_queue SET owner = 12345")
        await owner.close()
        events = await client.ended(accepted["run_id"])
    assert events[-1]["payload"]["code"] == "worker_lost"
    assert calls == [1]


async def test_an_ending_ends_the_run_also_after_an_append_that_was_written_and_given_up(
    start_service: StartService, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = PgJournal.append
    calls = 0

    async def write_and_fail(self: PgJournal, *args: Any, **kwargs: Any) -> Appended:
        nonlocal calls
        calls += 1
        appended = await plain(self, *args, **kwargs)
        if calls == 1:
            raise asyncpg.InternalServerError("written, and yet")
        return appended

    monkeypatch.setattr(PgJournal, "append", write_and_fail)
    opened = asyncio.Event()

    async def agent(run: agentws.Run) -> None:
        await run.write("written")
        await run.call_tool("wait", opened.wait)

    service = await start_service({"unlucky": agent})
    async with peer(service) as client:
        events = await client.run("hi")
    assert [event["type"] for event in events] == [
        "agent_started",
        "agent_message",
        "tool_executing",
        "tool_completed",
        "agent_error",
    ]
    assert (events[-1]["payload"]["code"], events[-1]["payload"]["response"]) == ("internal_error", "written")
    assert sum(event["type"] in TERMINAL for event in events) == 1
    assert [event["seq"] for event in events] == [1, 2, 3, 4, 5]
