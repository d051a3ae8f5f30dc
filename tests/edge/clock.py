"""A wall clock for tests: it stands still until it is put forward, and tells when it was looked at."""

import asyncio
import time
from types import SimpleNamespace

import pytest

from agentws.edge import expiry

__all__ = ["Clock"]


class Clock:
    """In the place of the wall clock that credentials expire by; they look at it every hundredth of a second."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = time.time()
        self._looked = asyncio.Event()
        monkeypatch.setattr(expiry, "_LONGEST_WAIT_S", 0.01)
        monkeypatch.setattr(expiry, "time", SimpleNamespace(time=self._time))

    def _time(self) -> float:
        self._looked.set()
        return self.now

    async def forward(self, seconds: float) -> None:
        """Puts it forward; returns when it has been looked at since."""
        self.now += seconds
        self._looked.clear()
        async with asyncio.timeout(20):
            await self._looked.wait()
