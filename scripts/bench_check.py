"""How many durable runs a second agentws does beside a floor without features, on one PostgreSQL, in one sitting.

Figures of a machine drift, so the servers take turns, and what counts is the ratio within each turn. Everything runs on
this machine's loopback address and in temporary directories, and is gone at the end. `python -m scripts.bench_check`
"""

import argparse
import asyncio
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import asyncpg
import msgspec

from agentws.store.embedded import EmbeddedPostgres
from agentws.store.migrate import make_database, migrate
from scripts import floor
from scripts.bench_load import Order, Round

__all__ = ["BenchError", "Measured", "Stage", "aligned", "main", "ratios", "stage_table", "top_functions"]

ROOT = Path(__file__).parent.parent
LOGIN = "agentws"
FLOORS = {"floor-2": 2, "floor-3": 3}
COMMITS = {**FLOORS, "agentws": 3}
_LEAD_S = 0.25
_PROFILE_S = 4.0
# In shared memory and exact at once, where the counters of pg_stat_database come up to ten seconds late.
_COUNTERS = """
    SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint AS wal,
        pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS transactions
"""
_SERVER = "SELECT " + ", ".join(
    f"current_setting('{name}')" for name in ("server_version", "fsync", "synchronous_commit")
)
_ROWS = "SELECT coalesce(sum(n_tup_ins + n_tup_upd + n_tup_del), 0)::bigint FROM pg_stat_user_tables"
_OTHERS = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()
"""


class BenchError(Exception):
    """The benchmark cannot be carried out, or a server did not do what it has to."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A round, and for each of its runs the WAL in bytes, the commits that wrote, and the server's CPU time."""

    round: Round
    wal: float
    commits: float
    server_ms: float


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Rounds of all servers under the same load: the n-th of each belong together."""

    title: str
    order: Order
    rounds: Mapping[str, list[Measured]]


# What is printed


def ratios(stage: Stage, name: str, base: str) -> list[float]:
    """How many runs a second one server made for each of another's, turn by turn."""
    pairs = zip(stage.rounds[name], stage.rounds[base], strict=True)
    return [own.round.rate / other.round.rate for own, other in pairs]


def spread(values: Sequence[float], form: str) -> str:
    """Median and range."""
    return f"{median(values):{form}} ({min(values):{form}}–{max(values):{form}})"  # noqa: RUF001


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Columns of text, the first to the left and the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    padded = ([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])] for row in rows)
    return "\n".join("  ".join(cells) for cells in padded)


def stage_table(stage: Stage) -> str:
    """The stage's servers, one a line, and the ratios below."""
    rows = [("", "runs/s", "p50 ms", "p95 ms", "WAL B/run", "commits/run", "server CPU ms", "client CPU ms", "early")]
    for name, rounds in stage.rounds.items():
        rows.append(
            (
                name,
                spread([each.round.rate for each in rounds], ".0f"),
                f"{median(each.round.p50_ms for each in rounds):.1f}",
                f"{median(each.round.p95_ms for each in rounds):.1f}",
                f"{median(each.wal for each in rounds):.0f}",
                f"{median(each.commits for each in rounds):.2f}",
                f"{median(each.server_ms for each in rounds):.2f}",
                f"{median(each.round.client_ms for each in rounds):.2f}",
                f"{median(each.round.early for each in rounds):.0%}",
            )
        )
    told = [f"agentws / {base}: {spread(ratios(stage, 'agentws', base), '.2f')}" for base in reversed(FLOORS)]
    return "\n".join((stage.title, aligned(rows), "   ".join(told)))


def top_functions(raw: str, most: int) -> list[tuple[str, float]]:
    """Functions by their share of the samples in which nothing was called by them, from py-spy's raw format.

    Args:
        raw: lines of frames, outermost first and separated by ";", and a count.
        most: how many functions.
    """
    counts: dict[str, int] = {}
    for line in raw.splitlines():
        stack, _, count = line.rpartition(" ")
        function = stack.rpartition(";")[2]
        counts[function] = counts.get(function, 0) + int(count)
    whole = sum(counts.values())
    ranked = sorted(counts.items(), key=lambda item: -item[1])
    return [(function, count / whole) for function, count in ranked[:most]]


# Processes


@dataclass
class _Process:
    """A child that says on its standard output when it is ready; what it says beside goes to `log`."""

    command: Sequence[str]
    log: Path
    env: Mapping[str, str] = field(default_factory=dict)
    _child: "subprocess.Popen[str] | None" = None

    @property
    def child(self) -> "subprocess.Popen[str]":
        assert self._child is not None
        return self._child

    @contextmanager
    def running(self) -> Iterator["_Process"]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("AGENTWS_")}
        with self.log.open("w") as log:
            self._child = subprocess.Popen(
                [sys.executable, "-m", *self.command],
                env={**inherited, **self.env},
                cwd=ROOT,
                text=True,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
            )
        try:
            yield self
        finally:
            self.stop()

    def stop(self) -> None:
        """Asks it to end, at once where it does not."""
        self.child.terminate()
        try:
            self.child.communicate(timeout=15)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.communicate()

    def line(self) -> str:
        """Its next line."""
        assert self.child.stdout is not None
        line = self.child.stdout.readline()
        if not line:
            told = "\n".join(self.log.read_text(errors="replace").splitlines()[-20:])
            raise BenchError(f"{' '.join(self.command)} has ended:\n{told}")
        return line.strip()

    def ask(self, line: str) -> str:
        """Gives it a line; returns the one that it answers."""
        assert self.child.stdin is not None
        self.child.stdin.write(line + "\n")
        self.child.stdin.flush()
        return self.line()

    def cpu_s(self) -> float:
        """The CPU time that it has used; NaN where the system has no /proc."""
        try:
            told = Path(f"/proc/{self.child.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return math.nan
        return (int(told[11]) + int(told[12])) / os.sysconf("SC_CLK_TCK")


@dataclass
class _Server:
    """A server under test, its database and its load."""

    url: str
    process: _Process
    load: _Process
    all_runs: int = 0

    def measure(self, order: Order) -> Measured:
        """One round. Raises BenchError where a run was not as it has to be."""
        before, cpu_s = _fetch(self.url, _COUNTERS), self.process.cpu_s()
        told = msgspec.json.decode(self.load.ask(msgspec.json.encode(order).decode()), type=Round)
        if told.broken or not told.runs:
            raise BenchError(f"{self.process.command[0]}: {told.broken or 'no run has ended'}")
        cpu_s, after = self.process.cpu_s() - cpu_s, _fetch(self.url, _COUNTERS)
        self.all_runs += told.all_runs
        return Measured(
            round=told,
            wal=(after["wal"] - before["wal"]) / told.all_runs,
            commits=(after["transactions"] - before["transactions"]) / told.all_runs,
            server_ms=cpu_s * 1000 / told.all_runs,
        )

    def rows(self) -> float:
        """Rows written a run since the database was made; ends load and server, whose backends tell only then."""
        self.load.stop()
        self.process.stop()
        limit = time.monotonic() + 10
        while _fetch(self.url, _OTHERS)[0] and time.monotonic() < limit:
            time.sleep(0.02)
        return float(_fetch(self.url, _ROWS)[0]) / self.all_runs


def _fetch(url: str, query: str) -> Any:
    """The one row of a query, over a connection of its own."""

    async def fetch() -> Any:
        connection = await asyncpg.connect(url)
        try:
            return await connection.fetchrow(query)
        finally:
            await connection.close()

    return asyncio.run(fetch())


@contextmanager
def _cluster(directory: Path) -> Iterator[EmbeddedPostgres]:
    """A PostgreSQL of this benchmark's own, with fsync on."""
    data = directory / "data"
    postgres = EmbeddedPostgres(data)
    try:
        postgres.start()
        yield postgres
    finally:
        postgres.stop()
        for link in data.glob("moved-to"):
            shutil.rmtree(link.readlink(), ignore_errors=True)


def _start(stack: ExitStack, postgres: EmbeddedPostgres, directory: Path, name: str) -> _Server:
    """Makes a database, its schema, a server on it and a load for that."""
    database = name.replace("-", "_")
    login = floor.LOGIN if name in FLOORS else LOGIN
    owner = postgres.url(user="postgres", database=database)
    own = postgres.url(user=login, database=database)
    asyncio.run(_make(postgres.url(user="postgres", database="postgres"), owner, database=database, login=login))
    command = ["scripts.floor", f"--database-url={own}", f"--commits={FLOORS.get(name)}"]
    env = {}
    if name not in FLOORS:
        command = ["agentws", "serve", "--port=0", "--agents=scripts.bench_agent:agents"]
        env = {"AGENTWS_DATABASE_URL": own, "AGENTWS_MIGRATE_URL": owner, "AGENTWS_DATA_DIR": str(directory / name)}
        env |= {"AGENTWS_RATE_LIMIT_PER_S": "1e9"}  # Counted, and never reached.
    process = stack.enter_context(_Process(command, directory / f"{name}.log", env).running())
    ready = process.line()
    place = ready.partition(" ready on http://")[2]
    if not place:
        raise BenchError(f"{command[0]} said {ready!r} instead of where it serves")
    load = _Process(["scripts.bench_load", f"ws://{place}"], directory / f"{name}-load.log")
    return _Server(owner, process, stack.enter_context(load.running()))


async def _make(url: str, owner: str, *, database: str, login: str) -> None:
    await make_database(url, database=database, login=login)
    if login == LOGIN:
        await migrate(owner, login=LOGIN)
        return
    connection = await asyncpg.connect(owner)
    try:
        await connection.execute(floor.SCHEMA)
    finally:
        await connection.close()


# The run


def _take_turns(servers: Mapping[str, _Server], title: str, order: Order, rounds: int) -> Stage:
    stage = Stage(title=title, order=order, rounds={name: [] for name in servers})
    for _ in range(rounds):
        for name, server in servers.items():
            stage.rounds[name].append(server.measure(order))
    for name, measured in stage.rounds.items():
        if min(each.commits for each in measured) < COMMITS[name] - 0.1:
            raise BenchError(f"{name} commits less than {COMMITS[name]} times a run: not before its tool")
        if order.agent == "bench_slow" and name != "floor-2" and not any(each.round.early for each in measured):
            raise BenchError(f"{name} never showed tool_executing before the tool had returned")
    return stage


def _profile(server: _Server, order: Order, directory: Path) -> str:
    """The top functions of a server under load, or why they cannot be told."""
    output = directory / "profile.txt"
    command = ["record", "--pid", str(server.process.child.pid), "--rate", "200", "--format", "raw", "--function"]
    found = shutil.which("py-spy", path=os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", ""))))
    if found is None:
        return "py-spy is not installed: no profile"
    spy = subprocess.Popen(
        [found, *command, "--duration", f"{_PROFILE_S:g}", "--output", str(output)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        server.measure(msgspec.structs.replace(order, seconds=_PROFILE_S + 0.5))
        told = spy.communicate(timeout=30)[0]
    finally:
        spy.kill()
        spy.communicate()
    if spy.returncode != 0 or not output.exists():
        return f"py-spy cannot attach to the server: {told.strip()}"
    rows = [(name, f"{share:.1%}") for name, share in top_functions(output.read_text(), 10)]
    return f"agentws by its own time (C code counts for its caller), {order.users} users\n{aligned(rows)}"


def _measure(options: argparse.Namespace, directory: Path) -> dict[str, Any]:
    """Everything in its order; prints each part when it is there."""
    with ExitStack() as stack:
        postgres = stack.enter_context(_cluster(directory))
        servers = {name: _start(stack, postgres, directory, name) for name in COMMITS}
        told = _fetch(servers["agentws"].url, _SERVER)
        load = f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores before"
        print(f"PostgreSQL {told[0]}, fsync {told[1]}, synchronous_commit {told[2]}; {load}")
        many = Order(users=options.users, agent="bench", seconds=options.seconds, lead_s=_LEAD_S)
        orders = [many, msgspec.structs.replace(many, users=1, seconds=options.seconds / 2)]
        if options.slow_tool:
            orders.append(msgspec.structs.replace(many, agent="bench_slow", seconds=options.seconds / 2))
        _take_turns(servers, "warm-up", msgspec.structs.replace(many, seconds=options.seconds / 4), 1)
        stages = []
        for order in orders:
            tool = "a tool of 5 ms" if order.agent == "bench_slow" else "a tool that returns at once"
            title = f"users at once: {order.users}; {tool}; {options.rounds} rounds of {order.seconds:g} s"
            stages.append(_take_turns(servers, title, order, options.rounds))
            print(f"\n{stage_table(stages[-1])}", flush=True)
        profile = _profile(servers["agentws"], many, directory) if options.profile else None
        rows = {name: server.rows() for name, server in servers.items()}
        print("\nrows written a run: " + ", ".join(f"{name} {count:.1f}" for name, count in rows.items()))
        if profile is not None:
            print(f"\n{profile}")
    told_ratios = [{base: median(ratios(stage, "agentws", base)) for base in FLOORS} for stage in stages]
    return {"stages": stages, "ratios": told_ratios, "rows": rows, "profile": profile}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and prints; returns 0, or 1 where something failed."""
    parser = argparse.ArgumentParser(prog="bench_check", description=__doc__)
    parser.add_argument("--users", type=int, default=20, help="users at once (default 20); one user is measured too")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each server (default 5)")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of a round (default 2; half for one user)")
    parser.add_argument("--slow-tool", action=argparse.BooleanOptionalAction, default=True, help="a tool of 5 ms too")
    parser.add_argument("--profile", action=argparse.BooleanOptionalAction, default=True, help="py-spy on agentws")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    options = parser.parse_args(arguments)
    if options.users < 1 or options.rounds < 1 or options.seconds <= 0:
        parser.error("users, rounds and seconds have to be more than 0")
    directory = Path(tempfile.mkdtemp(prefix="agentws-bench-"))
    # The account that PostgreSQL runs as under root has to pass.
    directory.chmod(0o755)
    try:
        figures = _measure(options, directory)
    except (BenchError, subprocess.SubprocessError, asyncpg.PostgresError, OSError) as error:
        print(f"bench_check: {error}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    if options.json is not None:
        options.json.write_bytes(msgspec.json.format(msgspec.json.encode(figures)) + b"\n")
    return 0


if __name__ == "__main__":
    # An exception ends what was started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())
