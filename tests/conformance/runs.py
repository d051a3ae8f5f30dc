"""Runs that go on until they are stopped, and how to wait beside them, whatever agents the server has."""

from typing import Any

from .client import Client
from .servers import REMOTE
from .shapes import Frame

__all__ = ["LONG", "QUESTION", "at_work"]

# `demo` says it word by word, 30 a second, so that its run goes on until it is stopped.
LONG = " ".join(f"word{number}" for number in range(3000))
QUESTION = "what is 12 * (3 + 4)?"


async def at_work(client: Client, **options: Any) -> Frame:
    """A run that has begun to answer and goes on until it is stopped; its `request_accepted`."""
    if REMOTE is None:
        accepted = await client.start("hi", **{"agent": "slow"} | options)
    else:
        accepted = await client.start(LONG, **options)
    await client.event(accepted["run_id"], "agent_message")
    return accepted
