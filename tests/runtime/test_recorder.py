"""A run's events are written in order, each once, text gathered, and told only when they are committed."""

import asyncio
from typing import Any

import asyncpg

import agentws

from ..conftest import StartService, TestDatabase
from ..faults import Line
from ..peers import peer


async def test_pieces_written_in_one_go_are_one_event(start_service: StartService) -> None:
    async def words(run: agentws.Run) -> None:
        for number in range(100):
            await run.write(f"{number} ")

    service = await start_service({"words": words})
    async with peer(service) as client:
        events = await client.run("hi")
    assert [event["type"] for event in events] == ["agent_started", "agent_message", "agent_completed"]
    assert events[1]["payload"] == {"text": "".join(f"{number} " for number in range(100)), "offset": 0}


async def test_the_first_piece_goes_at_once_and_later_ones_are_gathered(start_service: StartService) -> None:
    go_on = asyncio.Event()

    async def words(run: agentws.Run) -> None:
        await run.write("first")
        await go_on.wait()
        for number in range(50):
            await run.write(f" {number}")
            await asyncio.sleep(0)

    # Were later pieces not gathered, the interval of an hour would not be waited for and there would be fifty events.
    service = await start_service({"words": words}, piece_interval_ms=3_600_000)
    async with peer(service) as client:
        accepted = await client.ask("hi")
        first = await client.until_type("agent_message")
        assert first["payload"] == {"text": "first", "offset": 0}
        go_on.set()
        events = await client.ended(accepted["run_id"])
    pieces = [event["payload"] for event in events if event["type"] == "agent_message"]
    assert pieces[1] == {"text": "".join(f" {number}" for number in range(50)), "offset": 5}
    assert len(pieces) == 2


async def test_four_kilobytes_do_not_wait_for_the_interval(start_service: StartService) -> None:
    seen = asyncio.Event()

    async def words(run: agentws.Run) -> None:
        await run.write("first")
        await seen.wait()
        await run.write("x" * 5000)
        await asyncio.Event().wait()

    service = await start_service({"words": words}, piece_interval_ms=3_600_000)
    async with peer(service) as client:
        await client.ask("hi")
        await client.until_type("agent_message")
        seen.set()
        assert (await client.until_type("agent_message"))["payload"]["text"] == "x" * 5000


async def test_another_event_is_not_kept_waiting_by_text_nor_told_before_it(start_service: StartService) -> None:
    seen = asyncio.Event()

    async def words(run: agentws.Run) -> None:
        await run.write("first")
        await seen.wait()
        await run.write(" second")
        await run.think("third")
        await asyncio.Event().wait()

    service = await start_service({"words": words}, piece_interval_ms=3_600_000)
    async with peer(service) as client:
        await client.ask("hi")
        await client.until_type("agent_message")
        seen.set()
        await client.until_type("agent_thinking")
        assert [frame["type"] for frame in client.frames[-2:]] == ["agent_message", "agent_thinking"]


async def test_a_tool_is_called_after_its_executing_is_committed(
    start_service: StartService, database: TestDatabase
) -> None:
    async def count() -> int:
        connection = await asyncpg.connect(database.owner_url)
        try:
            found: int = await connection.fetchval("SELECT count(*) FROM agentws.event WHERE type = 'tool_executing'")
            return found
        finally:
            await connection.close()

    async def agent(run: agentws.Run) -> str:
        return str(await run.call_tool("count", count))

    service = await start_service({"counting": agent})
    async with peer(service) as client:
        assert (await client.run("hi"))[-1]["payload"]["response"] == "1"


async def test_a_tool_is_not_called_while_its_executing_cannot_be_committed(
    start_service: StartService, line: Line
) -> None:
    called = asyncio.Event()

    async def tool() -> None:
        called.set()

    async def agent(run: agentws.Run) -> None:
        await run.call_tool("tool", tool)

    service = await start_service({"calling": agent})
    async with peer(service) as client:
        line.hold("append")
        accepted = await client.ask("hi")
        await line.waiting.wait()
        client.send(type="ping", id="p")
        await client.until_type("pong")
        assert not called.is_set()
        assert not any(frame["type"] == "tool_executing" for frame in client.frames)
        line.mend()
        await client.ended(accepted["run_id"])
        assert called.is_set()


async def test_appends_whose_answers_are_lost_are_written_once(start_service: StartService, line: Line) -> None:
    async def agent(run: agentws.Run) -> None:
        for number in range(5):
            line.lose_answers("append", 2)
            await run.think(f"step {number}")
            await run.call_tool("nothing", nothing)
            await run.write(f"{number}")
        line.lose_answers("append", 1)

    service = await start_service({"unlucky": agent})
    async with peer(service) as client:
        events = await client.run("hi")
        assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
        assert len({event["event_id"] for event in events}) == len(events)
        assert [event["payload"]["reasoning"] for event in events if event["type"] == "agent_thinking"] == [
            f"step {number}" for number in range(5)
        ]
        assert events[-1]["payload"]["response"] == "01234"
        client.send(type="subscribe", thread_id=events[0]["thread_id"])
        await client.until_type("caught_up")
        assert [frame for frame in client.frames if "payload" in frame][-len(events) :] == events


async def nothing() -> None:
    return None


async def test_an_agent_waits_when_more_than_its_buffer_is_not_written(start_service: StartService, line: Line) -> None:
    written: list[int] = []

    async def agent(run: agentws.Run) -> None:
        for number in range(100):
            await run.write("x" * 1000)
            written.append(number)

    service = await start_service({"talker": agent}, run_buffer_bytes=10_000)
    async with peer(service) as client:
        line.hold("append")
        accepted = await client.ask("hi")
        await line.waiting.wait()
        client.send(type="ping", id="p")
        await client.until_type("pong")
        assert len(written) <= 12
        line.mend()
        events: list[dict[str, Any]] = await client.ended(accepted["run_id"])
    assert events[-1]["payload"]["response"] == "x" * 100_000


async def test_an_append_that_fails_for_a_while_is_repeated_until_it_is_answered(
    start_service: StartService, line: Line
) -> None:
    async def agent(run: agentws.Run) -> str:
        line.cut("append", 3)
        return "at last"

    service = await start_service({"patient": agent})
    async with peer(service) as client:
        events = await client.run("hi")
    assert [event["type"] for event in events] == ["agent_started", "agent_message", "agent_completed"]
    assert line.calls.count("append") == 4
