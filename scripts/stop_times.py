"""How long a stop takes: from `stop_agent` to `agent_stopped`, and to the end of the tool that the agent hangs in.

A real server is started, with PostgreSQL of its own or the one of AGENTWS_DATABASE_URL, and asked over a WebSocket.
What a tool has ended is not taken from the server: processes are watched from here. `python -m scripts.stop_times`
"""

import argparse
import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from scripts.bench_check import aligned
from scripts.bench_load import percentile
from scripts.stop_agents import LINES, LOOK_S, agents

__all__ = ["StopError", "Times", "main", "table"]

ROOT = Path(__file__).parent.parent
_WAIT_S = 30.0
_SETTLE_S = 5.0
_TERMINAL = ("agent_completed", "agent_error", "agent_stopped")
_GAUGES = ("agentws_runs_in_flight", "agentws_abandoned_tasks", "agentws_tool_threads")


class StopError(Exception):
    """The times cannot be measured, or something was not stopped."""


@dataclass(frozen=True, kw_only=True)
class Times:
    """Of the runs of one kind of tool, in milliseconds from the sending of `stop_agent`."""

    kind: str
    told: list[float] = field(default_factory=list)
    ended: list[float] = field(default_factory=list)


def table(all_times: Sequence[Times]) -> str:
    """One line a kind and an end."""
    rows: list[tuple[str, ...]] = [("ms from stop_agent", "n", "p50", "p99", "max")]
    for times in all_times:
        for end, values in (("agent_stopped", times.told), ("the tool's end", times.ended)):
            figures = (percentile(values, 0.5), percentile(values, 0.99), max(values))
            rows.append((f"{times.kind}: {end}", str(len(values)), *(f"{each:.1f}" for each in figures)))
    return "\n".join(("", aligned(rows)))


class _Lines:
    """What tools tell of their runs."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        # Open for writing too, so that it does not end between two who tell.
        self._pipe = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        self._rest = b""
        self._told: dict[tuple[str, str], asyncio.Future[list[str]]] = {}
        asyncio.get_running_loop().add_reader(self._pipe, self._read)

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pipe)
        os.close(self._pipe)

    async def told(self, run_id: str, what: str) -> list[str]:
        """Waits until it has been told; returns the words with it."""
        return await self._future(run_id, what)

    def _future(self, run_id: str, what: str) -> "asyncio.Future[list[str]]":
        return self._told.setdefault((run_id, what), asyncio.get_running_loop().create_future())

    def _read(self) -> None:
        *lines, self._rest = (self._rest + os.read(self._pipe, 65536)).split(b"\n")
        for line in lines:
            run_id, what, *words = line.decode().split()
            self._future(run_id, what).set_result(words)


class _Talk:
    """One connection of a user."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket

    async def send(self, **frame: Any) -> float:
        """Returns when it was sent."""
        text = json.dumps(frame)
        sent = time.monotonic()
        await self._socket.send(text)
        return sent

    async def until(self, *types: str) -> tuple[dict[str, Any], float]:
        """The next frame of such a type, and when it came. Raises StopError at an error."""
        while True:
            frame = json.loads(await self._socket.recv())
            came = time.monotonic()
            if frame["type"] in types:
                return frame, came
            if frame["type"] == "error":
                raise StopError(f"the server said {frame['code']}")


async def _gone(pid: int) -> float:
    """Waits until a process has ended; returns when that was."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return time.monotonic()
    loop, ended = asyncio.get_running_loop(), asyncio.get_running_loop().create_future()

    def note() -> None:
        loop.remove_reader(handle)
        os.close(handle)
        ended.set_result(time.monotonic())

    loop.add_reader(handle, note)
    return float(await ended)


async def _stop_one(talk: _Talk, lines: _Lines, times: Times) -> None:
    await talk.send(type="chat", payload={"content": "hang", "agent": times.kind})
    accepted, _ = await talk.until("request_accepted")
    run_id = accepted["run_id"]
    watched: list[asyncio.Task[float]] = []
    if times.kind == "process":
        watched = [asyncio.create_task(_gone(int(pid))) for pid in await lines.told(run_id, "pids")]
        # They are watched from before the stop.
        await asyncio.sleep(0)
    else:
        await lines.told(run_id, "begun")
    sent = await talk.send(type="stop_agent", run_id=run_id)
    terminal, came = await talk.until(*_TERMINAL)
    if (terminal["type"], terminal["run_id"]) != ("agent_stopped", run_id):
        raise StopError(f"a run that was stopped ended in {terminal['type']}")
    ended = await asyncio.gather(*watched) if watched else map(float, await lines.told(run_id, "ended"))
    times.told.append((came - sent) * 1000)
    times.ended.append((max(ended) - sent) * 1000)


def _check_none_left(url: str) -> None:
    """Raises StopError where the server has still something at work after a while."""
    limit = time.monotonic() + _SETTLE_S
    while True:
        with urllib.request.urlopen(f"{url}/metrics", timeout=_WAIT_S) as answer:
            lines = answer.read().decode().splitlines()
        told = dict(line.rsplit(" ", 1) for line in lines if line[:1] not in ("#", ""))
        left = [f"{name} {told[name]}" for name in _GAUGES if float(told[name])]
        if not left:
            return
        if time.monotonic() > limit:
            raise StopError(f"the server still has {', '.join(left)}")
        time.sleep(0.05)


async def _measure(url: str, lines_path: Path, runs: int) -> list[Times]:
    lines = _Lines(lines_path)
    all_times = [Times(kind=kind) for kind in agents]
    try:
        async with _talk(url) as talk:
            for times in all_times:
                for _ in range(runs):
                    try:
                        async with asyncio.timeout(_WAIT_S):
                            await _stop_one(talk, lines, times)
                    except TimeoutError:
                        raise StopError(f"{times.kind}: a run or its tool was not stopped in {_WAIT_S:g} s") from None
        await asyncio.to_thread(_check_none_left, url)
    finally:
        lines.close()
    return all_times


@asynccontextmanager
async def _talk(url: str) -> AsyncIterator[_Talk]:
    async with connect(f"{url.replace('http', 'ws', 1)}/ws?user=stops") as socket:
        yield _Talk(socket)


@contextmanager
def _serving(directory: Path) -> Iterator[str]:
    """A server with the agents; its URL."""
    command = [sys.executable, "-m", "agentws", "serve", "--port=0", "--agents=scripts.stop_agents:agents"]
    if "AGENTWS_DATABASE_URL" not in os.environ:
        command.append(f"--data-dir={directory / 'data'}")
    env = {**os.environ, "AGENTWS_ENV": "development", "AGENTWS_AUTH": "dev", "AGENTWS_RATE_LIMIT_PER_S": "0"}
    with (directory / "server.log").open("wb") as log:
        server = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**env, LINES: str(directory / "lines")},
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    try:
        assert server.stdout is not None
        url = server.stdout.readline().strip().partition("agentws ready on ")[2]
        if not url:
            raise StopError(f"the server did not start:\n{(directory / 'server.log').read_text(errors='replace')}")
        yield url
    finally:
        server.send_signal(signal.SIGTERM)
        with server:
            server.wait(60)
        for link in (directory / "data").glob("moved-to"):
            shutil.rmtree(link.readlink(), ignore_errors=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and prints; returns 0, or 1 where a run, a tool or a process was left."""
    parser = argparse.ArgumentParser(prog="stop_times", description=__doc__)
    parser.add_argument("--runs", type=int, default=200, help="of each kind of tool (default 200)")
    options = parser.parse_args(arguments)
    if options.runs < 1:
        parser.error("runs have to be more than 0")
    if not hasattr(os, "pidfd_open"):
        parser.error("processes are watched through pidfd, which Linux has")
    directory = Path(tempfile.mkdtemp(prefix="agentws-stops-"))
    # The account that PostgreSQL runs as under root has to pass.
    directory.chmod(0o755)
    try:
        with _serving(directory) as url:
            print(table(asyncio.run(_measure(url, directory / "lines", options.runs))))
            print(f"\nthe thread looks every {LOOK_S * 1000:g} ms; nothing was left")
    except (StopError, OSError, subprocess.SubprocessError) as error:
        print(f"stop_times: {error}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    return 0


if __name__ == "__main__":
    # An exception ends what was started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())
