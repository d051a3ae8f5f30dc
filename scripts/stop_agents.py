"""The agents of `scripts.stop_times`: each hangs in a tool of one kind, which tells in a pipe when it hangs and ends.

Times are of the monotonic clock, which all processes of a machine share.
"""

import asyncio
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

import agentws

__all__ = ["LINES", "LOOK_S", "agents"]

LINES = "STOP_TIMES_LINES"
LOOK_S = 0.005
# The shell waits for a child of its own, which would go on if the shell alone were ended.
_PROGRAM = 'sleep 60 & echo "$1 pids $$ $!" >"$0"; wait'


def _tell(run_id: str, *words: object) -> None:
    pipe = os.open(os.environ[LINES], os.O_WRONLY)
    os.write(pipe, " ".join(map(str, (run_id, *words))).encode() + b"\n")
    os.close(pipe)


@contextmanager
def _told(run_id: str) -> Iterator[None]:
    _tell(run_id, "begun")
    try:
        yield
    finally:
        _tell(run_id, "ended", time.monotonic())


async def coroutine(run: agentws.Run) -> None:
    async def tool() -> None:
        with _told(run.context.run_id):
            await asyncio.Event().wait()

    await run.call_tool("coroutine", tool)


async def thread(run: agentws.Run) -> None:
    def tool() -> None:
        with _told(run.context.run_id):
            while not run.cancelled:
                time.sleep(LOOK_S)

    await run.call_tool("thread", tool)


async def process(run: agentws.Run) -> None:
    async def tool() -> int:
        done = await agentws.run_process("sh", "-c", _PROGRAM, os.environ[LINES], run.context.run_id)
        return done.returncode

    await run.call_tool("process", tool)


agents = {each.__name__: each for each in (coroutine, thread, process)}
