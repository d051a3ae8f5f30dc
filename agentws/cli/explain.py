"""`agentws explain`: how a run's time went, by what the database holds of it; nothing that was said is shown."""

import argparse
import asyncio
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack

import msgspec

from agentws.cli.options import Commands, add_place, settings_of
from agentws.core.timeline import RunOutline, Span, Timeline, timeline
from agentws.observe.metrics import Metrics
from agentws.settings import Settings, SettingsError
from agentws.store.opening import find_database, open_database
from agentws.store.outlines import PgOutlines
from agentws.wire.codec import timestamp

__all__ = ["add_to", "lines"]

_WIDTH = 32


def add_to(commands: Commands) -> None:
    """Adds the command to a command line."""
    command = commands.add_parser("explain", help="how a run's time went: waiting, model, tools, database, sending")
    command.add_argument("run_id", metavar="RUN", help="the run's id")
    command.add_argument("--user", help="whose run it is (with auth 'dev', default: dev)")
    command.add_argument("--tenant", default="", help="the user's tenant, where there are several")
    add_place(command)
    command.set_defaults(run=_explain)


def _explain(options: argparse.Namespace) -> int:
    settings = settings_of(options)
    user = options.user or ("dev" if settings.auth == "dev" else None)
    if user is None:
        raise SettingsError("--user: a run's id is a name within its user; say whose it is")
    run = asyncio.run(_read(settings, tenant_id=options.tenant, user_id=user, run_id=options.run_id))
    if run is None:
        print(f"agentws: user {user!r} has no run {options.run_id!r}", file=sys.stderr)
        return 1
    print("\n".join(lines(run)))
    return 0


async def _read(settings: Settings, *, tenant_id: str, user_id: str, run_id: str) -> RunOutline | None:
    async with AsyncExitStack() as stack:
        found = await find_database(settings, stack)
        alone = msgspec.structs.replace(settings, pool_size=1)
        database = await open_database(found, alone, stack, meter=Metrics().store)
        return await PgOutlines(database).read(tenant_id=tenant_id, user_id=user_id, run_id=run_id)


def lines(run: RunOutline) -> Iterator[str]:
    """What is printed of a run."""
    told = timeline(run)
    yield f"run {run.run_id} of thread {run.thread_id}: agent {_printable(run.agent)}, {run.status}"
    yield f"accepted {timestamp(run.accepted_at)}, {_duration(told.total_s)} {'in all' if run.ended_at else 'so far'}"
    yield ""
    yield f"{'after':>10} {'for':>10}"
    for span in told.spans:
        length = _duration(span.length_s) if span.length_s else ""
        yield f"{_duration(span.start_s):>10} {length:>10} |{_bar(span, told.total_s)}| {_printable(span.what)}"
    yield ""
    for name, seconds in told.phases.items():
        share = seconds / told.total_s if told.total_s else 0.0
        yield f"{name:>10} {_duration(seconds):>10} {share:>6.1%}"
    yield from _beside(told)
    yield ""
    yield from (f"not known: {each}" for each in told.unknown)


def _beside(told: Timeline) -> Iterator[str]:
    """What went on beside the phases, while the agent worked."""
    times = told.times
    if times is None:
        return
    yield f"{'sending':>10} {_sending(times.deliveries, times.lag_us, times.worst_lag_us)}"
    took = _duration(times.append_us / 1e6)
    yield f"{'appends':>10} {times.appends}, which took {took}, mostly while the agent worked"


def _sending(deliveries: int, lag_us: int, worst_lag_us: int) -> str:
    if not deliveries:
        return "nothing was sent by the process that worked on it"
    mean = _duration(lag_us / deliveries / 1e6)
    return f"{deliveries} deliveries, {mean} after the commit on average, {_duration(worst_lag_us / 1e6)} at most"


def _bar(span: Span, total_s: float) -> str:
    """Where a span lies between the acceptance and the end."""
    if not total_s:
        return " " * _WIDTH
    first = min(_WIDTH - 1, int(span.start_s / total_s * _WIDTH))
    size = max(1, round(span.length_s / total_s * _WIDTH))
    mark = "#" if span.length_s else "."
    return (" " * first + mark * min(size, _WIDTH - first)).ljust(_WIDTH)


def _duration(seconds: float) -> str:
    if seconds < 1:
        return f"{seconds * 1000:.1f} ms"
    return f"{seconds:.2f} s"


def _printable(text: str) -> str:
    """A name that an agent's author or a tool's has chosen, without what a terminal would obey."""
    return "".join(each if each.isprintable() else "?" for each in text)
