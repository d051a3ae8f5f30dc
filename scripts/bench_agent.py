"""The agents that the benchmark asks for: each thinks, calls one tool, and answers with the user's text.

The tool tells when it returned, by the monotonic clock that all processes of a machine share, so that the load can see
whether `tool_executing` had arrived by then.
"""

import asyncio
import time
from typing import Any

import agentws

__all__ = ["TOOL_S", "agents"]

TOOL_S = 0.005


async def lookup(text: str) -> dict[str, Any]:
    return {"text": text[::-1], "returned": time.monotonic()}


async def lookup_slowly(text: str) -> dict[str, Any]:
    await asyncio.sleep(TOOL_S)
    return await lookup(text)


async def bench(run: agentws.Run) -> None:
    await run.think(run.text)
    await run.call_tool("lookup", lookup, text=run.text)
    await run.write(run.text)


async def bench_slow(run: agentws.Run) -> None:
    await run.think(run.text)
    await run.call_tool("lookup", lookup_slowly, text=run.text)
    await run.write(run.text)


agents = {"bench": bench, "bench_slow": bench_slow}
