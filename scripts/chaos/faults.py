"""The faults of a chaos run: what breaks, in which order and after which pauses. All of it follows from the seed.

Servers, the database, the lines to it and the answers on them each have a row of faults of their own, so that faults
of different kinds meet.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Final

from scripts.chaos.pgproxy import Doubt, PgProxy
from scripts.chaos.servers import ChaosServer
from scripts.chaos.world import LEASE_S, World

__all__ = ["FAULTS", "Faults", "dealt"]

# How often each comes among those of its row.
_SERVERS: Mapping[str, int] = {"kill": 5, "drain": 1, "rolling": 1, "pause": 2, "stuck": 2}
_DATABASE: Mapping[str, int] = {"terminate": 5, "crash": 2, "outage": 1}
_LINES: Mapping[str, int] = {"reset": 2, "silence": 2, "hints": 2, "lag": 2}
_ANSWERS: Mapping[str, int] = {"ambiguous": 4, "unsent": 1, "late": 2}
_ROWS: Mapping[str, Mapping[str, int]] = {
    "servers": _SERVERS,
    "database": _DATABASE,
    "lines": _LINES,
    "answers": _ANSWERS,
}
FAULTS: Final[Sequence[str]] = (*(name for row in _ROWS.values() for name in row), "clock")

_GAPS_S: Mapping[str, float] = {"servers": 2.0, "database": 3.0, "lines": 2.0, "answers": 0.4}
# The units of work whose callers are left in doubt; those that write most the most often.
_UNITS = ("append",) * 5 + ("accept",) * 3 + (
    "begin_run", "stop", "take_over_2", "claim_waiting_2", "release_run", "renew_node",
)  # fmt: skip
_SHORT_S = 60.0


class Faults:
    """
    Args:
        seconds: how long the run takes; the shorter, the closer faults follow each other.
        names: those that may come.

    `counts`: how often each came.
    """

    def __init__(self, world: World, *, seed: int, seconds: float, names: frozenset[str]) -> None:
        self.counts: Counter[str] = Counter()
        self._world = world
        self._seed = seed
        self._names = names
        self._pace = min(1.0, max(0.1, seconds / _SHORT_S))
        self._calls: Mapping[str, Callable[[random.Random], Awaitable[None]]] = {
            "kill": self._kill,
            "drain": self._drain,
            "rolling": self._rolling,
            "pause": self._pause,
            "stuck": self._stuck,
            "terminate": self._terminate,
            "crash": self._crash,
            "outage": self._outage,
            "reset": self._reset,
            "silence": self._silence,
            "hints": self._hints,
            "lag": self._lag,
            "ambiguous": self._ambiguous,
            "unsent": self._unsent,
            "late": self._late,
        }

    async def run(self) -> None:
        """Breaks things until cancelled; what it left broken `World.mend` undoes."""
        async with asyncio.TaskGroup() as group:
            for row, kinds in _ROWS.items():
                chosen = {name: often for name, often in kinds.items() if name in self._names}
                if chosen:
                    group.create_task(self._follow(row, chosen))
            await asyncio.Event().wait()

    async def _follow(self, row: str, kinds: Mapping[str, int]) -> None:
        rng = random.Random(f"{self._seed}:{row}")
        for name in dealt(rng, kinds):
            await asyncio.sleep(self._pace * min(rng.expovariate(1 / _GAPS_S[row]), 3 * _GAPS_S[row]))
            # Of its own, so that what a fault finds does not change those after it.
            await self._calls[name](random.Random(rng.getrandbits(64)))

    def _a_server(self, rng: random.Random) -> ChaosServer:
        return rng.choice(self._world.servers)

    def _some_lines(self, rng: random.Random) -> list[PgProxy]:
        """One line, and now and then all of them."""
        return self._world.proxies if rng.random() < 0.25 else [rng.choice(self._world.proxies)]

    # Servers

    async def _kill(self, rng: random.Random) -> None:
        everyone, waits = rng.random() < 0.1, rng.random() < 0.8
        victims = self._world.servers if everyone else [self._a_server(rng)]
        await asyncio.gather(*(self._kill_one(victim) for victim in victims))
        if waits:
            # Else the next may hit it while it starts.
            await _ready(victims)

    async def _kill_one(self, server: ChaosServer) -> None:
        async with server.lock:
            await server.kill()
            self.counts["kill"] += 1

    async def _drain(self, rng: random.Random) -> None:
        await self._drain_one(self._a_server(rng), "drain")

    async def _rolling(self, rng: random.Random) -> None:
        for server in rng.sample(self._world.servers, len(self._world.servers)):
            await self._drain_one(server, "rolling")

    async def _drain_one(self, server: ChaosServer, name: str) -> None:
        async with server.lock:
            await server.drain()
            self.counts[name] += 1
        await _ready([server])

    async def _pause(self, rng: random.Random) -> None:
        server, seconds = self._a_server(rng), LEASE_S * rng.uniform(0.5, 2.5)
        async with server.lock:
            server.pause()
            self.counts["pause"] += 1
            try:
                await asyncio.sleep(seconds)
            finally:
                server.resume()

    async def _stuck(self, rng: random.Random) -> None:
        """A server that is killed while the end of a run is on its way, which arrives when others work on that run."""
        server, line = rng.choice(list(zip(self._world.servers, self._world.proxies, strict=True)))
        line.stuck_s = LEASE_S * rng.uniform(1.5, 3.0)
        line.caught.clear()
        line.doubt("append", Doubt.STUCK)
        with suppress(TimeoutError):
            async with asyncio.timeout(LEASE_S):
                await line.caught.wait()
            await self._kill_one(server)
            await _ready([server])

    # The database

    async def _terminate(self, rng: random.Random) -> None:
        share = rng.choice((0.0, 0.0, 0.3, 1.0))
        async with self._world.database_lock:
            self.counts["terminate"] += await self._world.database.terminate(share, rng)

    async def _crash(self, rng: random.Random) -> None:
        seconds = rng.choice((0.0, rng.uniform(0.0, 1.0)))
        await self._away("crash", self._world.database.kill, seconds)

    async def _outage(self, rng: random.Random) -> None:
        await self._away("outage", self._world.database.stop, LEASE_S * rng.uniform(1.0, 2.0))

    async def _away(self, name: str, end: Callable[[], Awaitable[None]], seconds: float) -> None:
        async with self._world.database_lock:
            await end()
            self.counts[name] += 1
            await asyncio.sleep(seconds)
            await self._world.database.start_again()

    # The lines to it

    async def _reset(self, rng: random.Random) -> None:
        for line in self._some_lines(rng):
            line.reset()
        self.counts["resets"] += 1

    async def _silence(self, rng: random.Random) -> None:
        lines, seconds, breaks = self._some_lines(rng), LEASE_S * rng.uniform(0.3, 4.0), rng.random() < 0.3
        for line in lines:
            line.flowing.clear()
        self.counts["silence"] += 1
        try:
            await asyncio.sleep(seconds)
        finally:
            for line in lines:
                if breaks:
                    line.reset()
                # Else what was on its way arrives now.
                line.flowing.set()

    async def _hints(self, rng: random.Random) -> None:
        lines, seconds, loss = self._some_lines(rng), rng.uniform(1.0, 4.0), rng.choice((0.3, 0.7, 1.0))
        for line in lines:
            line.hint_loss = loss
        try:
            await asyncio.sleep(seconds)
        finally:
            for line in lines:
                line.hint_loss = 0.0

    async def _lag(self, rng: random.Random) -> None:
        seconds, lag_s = rng.uniform(1.0, 4.0), rng.choice((0.02, 0.1))
        for line in self._world.proxies:
            line.lag_s = lag_s
        self.counts["lag"] += 1
        try:
            await asyncio.sleep(seconds)
        finally:
            for line in self._world.proxies:
                line.lag_s = 0.0

    async def _ambiguous(self, rng: random.Random) -> None:
        self._leave_in_doubt(rng, Doubt.LOST)

    async def _unsent(self, rng: random.Random) -> None:
        self._leave_in_doubt(rng, Doubt.UNSENT)

    async def _late(self, rng: random.Random) -> None:
        self._leave_in_doubt(rng, Doubt.LATE)

    def _leave_in_doubt(self, rng: random.Random, doubt: Doubt) -> None:
        rng.choice(self._world.proxies).doubt(rng.choice(_UNITS), doubt)


def dealt(rng: random.Random, kinds: Mapping[str, int]) -> Iterator[str]:
    """Each kind once, in any order, and from then on as often as it is said."""
    yield from rng.sample(list(kinds), len(kinds))
    deck = [name for name, often in kinds.items() for _ in range(often)]
    while True:
        yield from rng.sample(deck, len(deck))


async def _ready(servers: Sequence[ChaosServer]) -> None:
    # One that a fault of another row keeps from starting is not waited for longer.
    with suppress(TimeoutError):
        async with asyncio.timeout(10):
            await asyncio.gather(*(server.is_ready() for server in servers))
