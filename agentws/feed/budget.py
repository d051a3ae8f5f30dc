"""What one follower may hold, in bytes as they are sent: answers and the events of all its subscriptions together.

Whoever adds asks first whether there is room, so that no more is held than the most, and one frame.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

__all__ = ["Budget"]


class Budget:
    """
    Args:
        most: how many bytes may be held before nothing further is taken in.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._held = 0
        self._is_closed = False
        self._room = asyncio.Event()
        self._room.set()
        self._turn = asyncio.Lock()

    @property
    def held(self) -> int:
        """How many bytes are held."""
        return self._held

    @property
    def free(self) -> int:
        """How many more may be held; at least one."""
        return max(1, self._most - self._held)

    @property
    def is_full(self) -> bool:
        return self._held > self._most

    def add(self, size: int) -> None:
        """Holds so many bytes more."""
        self._held += size
        if self.is_full and not self._is_closed:
            self._room.clear()

    def remove(self, size: int) -> None:
        """Holds so many bytes less."""
        self._held -= size
        # Not at the first byte: a page of one event each time would be read for a slow reader.
        if self._held <= self._most // 2:
            self._room.set()

    def close(self) -> None:
        """Keeps nobody waiting any more: nothing that is held will be sent."""
        self._is_closed = True
        self._room.set()

    async def room(self) -> None:
        """Waits, once it was full, until half of it is free."""
        await self._room.wait()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """The block in which a page is read, one after the other in the order of asking, and where there is room."""
        async with self._turn:
            await self.room()
            yield
