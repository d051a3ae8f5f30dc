"""Faults between the server's parts and its database, put in on purpose; what is behind them is real."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from agentws.ports import StoreUnavailable
from agentws.store.pool import Database

__all__ = ["Line"]


class Line:
    """The line to the database, and what becomes of calls of a unit of work on it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[str] = []
        self.on_loss: Callable[[], Awaitable[object]] | None = None
        self._cut: dict[str, int] = {}
        self._lost: dict[str, int] = {}
        self._held: dict[str, asyncio.Event] = {}
        self.waiting = asyncio.Event()
        self._answers: Counter[str] = Counter()
        self._answer = asyncio.Event()
        plain: Callable[..., Awaitable[Any]] = Database._fetch
        line = self

        async def fetch(database: Database, call: str, *args: Any) -> Any:
            return await line._pass(plain, database, call, *args)

        monkeypatch.setattr(Database, "_fetch", fetch)

    def cut(self, unit: str, times: int = 1 << 30) -> None:
        """The next calls of a unit of work do not reach the database."""
        self._cut[unit] = times

    def lose_answers(self, unit: str, times: int = 1) -> None:
        """The next calls of a unit of work take effect, and nobody hears of it."""
        self._lost[unit] = times

    def hold(self, unit: str) -> None:
        """Calls of a unit of work wait until `mend`."""
        self._held[unit] = asyncio.Event()

    def mend(self) -> None:
        """From now on every call is answered."""
        self._cut.clear()
        self._lost.clear()
        for held in self._held.values():
            held.set()
        self._held.clear()

    def answers(self, unit: str) -> int:
        """How many calls of a unit of work have been answered."""
        return self._answers[unit]

    async def answered(self, unit: str, times: int = 1) -> None:
        """Waits until calls of a unit of work have been answered so many times."""
        async with asyncio.timeout(20):
            while self._answers[unit] < times:
                self._answer.clear()
                await self._answer.wait()

    async def _pass(self, plain: Callable[..., Awaitable[Any]], database: Database, call: str, *args: Any) -> Any:
        unit = call.partition("agentws.")[2].partition("(")[0]
        self.calls.append(unit)
        if unit in self._held:
            self.waiting.set()
            await self._held[unit].wait()
        if self._cut.get(unit, 0) > 0:
            self._cut[unit] -= 1
            raise StoreUnavailable("cut")
        answer = await plain(database, call, *args)
        self._answers[unit] += 1
        self._answer.set()
        if self._lost.get(unit, 0) > 0:
            self._lost[unit] -= 1
            if self.on_loss is not None:
                await self.on_loss()
            raise StoreUnavailable("answer lost")
        return answer
