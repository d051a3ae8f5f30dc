"""The agents that the measurement of slow readers asks for: one writes words at a pace, one a large answer at once."""

import asyncio
import time

import agentws

__all__ = ["WORDS_PER_S", "agents"]

WORDS_PER_S = 20
_PIECE = "".join(f"{number:>6} ä" for number in range(125))


async def paced(run: agentws.Run) -> None:
    """Writes so many words as it is told; each is the time of a clock that all processes of a machine share."""
    for _ in range(int(run.text)):
        await run.write(f"{time.monotonic():.6f} ")
        await asyncio.sleep(1 / WORDS_PER_S)


async def large(run: agentws.Run) -> None:
    """Writes so many bytes as it is told, or a little more, about 1 MB a second."""
    left = int(run.text)
    while left > 0:
        await run.write(_PIECE)
        left -= len(_PIECE.encode())
        await asyncio.sleep(0.001)


agents = {"paced": paced, "large": large}
"""By name."""
