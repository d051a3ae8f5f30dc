"""Agents that tests ask for by name; each shows one behaviour."""

import asyncio
import contextlib
import itertools
import json
import os
import threading
from pathlib import Path
from typing import Any

import agentws
from agentws.agents.demo import make_demo

__all__ = ["agents"]


async def echo(run: agentws.Run) -> None:
    await run.write(run.text)


async def lookup(text: str) -> dict[str, str]:
    return {"found": text[::-1]}


async def tool(run: agentws.Run) -> None:
    await run.think("Looking it up")
    found = await run.call_tool("lookup", lookup, text=run.text)
    await run.write(found["found"])


async def slow(run: agentws.Run) -> None:
    await run.write("started ")
    await asyncio.Event().wait()


async def stream(run: agentws.Run) -> None:
    for number in range(int(run.text)):
        await run.write(f"w{number} ")
        await asyncio.sleep(0.002)


async def silent(run: agentws.Run) -> None:
    """Answers nothing."""


async def fail(run: agentws.Run) -> None:
    await run.write("partial")
    raise RuntimeError("secret-internal-text")


async def broken() -> None:
    raise ValueError("secret-internal-text")


async def badtool(run: agentws.Run) -> str:
    try:
        await run.call_tool("broken", broken)
    except ValueError:
        return "recovered"
    return "not reached"


async def unencodable(run: agentws.Run) -> object:
    return object()


async def opaque() -> object:
    return object()


async def badresult(run: agentws.Run) -> str:
    try:
        await run.call_tool("opaque", opaque)
    except TypeError:
        return "recovered"
    return "not reached"


async def history(run: agentws.Run) -> str:
    return json.dumps([[message.role, message.content] for message in await run.history()])


def _thawed(value: Any) -> Any:
    if hasattr(value, "items"):
        return {name: _thawed(each) for name, each in value.items()}
    return [_thawed(each) for each in value] if isinstance(value, tuple) else value


async def context(run: agentws.Run) -> str:
    names = ("tenant_id", "user_id", "thread_id", "run_id", "request_id", "connection_id", "attempt", "depth")
    return json.dumps({name: getattr(run.context, name) for name in names} | {"client": _thawed(run.context.context)})


async def hang() -> None:
    await asyncio.Event().wait()


@agentws.agent(timeout_s=0.5)
async def timeout(run: agentws.Run) -> None:
    await run.call_tool("hang", hang)


def block() -> None:
    threading.Event().wait()


async def stuck(run: agentws.Run) -> None:
    """Calls a tool in a thread that never ends."""
    await run.call_tool("block", block)


async def astral(run: agentws.Run) -> None:
    """Writes so many words whose characters are not all of one size, one after the other."""
    for number in range(int(run.text)):
        await run.write(f"🎈é{number} ")
        await asyncio.sleep(0.002)


async def steps(run: agentws.Run) -> str:
    """Calls a tool that tells how far it is."""

    async def climb() -> int:
        for step in range(1, 4):
            await run.progress(step / 4, f"step {step}")
        return 4

    return str(await run.call_tool("climb", climb))


async def notify(run: agentws.Run) -> str:
    await run.emit("app.thing", {"n": 1})
    return "done"


async def thinker(run: agentws.Run) -> str:
    for number in range(1, 4):
        await run.think(f"step {number}")
    return "ok"


@agentws.agent(on_crash="restart")
async def phoenix(run: agentws.Run) -> str:
    """Hangs at its first attempt and answers at the second."""
    await run.write(f"attempt {run.context.attempt}")
    if run.context.attempt == 1:
        await run.call_tool("hang", hang)
    return ""


def note(path: str, pid: int, number: int) -> None:
    with Path(path).open("a") as ledger:
        ledger.write(f"{pid} {number}\n")


async def ledger(run: agentws.Run) -> None:
    """Calls a tool again and again that adds a line to the file which the text names: the process, and which call."""
    for number in itertools.count():
        await run.call_tool("note", note, path=run.text, pid=os.getpid(), number=number)


@agentws.agent(on_crash="restart")
async def relentless(run: agentws.Run) -> None:
    """As `ledger`, and again where its process was lost."""
    await ledger(run)


@agentws.agent(on_crash="restart")
async def steady(run: agentws.Run) -> None:
    """Calls a tool, and writes so many words; again where its process goes away."""
    await run.call_tool("lookup", lookup, text=run.text)
    await stream(run)


@agentws.agent(on_crash="restart")
async def clinging(run: agentws.Run) -> str:
    """Does not end at its first attempt, whatever it is told."""
    await run.write("holding on")
    while run.context.attempt == 1:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
    return "let go"


agents = {"demo": make_demo(0)} | {
    each.__name__: each
    for each in (
        echo,
        tool,
        slow,
        stream,
        silent,
        fail,
        badtool,
        unencodable,
        badresult,
        history,
        context,
        timeout,
        stuck,
        astral,
        steps,
        notify,
        thinker,
        phoenix,
        ledger,
        relentless,
        steady,
        clinging,
    )
}
