"""Runs that take their time, whatever agents the server has."""

from collections.abc import Mapping
from typing import Any, Final

from .client import Client
from .servers import REMOTE
from .shapes import Frame

__all__ = ["ENDLESS", "QUESTION", "at_work", "streaming"]

QUESTION = "what is 12 * (3 + 4)?"


def _words(count: int) -> str:
    return " ".join(f"word{number}" for number in range(count))


# The options of a start whose run goes on until it is stopped: `demo` says 3000 words one by one, 30 a second.
ENDLESS: Final[Mapping[str, Any]] = {"content": "hi", "agent": "slow"} if REMOTE is None else {"content": _words(3000)}


def streaming(count: int) -> dict[str, Any]:
    """The options of a start whose run writes so many words one after the other and ends."""
    return {"content": str(count), "agent": "stream"} if REMOTE is None else {"content": _words(count)}


async def at_work(client: Client, **options: Any) -> Frame:
    """A run that has begun to answer and goes on until it is stopped; its `request_accepted`."""
    accepted = await client.start(**{**ENDLESS, **options})
    await client.event(accepted["run_id"], "agent_message")
    return accepted
