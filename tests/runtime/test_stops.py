"""A stop is real: the agent ends, and the tool in it, and what is told of the tool is what became of it."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import agentws
from agentws.runtime import tools

from ..conftest import StartService
from ..faults import Line
from ..peers import Frame, Peer, peer

Agent = Callable[[agentws.Run], Awaitable[Any]]


class Signals:
    """Events that tools set, in the loop or in a thread, for the test to wait for."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.entered = asyncio.Event()
        self.ended = asyncio.Event()
        self.release = threading.Event()

    def set(self, event: asyncio.Event) -> None:
        """From any thread."""
        self.loop.call_soon_threadsafe(event.set)


async def wait(event: asyncio.Event) -> None:
    async with asyncio.timeout(20):
        await event.wait()


async def stopped(client: Peer, accepted: Frame, signals: Signals) -> list[Frame]:
    """Stops a run once its tool is at work, and returns its events."""
    await wait(signals.entered)
    client.send(type="stop_agent", run_id=accepted["run_id"])
    events = await client.ended(accepted["run_id"])
    assert events[-1]["type"] == "agent_stopped"
    return events


async def stop_once(start_service: StartService, agent: Agent, signals: Signals, **settings: Any) -> list[Frame]:
    service = await start_service({"tried": agent}, **settings)
    async with peer(service) as client:
        return await stopped(client, await client.ask("hi"), signals)


def outcomes(events: list[Frame]) -> list[str]:
    return [event["payload"]["outcome"] for event in events if event["type"] == "tool_completed"]


@pytest.mark.parametrize("how", ["run", "module"])
async def test_a_tool_in_a_thread_is_told_and_waited_for(start_service: StartService, how: str) -> None:
    signals = Signals()
    ended: list[str] = []

    async def agent(run: agentws.Run) -> None:
        def tool() -> None:
            signals.set(signals.entered)
            while not (run.cancelled if how == "run" else agentws.stopping()):
                threading.Event().wait(0.002)
            ended.append("tool")

        try:
            await run.call_tool("spin", tool)
        finally:
            ended.append("agent")

    events = await stop_once(start_service, agent, signals, stop_grace_s=600)
    assert ended == ["tool", "agent"]
    assert outcomes(events) == ["stopped"]
    assert events[-2]["payload"]["error"]["code"] == "tool_stopped"


async def test_a_tool_in_a_thread_that_does_not_end_is_left_and_its_agent_may_still_end(
    start_service: StartService,
) -> None:
    signals = Signals()

    async def agent(run: agentws.Run) -> None:
        def tool() -> None:
            signals.set(signals.entered)
            signals.release.wait(30)

        try:
            await run.call_tool("deaf", tool)
        except asyncio.CancelledError:
            await run.write("so far")
            raise

    try:
        events = await stop_once(start_service, agent, signals, stop_grace_s=2)
    finally:
        signals.release.set()
    assert outcomes(events) == ["unknown"]
    assert events[-1]["payload"]["response"] == "so far"


async def test_a_time_limit_of_the_agent_s_own_leaves_a_thread_at_once_and_the_tool_may_hear_of_it(
    start_service: StartService,
) -> None:
    signals = Signals()

    async def agent(run: agentws.Run) -> str:
        def tool() -> None:
            while not agentws.stopping():
                threading.Event().wait(0.002)
            signals.set(signals.ended)

        try:
            async with asyncio.timeout(0.05):
                await run.call_tool("slow", tool)
        except TimeoutError:
            await signals.ended.wait()
            return "went on"
        return "not reached"

    service = await start_service({"tried": agent}, stop_grace_s=600)
    async with peer(service) as client:
        events = await client.run("hi")
    assert outcomes(events) == ["unknown"]
    assert events[-1]["payload"]["response"] == "went on"


async def test_the_run_s_time_limit_waits_for_a_thread_too(start_service: StartService) -> None:
    @agentws.agent(timeout_s=0.1)
    async def agent(run: agentws.Run) -> None:
        def tool() -> None:
            while not run.cancelled:
                threading.Event().wait(0.002)

        await run.call_tool("spin", tool)

    service = await start_service({"tried": agent}, stop_grace_s=600)
    async with peer(service) as client:
        events = await client.run("hi")
    assert events[-1]["payload"]["code"] == "agent_timeout"
    assert outcomes(events) == ["stopped"]


async def test_a_coroutine_that_a_thread_has_made_is_cancelled(start_service: StartService) -> None:
    signals = Signals()

    async def hang() -> None:
        signals.entered.set()
        await asyncio.Event().wait()

    async def agent(run: agentws.Run) -> None:
        await run.call_tool("made", lambda: hang())

    assert outcomes(await stop_once(start_service, agent, signals)) == ["stopped"]


async def test_a_tool_that_takes_its_time_to_end_is_waited_for(start_service: StartService) -> None:
    signals = Signals()

    async def tool() -> None:
        signals.entered.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.1)
            signals.ended.set()

    async def agent(run: agentws.Run) -> None:
        await run.call_tool("tidy", tool)

    assert outcomes(await stop_once(start_service, agent, signals, stop_grace_s=600)) == ["stopped"]
    assert signals.ended.is_set()


async def test_a_tool_that_does_not_end_when_cancelled_is_left_and_keeps_a_slot_until_it_does(
    start_service: StartService,
) -> None:
    signals, release = Signals(), asyncio.Event()

    async def tool() -> None:
        signals.entered.set()
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    async def agent(run: agentws.Run) -> str:
        if run.text == "next":
            return "served"
        await run.call_tool("deaf", tool)
        return "not reached"

    service = await start_service({"tried": agent}, stop_grace_s=0.1, max_runs=1)
    async with peer(service) as client, peer(service, "eve") as other:
        assert outcomes(await stopped(client, await client.ask("hi"), signals)) == ["unknown"]
        waiting = await other.ask("next")
        release.set()
        assert waiting["status"] == "queued"
        assert (await other.ended(waiting["run_id"]))[-1]["payload"]["response"] == "served"


async def test_a_stop_that_a_tool_has_swallowed_reaches_the_agent_all_the_same(start_service: StartService) -> None:
    signals = Signals()
    reached: list[str] = []

    async def tool() -> str:
        signals.entered.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "half of it"
        return "not reached"

    async def agent(run: agentws.Run) -> None:
        await run.call_tool("partial", tool)
        reached.append("went on")

    events = await stop_once(start_service, agent, signals, stop_grace_s=600)
    assert outcomes(events) == ["done"]
    assert events[-2]["payload"]["result"] == "half of it"
    assert not reached


@pytest.mark.parametrize(("fails", "outcome"), [(False, "done"), (True, "failed")])
async def test_what_a_thread_had_returned_when_the_stop_came_is_told(
    start_service: StartService, monkeypatch: pytest.MonkeyPatch, fails: bool, outcome: str
) -> None:
    loop, returned, reached = asyncio.get_running_loop(), threading.Event(), list[str]()
    plain = tools._tell

    def tell(*args: Any) -> None:
        plain(*args)
        returned.set()

    monkeypatch.setattr(tools, "_tell", tell)

    def stop_in_that_moment() -> None:
        # The loop stands still until there is a result, of which it hears after this.
        assert returned.wait(20)
        assert service.worker is not None
        (key,) = service.worker.known
        service.worker.stop(key, "user")

    async def agent(run: agentws.Run) -> None:
        def tool() -> str:
            loop.call_soon_threadsafe(stop_in_that_moment)
            if fails:
                raise ValueError("no")
            return "there"

        await run.call_tool("quick", tool)
        reached.append("went on")

    service = await start_service({"tried": agent}, stop_grace_s=600)
    async with peer(service) as client:
        events = await client.run("hi")
    assert outcomes(events) == [outcome]
    assert events[-2]["payload"]["result"] == (None if fails else "there")
    assert events[-1]["type"] == "agent_stopped"
    assert not reached


async def test_a_tool_that_was_asked_for_before_the_stop_is_not_called_after_it(
    start_service: StartService, line: Line
) -> None:
    called: list[str] = []

    async def tool(name: str) -> None:
        called.append(name)

    async def agent(run: agentws.Run) -> None:
        line.hold("append")
        try:
            async with asyncio.TaskGroup() as tasks:
                for name in ("a", "b"):
                    tasks.create_task(run.call_tool(name, tool, name=name))
        finally:
            await run.call_tool("tidy", tool, name="tidy")

    service = await start_service({"tried": agent})
    async with peer(service) as client:
        accepted = await client.ask("hi")
        await wait(line.waiting)
        client.send(type="stop_agent", run_id=accepted["run_id"])
        await client.until_type("stop_accepted")
        line.mend()
        events = await client.ended(accepted["run_id"])
    assert events[-1]["type"] == "agent_stopped"
    assert outcomes(events) == ["stopped", "stopped", "done"]
    assert called == ["tidy"]


@pytest.mark.parametrize("ends", ["stopped", "completed"])
async def test_a_tool_that_its_agent_did_not_wait_for_ends_with_the_run(start_service: StartService, ends: str) -> None:
    signals = Signals()
    kept: list[asyncio.Task[Any]] = []

    async def tool() -> None:
        signals.entered.set()
        try:
            await asyncio.Event().wait()
        finally:
            signals.ended.set()

    async def agent(run: agentws.Run) -> None:
        kept.append(asyncio.create_task(run.call_tool("aside", tool)))
        await signals.entered.wait()
        if ends == "stopped":
            await asyncio.Event().wait()

    service = await start_service({"tried": agent})
    async with peer(service) as client:
        accepted = await client.ask("hi")
        await wait(signals.entered)
        if ends == "stopped":
            client.send(type="stop_agent", run_id=accepted["run_id"])
        events = await client.ended(accepted["run_id"])
        assert events[-1]["type"] == f"agent_{ends}"
        assert outcomes(events) == ["unknown"]
        await wait(signals.ended)
    await asyncio.wait(kept)
    assert kept[0].cancelled()


async def test_a_tool_whose_run_ended_before_it_was_called_is_never_called(
    start_service: StartService, line: Line
) -> None:
    called: list[str] = []
    kept: list[asyncio.Task[Any]] = []

    async def tool() -> None:
        called.append("tool")

    async def agent(run: agentws.Run) -> None:
        kept.append(asyncio.create_task(run.call_tool("aside", tool)))
        await asyncio.sleep(0)

    service = await start_service({"tried": agent})
    async with peer(service) as client:
        events = await client.run("hi")
    assert events[-1]["type"] == "agent_completed"
    assert outcomes(events) == ["stopped"]
    await asyncio.wait(kept)
    assert not called
