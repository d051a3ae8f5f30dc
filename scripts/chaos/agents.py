"""The agents of the chaos harness: each plays the plan that follows from the user's text (`scripts.chaos.plans`).

Where the environment variable CHAOS_TOOL_LOG names a file, every call of a tool appends a line of JSON there, in one
write, before it does anything else.
"""

import asyncio
import json
import os
import select
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, assert_never

import agentws
from scripts.chaos.plans import RESTARTED, Call, Emit, Fail, Plan, Return, Think, Together, Write, plan

__all__ = ["agents"]


class ToolBroke(Exception):
    """What a tool raises that is planned to."""


def _note(run: agentws.Run, call: Call) -> None:
    path = os.environ.get("CHAOS_TOOL_LOG")
    if not path:
        return
    told = {
        "user_id": run.context.user_id,
        "run_id": run.context.run_id,
        "attempt": run.context.attempt,
        "tool": call.name,
        "call": call.parameters["call"],
        "time": time.time(),
    }
    target = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        os.write(target, json.dumps(told).encode() + b"\n")
    finally:
        os.close(target)


def _outcome(call: Call) -> dict[str, Any]:
    if call.raises:
        raise ToolBroke
    return call.result


async def _use(run: agentws.Run, call: Call) -> None:
    async def tool(**_: Any) -> dict[str, Any]:
        _note(run, call)
        for step in range(call.progress):
            await run.progress((step + 1) / call.progress, f"step {step + 1}")
        await asyncio.sleep(call.seconds)
        return _outcome(call)

    def threaded(**_: Any) -> dict[str, Any]:
        _note(run, call)
        # Under a clock that is set wrong from outside, time.sleep raises.
        select.select((), (), (), call.seconds)
        return _outcome(call)

    with suppress(ToolBroke):
        await run.call_tool(call.name, threaded if call.threaded else tool, **call.parameters)


async def _play(run: agentws.Run, steps: Plan) -> str | None:
    for step in steps:
        match step:
            case Think():
                await run.think(step.text)
            case Together():
                async with asyncio.TaskGroup() as group:
                    for call in step.calls:
                        group.create_task(_use(run, call))
            case Write():
                await run.write(step.text)
                await asyncio.sleep(step.pause_s)
            case Emit():
                await run.emit(step.name, step.value)
            case Fail(code="agent_failed"):
                raise RuntimeError("planned")
            case Fail():
                raise agentws.AgentError(step.code, "It was planned so.", retryable=True)
            case Return():
                return step.text
            case _:
                assert_never(step)
    return None


def _named(name: str) -> Callable[[agentws.Run], Awaitable[str | None]]:
    async def played(run: agentws.Run) -> str | None:
        return await _play(run, plan(name, run.text))

    return agentws.agent(on_crash="restart")(played) if name in RESTARTED else played


agents = {name: _named(name) for name in ("echo", "slow", "tool", "steady", "big", "fails")}
