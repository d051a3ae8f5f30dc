"""A run has exactly one end, whatever its agent does."""

import asyncio
import gc
import weakref
from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Any

import asyncpg
import pytest

import agentws
from agentws.app import Service
from agentws.core.run import Appended
from agentws.runtime.supervisor import Supervisor
from agentws.store.journal import PgJournal

from ..conftest import StartService
from ..faults import Line
from ..histories import Reader
from ..peers import TERMINAL, peer

Agent = Callable[[agentws.Run], Awaitable[Any]]


async def run_once(start_service: StartService, agent: Agent, **settings: Any) -> tuple[Service, list[dict[str, Any]]]:
    service = await start_service({"tried": agent}, **settings)
    async with peer(service) as client:
        return service, await client.run("hi")


def ending(events: list[dict[str, Any]]) -> tuple[str, Any, Any]:
    """The one terminal event's type, code and response; fails where there is another than one."""
    assert [event["type"] in TERMINAL for event in events] == [False] * (len(events) - 1) + [True]
    last = events[-1]
    return last["type"], last["payload"].get("code"), last["payload"]["response"]


async def raises(run: agentws.Run) -> None:
    raise LookupError("secret")


async def raises_after_text(run: agentws.Run) -> None:
    await run.write("so far")
    raise LookupError("secret")


async def exits(run: agentws.Run) -> None:
    raise SystemExit(3)


async def interrupts(run: agentws.Run) -> None:
    raise KeyboardInterrupt


async def cancels_itself(run: agentws.Run) -> None:
    raise asyncio.CancelledError


async def says_why(run: agentws.Run) -> None:
    raise agentws.AgentError("model_unavailable", "The model is away.", retryable=True)


async def returns_number(run: agentws.Run) -> int:
    return 7


async def returns_text(run: agentws.Run) -> str:
    return "returned"


async def returns_other_text(run: agentws.Run) -> str:
    await run.write("written")
    return "returned"


async def says_nothing(run: agentws.Run) -> None:
    return None


async def writes_what_cannot_be_stored(run: agentws.Run) -> None:
    await run.write("a\0b\ud800c")


@pytest.mark.parametrize(
    ("agent", "expected"),
    [
        (raises, ("agent_error", "agent_failed", None)),
        (raises_after_text, ("agent_error", "agent_failed", "so far")),
        (exits, ("agent_error", "agent_failed", None)),
        (interrupts, ("agent_error", "agent_failed", None)),
        (cancels_itself, ("agent_error", "agent_failed", None)),
        (says_why, ("agent_error", "model_unavailable", None)),
        (returns_number, ("agent_error", "agent_failed", None)),
        (returns_text, ("agent_completed", None, "returned")),
        (returns_other_text, ("agent_completed", None, "returned")),
        (says_nothing, ("agent_completed", None, "")),
        (writes_what_cannot_be_stored, ("agent_completed", None, "a\ufffdb\ufffdc")),
    ],
)
async def test_what_an_agent_does_decides_its_one_end(
    start_service: StartService, agent: Agent, expected: tuple[str, Any, Any]
) -> None:
    service, events = await run_once(start_service, agent)
    assert ending(events) == expected
    async with peer(service) as client:
        assert (await client.run("and again", agent="demo"))[-1]["type"] == "agent_completed"


async def test_a_returned_text_is_written_where_nothing_was(start_service: StartService) -> None:
    _, events = await run_once(start_service, returns_text)
    assert [event["payload"]["text"] for event in events if event["type"] == "agent_message"] == ["returned"]


async def test_an_agent_that_does_not_end_when_stopped_is_left_and_its_run_ends(start_service: StartService) -> None:
    free = asyncio.Event()

    async def stubborn(run: agentws.Run) -> None:
        while not free.is_set():
            try:
                await free.wait()
            except asyncio.CancelledError:
                await run.write("not me")

    service = await start_service({"stubborn": stubborn}, stop_grace_s=0.1)
    async with peer(service) as client:
        accepted = await client.ask("hi")
        client.send(type="stop_agent", run_id=accepted["run_id"], reason="enough")
        events = await client.ended(accepted["run_id"])
        assert ending(events) == ("agent_stopped", None, "not me")
        assert events[-1]["payload"]["reason"] == "enough"
        free.set()
        assert (await client.run("next", agent="demo"))[-1]["type"] == "agent_completed"


async def test_each_request_has_a_supervisor_of_its_own_that_is_gone_after_it(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[weakref.ref[Supervisor]] = []
    plain = Supervisor.__init__

    def note(self: Supervisor, *args: Any, **kwargs: Any) -> None:
        made.append(weakref.ref(self))
        plain(self, *args, **kwargs)

    monkeypatch.setattr(Supervisor, "__init__", note)
    async with peer(service) as client:
        for _ in range(3):
            await client.run("hi", agent="tool")
    gc.collect()
    assert len(made) == 3
    assert [each() for each in made] == [None] * 3


async def test_the_server_s_own_failure_ends_the_run_in_internal_error(
    start_service: StartService, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = PgJournal.append
    failures = iter([asyncpg.DataError("secret")])

    async def refuse_once(self: PgJournal, *args: Any, **kwargs: Any) -> Appended:
        for failure in failures:
            raise failure
        return await plain(self, *args, **kwargs)

    monkeypatch.setattr(PgJournal, "append", refuse_once)
    _, events = await run_once(start_service, returns_text)
    assert ending(events) == ("agent_error", "internal_error", None)


async def test_an_agent_that_goes_on_writing_when_stopped_is_left_too(start_service: StartService) -> None:
    free = False

    async def stubborn(run: agentws.Run) -> None:
        while not free:
            try:
                await run.emit("a.b", 1)
                await asyncio.sleep(0)
            except asyncio.CancelledError:
                continue

    service = await start_service({"stubborn": stubborn}, stop_grace_s=0.1)
    async with peer(service) as client:
        accepted = await client.ask("hi", subscribe=False)
        client.send(type="stop_agent", run_id=accepted["run_id"])
        client.send(type="subscribe", thread_id=accepted["thread_id"])
        await client.ended(accepted["run_id"])
        free = True


async def test_a_tool_that_exits_under_a_task_of_the_agent_s_is_a_failed_tool(start_service: StartService) -> None:
    async def leave() -> None:
        raise SystemExit(2)

    async def agent(run: agentws.Run) -> str:
        results = await asyncio.gather(run.call_tool("leave", leave), return_exceptions=True)
        return type(results[0]).__name__

    _, events = await run_once(start_service, agent)
    assert ending(events) == ("agent_completed", None, "RuntimeError")
    assert events[2]["payload"]["error"]["code"] == "tool_failed"


async def odd_progress(run: agentws.Run) -> str:
    async def tool() -> None:
        await run.progress(True)
        await run.progress(Decimal("0.5"))  # type: ignore[arg-type]

    await run.call_tool("t", tool)
    return "ok"


async def odd_error(run: agentws.Run) -> None:
    raise agentws.AgentError("a\0b", "m", retryable=None)  # type: ignore[arg-type]


async def odd_name(run: agentws.Run) -> str:
    for name in (None, "", "x" * 129):
        with pytest.raises((TypeError, ValueError)):
            await run.call_tool(name, lambda: None)  # type: ignore[arg-type]
    await run.call_tool("x\ud800", lambda: None)
    return "ok"


@pytest.mark.parametrize(
    ("agent", "expected"),
    [
        (odd_progress, ("agent_completed", None, "ok")),
        (odd_error, ("agent_error", "a\ufffdb", None)),
        (odd_name, ("agent_completed", None, "ok")),
    ],
)
async def test_odd_values_of_an_agent_do_not_hide_what_follows(
    start_service: StartService, agent: Agent, expected: tuple[str, Any, Any]
) -> None:
    service, events = await run_once(start_service, agent)
    assert ending(events) == expected
    async with peer(service) as client:
        client.send(type="subscribe", thread_id=events[0]["thread_id"])
        await client.until_type("caught_up")
        replayed = [frame for frame in client.frames if "event_id" in frame]
        assert Reader.of(replayed) == Reader.of(events)


async def test_a_stop_that_was_accepted_before_the_end_was_written_is_kept(
    start_service: StartService, line: Line
) -> None:
    async def agent(run: agentws.Run) -> str:
        await run.write("all of it")
        line.hold("append")
        return "another text"

    service = await start_service({"quick": agent})
    async with peer(service) as client:
        accepted = await client.ask("hi")
        await line.waiting.wait()
        client.send(type="stop_agent", run_id=accepted["run_id"], reason="changed my mind")
        stopped = await client.until_type("stop_accepted")
        assert stopped["run_ids"] == [accepted["run_id"]]
        line.mend()
        events = await client.ended(accepted["run_id"])
    assert ending(events) == ("agent_stopped", None, "all of it")
    assert events[-1]["payload"]["reason"] == "changed my mind"
    assert [event["payload"]["text"] for event in events if event["type"] == "agent_message"] == ["all of it"]
