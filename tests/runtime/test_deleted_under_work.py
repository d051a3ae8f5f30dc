"""A thread can be deleted whatever its run is doing: the run ends with it, once, and so do its tools."""

import asyncio

import pytest

import agentws

from ..conftest import StartService
from ..peers import peer

NUL = "a\0b\\u0000"


async def hang(query: str = "") -> None:
    await asyncio.Event().wait()


async def find(query: str) -> dict[str, str]:
    return {"found": query}


async def given_nul(run: agentws.Run) -> None:
    await run.call_tool("hang", hang, query=NUL)


async def returned_nul(run: agentws.Run) -> None:
    await run.call_tool("find", find, query=NUL)
    await run.call_tool("hang", hang)


@pytest.mark.parametrize("agent", [given_nul, returned_nul])
async def test_a_thread_whose_tools_handle_what_postgresql_cannot_is_deleted(
    start_service: StartService, agent: object
) -> None:
    service = await start_service({"agent": agent})
    async with peer(service) as client:
        accepted = await client.ask("hi")
        await client.until(lambda frame: frame["type"] == "tool_executing" and frame["tool_name"] == "hang")
        client.send(type="delete_thread", thread_id=accepted["thread_id"])
        assert (await client.until_type("thread_deleted", "error"))["type"] == "thread_deleted"
        completed = [frame for frame in client.frames if frame["type"] == "tool_completed"][-1]
        assert (completed["tool_name"], completed["payload"]["outcome"]) == ("hang", "unknown")
        assert client.frames[-2]["type"] == "agent_stopped"
