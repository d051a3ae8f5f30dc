"""The load of the chaos harness: many users with seeded habits, whatever becomes of the servers, and the verdict.

All that any client is told is recorded; `check` holds it to the protocol's promises.
"""

import asyncio
import json
import os
import random
from collections.abc import Sequence
from pathlib import Path

from scripts.chaos.behaviours import BEHAVIOURS, create
from scripts.chaos.checker import check
from scripts.chaos.clients import Person
from scripts.chaos.record import Finding, Recording
from scripts.chaos.settling import settle

__all__ = ["Swarm"]

ALL_TABS, MOST_TABS = 50, 4
"""So much goes on at once, however few users there are; a user does not do more than the second of it."""
REST_S = 2.0
"""At most, between two things that a tab does: the load is meant to be interleaved, not to fill the machine."""
THREADS = ("main", "work", "play", "night")


class Swarm:
    """Users `chaos-SEED-0`, `chaos-SEED-1` … of one or two servers with dev authentication.

    Args:
        urls: `http://HOST:PORT` of each server; they may die and come back there at any moment.
        seed: of everything that is random here, a whole number; a database has no users of this seed before.
        users: how many.
    """

    def __init__(self, urls: Sequence[str], *, seed: int, users: int) -> None:
        self.recording = Recording()
        self._people = [
            Person(f"chaos-{seed}-{number}", urls, self.recording, random.Random(f"{seed} {number}"))
            for number in range(users)
        ]
        self._tabs = min(MOST_TABS, max(1, round(ALL_TABS / users)))
        self._late: list[Finding] = []

    async def load(self) -> None:
        """Makes load until it is cancelled; what was recorded is kept, and connections stay for `settle`."""
        async with asyncio.TaskGroup() as group:
            for person in self._people:
                group.create_task(self._live(person))

    async def _live(self, person: Person) -> None:
        for thread_id in THREADS:
            await self._create(person, thread_id)
        async with asyncio.TaskGroup() as group:
            for _ in range(self._tabs):
                group.create_task(self._behave(person))

    async def _create(self, person: Person, thread_id: str) -> None:
        while thread_id not in person.threads:
            link = await person.connect(cut=False)
            if await create(person, thread_id, link) is None:
                await person.pause(0.5)
            link.cut()

    async def _behave(self, person: Person) -> None:
        behaviours, weights = zip(*BEHAVIOURS, strict=True)
        while True:
            (behaviour,) = person.rng.choices(behaviours, weights)
            await behaviour(person)
            await person.pause(REST_S)

    async def settle(self, *, timeout_s: float) -> None:
        """Waits, when faults are over, until every accepted run has ended, and reads everything anew.

        What takes longer than `timeout_s` becomes a finding. Closes all connections.
        """
        try:
            async with asyncio.timeout(timeout_s):
                await asyncio.gather(*(settle(person) for person in self._people))
        except TimeoutError:
            self._late.append(Finding("settle", "", None, f"not settled within {timeout_s} s"))
        finally:
            links = [link for person in self._people for link in person.links]
            for link in links:
                link.cut()
            await asyncio.gather(*(link.reader for link in links))

    def check(self) -> list[Finding]:
        """All that was found against the protocol. Reads the file that CHAOS_TOOL_LOG names, if it is set."""
        path = os.environ.get("CHAOS_TOOL_LOG")
        if path and Path(path).exists():
            self.recording.tool_calls = [json.loads(line) for line in Path(path).read_text("utf-8").splitlines()]
        return [*self._late, *check(self.recording)]

    @property
    def counts(self) -> dict[str, int]:
        """What there was so far: `runs` (accepted, distinct), `ended`, `cuts` (sockets that clients reset), `frames`,
        `events`, `duplicates`, `stops`, `refused`, `refused_CODE`, `closed_CODE` (by the server), and more."""
        return self.recording.totals
