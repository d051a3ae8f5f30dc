"""`python -m scripts.chaos`: real servers under a real load while everything around them breaks, and a check of what
was promised. Prints its seed first and a report as JSON at the end; exits with 1 where anything was found."""

import argparse
import asyncio
import faulthandler
import importlib.metadata
import json
import os
import platform
import random
import secrets
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agentws.version import VERSION
from scripts.chaos.clock import Clock
from scripts.chaos.faults import FAULTS, Faults
from scripts.chaos.inspection import (
    check_database,
    check_left,
    check_world,
    first,
    keep_recording,
    takeovers,
)
from scripts.chaos.record import Finding
from scripts.chaos.swarm import Swarm
from scripts.chaos.world import World

__all__ = ["main"]

# What ten minutes have to bring; a shorter run has to bring its share, and of each at least one.
_MINIMUM: Mapping[str, int] = {"runs": 5_000, "kills": 50, "cuts": 2_000, "takeovers": 100, "ambiguous": 20}
_MINIMUM_S = 600.0
_SETTLE_S = 60.0
_SHOWN = 50
_MOST_S = 300.0


@dataclass
class Report:
    """What a chaos run has done and found."""

    seed: int
    seconds: float
    servers: int
    users: int
    clock_shift: str
    load: Mapping[str, int] = field(default_factory=dict)
    faults: Mapping[str, int] = field(default_factory=dict)
    takeovers: int = 0
    memory: Mapping[str, int] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    took_s: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        """Notes how long a phase takes."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.took_s[phase] = round(time.monotonic() - began, 1)

    def reached(self) -> Mapping[str, int]:
        """What counts for the minimum."""
        return {
            "runs": self.load.get("runs", 0),
            "kills": self.faults.get("kill", 0) + self.faults.get("crash", 0),
            "cuts": self.load.get("cuts", 0),
            "takeovers": self.takeovers,
            "ambiguous": self.faults.get("ambiguous", 0),
        }

    def below(self) -> Mapping[str, Mapping[str, int]]:
        """What was not reached, with what it should have been."""
        share, reached = self.seconds / _MINIMUM_S, self.reached()
        wanted = {name: max(1, int(most * share)) for name, most in _MINIMUM.items()}
        return {
            name: {"reached": reached[name], "wanted": least} for name, least in wanted.items() if reached[name] < least
        }

    def shown(self, *, minimum: bool) -> dict[str, Any]:
        """As it is printed. `minimum`: whether one was to be reached."""
        promises = Counter(each.promise for each in self.findings)
        return {
            "seed": self.seed,
            "seconds": self.seconds,
            "servers": self.servers,
            "users": self.users,
            "load": dict(self.load),
            "faults": dict(sorted(self.faults.items())),
            "clock_shift": self.clock_shift,
            "takeovers": self.takeovers,
            "took_s": self.took_s,
            "memory_mib": {name: held >> 20 for name, held in self.memory.items()},
            "versions": dict(self.versions),
            "below_minimum": dict(self.below()) if minimum else {},
            "promises_broken": dict(promises.most_common()),
            "findings": first(self.findings, _SHOWN),
            "findings_in_all": len(self.findings),
        }


async def run(options: argparse.Namespace) -> Report:
    """Runs it: load and faults for so long, then quiet, then the checks."""
    names = frozenset(options.faults)
    clock = Clock(enabled="clock" in names)
    report = Report(options.seed, options.seconds, options.servers, options.users, clock.state)
    world = World(
        servers=options.servers,
        max_runs=max(2, options.users // 3),
        clock=clock,
        rng=random.Random(f"{options.seed}:world"),
    )
    try:
        async with AsyncExitStack() as stack:
            with report.timed("start"):
                await stack.enter_async_context(world)
            swarm = Swarm(world.urls, seed=report.seed, users=report.users)
            try:
                await _break_and_check(world, swarm, report, names)
            finally:
                if options.keep:
                    keep_recording(swarm.recording, options.keep)
            with report.timed("end"):
                await stack.aclose()
        report.faults = {**report.faults, **clock.counts}
        report.findings += check_world(world, report.memory) + check_left(world)
        report.takeovers = takeovers(world)
    finally:
        world.remove(options.keep)
    return report


async def _break_and_check(world: World, swarm: Swarm, report: Report, names: frozenset[str]) -> None:
    os.environ["CHAOS_TOOL_LOG"] = str(world.tool_log)
    faults = Faults(world, seed=report.seed, seconds=report.seconds, names=names)
    loading = asyncio.ensure_future(swarm.load())
    breaking = asyncio.ensure_future(faults.run())
    try:
        # Neither ends by itself: one that does has failed, and says how.
        done, _ = await asyncio.wait({loading, breaking}, timeout=report.seconds, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
            raise AssertionError("the load, or the faults, ended by themselves")
        with report.timed("mend"):
            await _cancel(breaking)
            await world.mend()
    finally:
        await _cancel(loading, breaking)
    with report.timed("settle"):
        await swarm.settle(timeout_s=_SETTLE_S)
    report.load = swarm.counts
    with report.timed("check"):
        report.findings += swarm.check() + await check_database(world.database)
    report.faults = {**faults.counts, **world.counts}
    report.memory = world.memory()
    (row,) = await world.database.fetch("SHOW server_version")
    report.versions = _versions() | {"postgresql": row[0]}


async def _cancel(*tasks: "asyncio.Future[Any]") -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _versions() -> dict[str, str]:
    packages = ("asyncpg", "uvicorn", "websockets")
    return {"agentws": VERSION, "python": platform.python_version(), "system": platform.platform()} | {
        name: importlib.metadata.version(name) for name in packages
    }


def _names(text: str) -> Sequence[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if unknown := set(names) - set(FAULTS):
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(FAULTS)}")
    return names


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m scripts.chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long things break (60)")
    parser.add_argument("--seed", type=int, help="of the schedule and the load (a random one)")
    parser.add_argument("--users", type=int, default=24, help="how many people use it (24)")
    parser.add_argument("--servers", type=int, choices=(1, 2), default=2, help="how many servers (2)")
    parser.add_argument("--faults", type=_names, default=FAULTS, help=f"only these, of {','.join(FAULTS)}")
    parser.add_argument("--no-minimum", dest="minimum", action="store_false", help="demand no number of anything")
    parser.add_argument("--minimum", choices=("scaled",), default="scaled", help="what has to be reached (scaled)")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="where logs and recordings are kept")
    return parser.parse_args(arguments)


async def _run_until_told(options: argparse.Namespace) -> Report:
    """A SIGTERM ends it as Ctrl-C does: nothing is left."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await run(options)


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    options = _options(arguments)
    if options.seed is None:
        options.seed = secrets.randbits(31)
    print(f"seed {options.seed}", file=sys.stderr, flush=True)
    # Whatever hangs, the harness does not.
    faulthandler.dump_traceback_later(2 * options.seconds + _MOST_S, exit=True)
    report = asyncio.run(_run_until_told(options))
    faulthandler.cancel_dump_traceback_later()
    print(json.dumps(report.shown(minimum=bool(options.minimum)), indent=1))
    return 1 if report.findings or (options.minimum and report.below()) else 0


if __name__ == "__main__":
    sys.exit(main())
