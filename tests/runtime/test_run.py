"""What an agent is handed does what its page says, and refuses what it does not."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import agentws

from ..conftest import StartService
from ..peers import peer

Agent = Callable[[agentws.Run], Awaitable[Any]]


async def events_of(start_service: StartService, agent: Agent) -> list[dict[str, Any]]:
    service = await start_service({"tried": agent})
    async with peer(service) as client:
        return await client.run("hi")


async def test_progress_is_told_of_the_tool_that_runs_in_this_task(start_service: StartService) -> None:
    async def agent(run: agentws.Run) -> None:
        async def tool(name: str) -> None:
            await run.progress(0.5, f"half of {name}")
            await run.progress(message="nearly")

        async with asyncio.TaskGroup() as tasks:
            for name in ("a", "b"):
                tasks.create_task(run.call_tool(name, tool, name=name))

    events = await events_of(start_service, agent)
    named = {
        event["payload"]["execution_id"]: event["tool_name"] for event in events if event["type"] == "tool_executing"
    }
    told = [event for event in events if event["type"] == "tool_progress"]
    assert len(told) == 4
    for event in told:
        assert event["tool_name"] == named[event["payload"]["execution_id"]]
    assert sorted(event["payload"]["message"] for event in told if "progress" in event["payload"]) == [
        "half of a",
        "half of b",
    ]


async def test_parallel_tools_pair_by_execution_id(start_service: StartService) -> None:
    both = asyncio.Barrier(2)

    async def tool(number: int) -> int:
        await both.wait()
        return number

    async def agent(run: agentws.Run) -> str:
        results = await asyncio.gather(*(run.call_tool("n", tool, number=number) for number in (1, 2)))
        return str(results)

    events = await events_of(start_service, agent)
    executing = [event["payload"] for event in events if event["type"] == "tool_executing"]
    completed = {
        event["payload"]["execution_id"]: event["payload"] for event in events if event["type"] == "tool_completed"
    }
    assert [completed[each["execution_id"]]["result"] for each in executing] == [
        each["parameters"]["number"] for each in executing
    ]
    assert events[-1]["payload"]["response"] == "[1, 2]"


async def test_a_synchronous_tool_runs_in_a_thread_with_the_task_s_context(start_service: StartService) -> None:
    import contextvars
    import threading

    mark: contextvars.ContextVar[str] = contextvars.ContextVar("mark")

    def tool() -> list[Any]:
        return [mark.get(), threading.current_thread() is threading.main_thread()]

    async def agent(run: agentws.Run) -> None:
        mark.set("mine")
        assert await run.call_tool("sync", tool) == ["mine", False]

    assert (await events_of(start_service, agent))[-1]["type"] == "agent_completed"


async def too_far(run: agentws.Run) -> None:
    async def tool() -> None:
        await run.progress(1.5)

    await run.call_tool("t", tool)


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda run: run.progress(0.5), RuntimeError),
        (lambda run: run.emit("plain", 1), ValueError),
        (lambda run: run.emit("a.b", object()), ValueError),
        (lambda run: run.emit("a.b", "x" * 70_000), ValueError),
        (lambda run: run.history(0), ValueError),
        (lambda run: run.history(1001), ValueError),
        (lambda run: run.call_tool("t", lambda **_: None, bad=object()), TypeError),
        (too_far, ValueError),
    ],
)
async def test_what_cannot_be_told_is_an_error_to_the_agent_which_may_go_on(
    start_service: StartService, call: Callable[[agentws.Run], Awaitable[Any]], error: type[Exception]
) -> None:
    async def agent(run: agentws.Run) -> str:
        with pytest.raises(error):
            await call(run)
        return "went on"

    events = await events_of(start_service, agent)
    assert events[-1]["payload"]["response"] == "went on"


async def test_a_result_too_large_is_a_failed_tool(start_service: StartService) -> None:
    async def tool() -> str:
        return "x" * 300_000

    async def agent(run: agentws.Run) -> str:
        try:
            await run.call_tool("large", tool)
        except TypeError:
            return "went on"
        return "kept"

    events = await events_of(start_service, agent)
    assert events[-1]["payload"]["response"] == "went on"
    completed = next(event for event in events if event["type"] == "tool_completed")
    assert (completed["payload"]["outcome"], completed["payload"]["error"]["code"]) == ("failed", "tool_too_large")


async def test_nothing_can_be_written_after_the_run_has_ended(start_service: StartService) -> None:
    kept: list[agentws.Run] = []

    async def agent(run: agentws.Run) -> None:
        kept.append(run)

    service = await start_service({"keeping": agent})
    async with peer(service) as client:
        await client.run("hi")
        assert kept[0].cancelled
        with pytest.raises(RuntimeError, match="has ended"):
            await kept[0].write("late")
        with pytest.raises(RuntimeError, match="has ended"):
            await kept[0].call_tool("late", lambda: None)
        assert (await client.run("again"))[-1]["type"] == "agent_completed"


async def test_history_is_what_was_said_before_this_run_and_pages_back(start_service: StartService) -> None:
    async def agent(run: agentws.Run) -> str:
        newest = await run.history(limit=3)
        older = await run.history(limit=50, before=newest[0]) if newest else []
        return " ".join(message.content for message in (*older, *newest))

    service = await start_service({"h": agent, "echo": lambda_echo})
    async with peer(service) as client:
        for number in range(3):
            await client.run(f"u{number}", agent="echo")
        events = await client.run("now")
    assert events[-1]["payload"]["response"] == "u0 u0 u1 u1 u2 u2"


async def lambda_echo(run: agentws.Run) -> str:
    return run.text


async def test_the_context_is_the_request_s_and_cannot_be_changed(start_service: StartService) -> None:
    seen: list[agentws.UserExecutionContext] = []

    async def agent(run: agentws.Run) -> None:
        seen.append(run.context)

    service = await start_service({"seeing": agent})
    async with peer(service) as client:
        accepted = await client.ask("hi", context={"a": {"b": [1]}})
        await client.ended(accepted["run_id"])
        established = client.frames[0]
    context = seen[0]
    assert (context.tenant_id, context.user_id) == ("", "ada")
    assert (context.thread_id, context.run_id) == (accepted["thread_id"], accepted["run_id"])
    assert context.request_id == accepted["request_id"]
    assert context.connection_id == established["connection_id"]
    assert context.created_at.utcoffset() is not None
    assert context.context["a"]["b"] == (1,)
    with pytest.raises(AttributeError):
        context.user_id = "eve"  # type: ignore[misc]
    with pytest.raises(TypeError):
        context.context["a"]["c"] = 1


async def test_what_the_client_sent_as_context_can_be_given_to_a_tool(start_service: StartService) -> None:
    async def tool(filters: Any) -> Any:
        return filters

    async def agent(run: agentws.Run) -> None:
        await run.call_tool("t", tool, filters=run.context.context["f"])

    service = await start_service({"passing": agent})
    async with peer(service) as client:
        events = await client.run("hi", context={"f": {"a": [1, {"b": 2}]}})
    completed = next(event for event in events if event["type"] == "tool_completed")
    assert completed["payload"]["result"] == {"a": [1, {"b": 2}]}
