"""Measures that a slow reader costs bounded memory, that the others do not notice, and that it gets everything.

`python -m scripts.slow_reader` starts a server and gives it the same load in rounds, with every client fast and with
one that reads 2 KB a second, in turns (ABBA), so that a machine that becomes slower in between is slower for both.
"""

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import msgspec
import uvloop

from scripts.bench_load import percentile
from scripts.paced_reader import PacedReader
from scripts.slow_agents import WORDS_PER_S

__all__ = ["Answer", "Measured", "SlowReaderError", "main"]

_ROOT = Path(__file__).parent.parent
_READY = "agentws ready on "
_GOAL = 1.1
_SLOW_CHUNK, _SLOW_PAUSE_S, _SLOW_BUFFER = 2048, 1.0, 4096
_SAMPLE_S = 0.25
_LAST_WORDS_S = 60.0
_ANSWER_BYTES = 400_000
_MEMORY = "/dev/shm"


class SlowReaderError(Exception):
    """Something was not as promised."""


class _Payload(msgspec.Struct):
    text: str = ""
    offset: int = 0
    response: str | None = None


class _Seen(msgspec.Struct):
    type: str
    seq: int = 0
    from_seq: int | None = None
    payload: _Payload | None = None


_decode = msgspec.json.Decoder(_Seen).decode


class Answer:
    """One run as its reader sees it: every number once, in order, and the text by its offsets."""

    def __init__(self) -> None:
        self.text = ""
        self._seq: int | None = None

    def take(self, frame: bytes) -> str | None:
        """Takes the next frame; returns what it says of the answer, or None where it has ended.

        Raises:
            SlowReaderError: if it should not have come, or not now.
        """
        seen = _decode(frame)
        if seen.type == "request_accepted":
            self._seq = seen.seq
        if self._seq is None or seen.payload is None:
            if seen.type == "error":
                raise SlowReaderError(frame.decode())
            return ""
        if (seen.from_seq or seen.seq) != self._seq + 1:
            raise SlowReaderError(f"number {seen.from_seq or seen.seq} after {self._seq}")
        self._seq = seen.seq
        if seen.type == "agent_message":
            if seen.payload.offset != len(self.text):
                raise SlowReaderError(f"a piece at {seen.payload.offset} after {len(self.text)}")
            self.text += seen.payload.text
            return seen.payload.text
        if seen.type == "agent_completed":
            if seen.payload.response != self.text:
                raise SlowReaderError("the pieces are not the answer")
            return None
        if seen.type in ("agent_error", "agent_stopped"):
            raise SlowReaderError(frame.decode())
        return ""


@dataclass
class Measured:
    """What rounds of one kind came to: `delays_s` a round, and the server's bytes, of memory and of its queues."""

    delays_s: list[list[float]] = field(default_factory=list)
    rss_before: list[int] = field(default_factory=list)
    rss_peak: list[int] = field(default_factory=list)
    queued_peak: list[int] = field(default_factory=list)

    def at(self, share: float) -> float:
        """The median over the rounds of a percentile, in milliseconds."""
        return 1000 * median(percentile(each, share) for each in self.delays_s)


@dataclass(frozen=True)
class _Server:
    pid: int
    http_url: str

    @property
    def ws_url(self) -> str:
        return self.http_url.replace("http", "ws", 1) + "/ws"

    def rss(self) -> int:
        """Its memory, in bytes."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def queued(self) -> int:
        """How many bytes it holds for its clients."""
        with urllib.request.urlopen(self.http_url + "/metrics", timeout=30) as answer:
            lines = answer.read().decode().splitlines()
        return int(float(next(line.split()[1] for line in lines if line.startswith("agentws_queue_bytes "))))


@contextmanager
def _served(directory: str) -> Iterator[_Server]:
    """A server on the database of the environment, or on one of its own."""
    command = [sys.executable, "-m", "agentws", "serve", "--port", "0", "--agents", "scripts.slow_agents:agents"]
    if "AGENTWS_DATABASE_URL" not in os.environ:
        command += ["--data-dir", directory]
    env = {**os.environ, "AGENTWS_ENV": "development", "AGENTWS_LOG_LEVEL": "warning"}
    process = subprocess.Popen(command, cwd=_ROOT, env=env, text=True, stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process, process.stdout:
        try:
            line = process.stdout.readline()
            if not line.startswith(_READY):
                raise SlowReaderError(f"the server did not start: {line!r}")
            yield _Server(process.pid, line.removeprefix(_READY).strip())
        finally:
            process.terminate()


async def _watch(reader: PacedReader, delays_s: list[float], *, words: int) -> None:
    """A run of a fast client; each of its words is a time."""
    answer, rest = Answer(), ""
    await reader.send(type="user_message", payload={"content": str(words), "agent": "paced"})
    async for frame in reader.frames():
        now = time.monotonic()
        text = answer.take(frame)
        if text is None:
            return
        *times, rest = (rest + text).split(" ")
        delays_s.extend(now - float(each) for each in times)
    raise SlowReaderError("the server has closed a fast client")


async def _read_large(reader: PacedReader, size: int) -> None:
    """A run whose answer is large, read at the reader's pace."""
    answer = Answer()
    await reader.send(type="user_message", payload={"content": str(size), "agent": "large"})
    async for frame in reader.frames():
        if answer.take(frame) is None:
            return
    raise SlowReaderError(f"the server has closed the large answer's reader: {reader.closed_with}")


@asynccontextmanager
async def _sampled(server: _Server, measured: Measured) -> AsyncIterator[None]:
    """The block in which a server's memory is looked at."""
    rss, queued = [server.rss()], [0]

    async def sample() -> None:
        while True:
            rss.append(server.rss())
            queued.append(await asyncio.to_thread(server.queued))
            await asyncio.sleep(_SAMPLE_S)

    task = asyncio.create_task(sample())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    measured.rss_before.append(rss[0])
    measured.rss_peak.append(max(rss))
    measured.queued_peak.append(max(queued))


async def _round(server: _Server, options: argparse.Namespace, measured: Measured, *, slow: bool) -> None:
    """All users have a run each `--seconds`, spread over them; the large answer is read slowly or not."""
    names = [f"user{number}" for number in range(options.users)]
    readers = [await PacedReader.connect(server.ws_url, name) for name in names]
    delays_s: list[float] = []

    async def watch(reader: PacedReader, start_s: float) -> None:
        await asyncio.sleep(start_s)
        await _watch(reader, delays_s, words=options.words)

    reader = await PacedReader.connect(server.ws_url, "reader", receive_buffer=_SLOW_BUFFER if slow else 0)
    if slow:
        reader.chunk, reader.pause_s = _SLOW_CHUNK, _SLOW_PAUSE_S
    readers.append(reader)
    try:
        async with asyncio.timeout(options.seconds + _LAST_WORDS_S), asyncio.TaskGroup() as group:
            async with _sampled(server, measured):
                large = group.create_task(_read_large(reader, options.bytes))
                async with asyncio.TaskGroup() as fast:
                    for place, each in enumerate(readers[:-1]):
                        fast.create_task(watch(each, place * options.seconds / options.users))
            if slow and large.done():
                raise SlowReaderError("the slow reader had everything before the others: it was not slow")
            # It goes on as fast as it can, to the end.
            reader.chunk, reader.pause_s = 64 * 1024, 0.0
            await large
    finally:
        for each in readers:
            each.close()
    measured.delays_s.append(delays_s)


async def _measure(server: _Server, options: argparse.Namespace) -> tuple[Measured, Measured]:
    without, with_slow = Measured(), Measured()
    await _round(server, options, Measured(), slow=False)  # to warm up
    for number in range(options.rounds):
        order = (False, True, True, False) if number % 2 == 0 else (True, False, False, True)
        for slow in order:
            await _round(server, options, with_slow if slow else without, slow=slow)
            print("." if not slow else "s", end="", flush=True)
    print()
    return without, with_slow


def _report(without: Measured, with_slow: Measured) -> float:
    """Prints what came of it; returns the ratio of the 99th percentiles."""
    mb = 1e6
    for title, measured in (("all fast", without), ("one at 2 KB/s", with_slow)):
        print(
            f"{title:>14}: p50 {measured.at(0.5):7.2f} ms  p99 {measured.at(0.99):7.2f} ms"
            f"  words {sum(map(len, measured.delays_s))}"
            f"  p99 of rounds {' '.join(f'{1000 * percentile(each, 0.99):.1f}' for each in measured.delays_s)}"
        )
        print(
            f"{'':>14}  server RSS {median(measured.rss_before) / mb:.1f} MB before, at most"
            f" {max(measured.rss_peak) / mb:.1f} MB; queued for its clients at most {max(measured.queued_peak)} bytes"
        )
    ratio = with_slow.at(0.99) / without.at(0.99)
    print(f"p99 with / without: {ratio:.3f} (goal: at most {_GOAL}); the slow reader got everything, once, in order")
    return ratio


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures; returns 0, or 1 where the fast clients noticed the slow one or something was lost."""
    parser = argparse.ArgumentParser(prog="slow_reader", description=main.__doc__)
    parser.add_argument("--users", type=int, default=200, help="fast clients")
    parser.add_argument("--words", type=int, default=40, help=f"of each run, {WORDS_PER_S} a second")
    parser.add_argument("--seconds", type=float, default=10.0, help="over which the runs of a round begin")
    parser.add_argument("--rounds", type=int, default=2, help="of four turns each")
    parser.add_argument("--bytes", type=int, default=_ANSWER_BYTES, help="of the large answer")
    parser.add_argument("--no-goal", action="store_true", help="measure only")
    options = parser.parse_args(arguments)
    # Where there is memory for it: a disk has stalls of its own, which are no reader's fault.
    place = _MEMORY if os.access(_MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="agentws-slow-", dir=place) as directory, _served(directory) as server:
        Path(directory).chmod(0o755)
        try:
            ratio = _report(*uvloop.run(_measure(server, options)))
        except (SlowReaderError, TimeoutError, OSError, ExceptionGroup) as error:
            print(f"slow_reader: {_first(error)!r}", file=sys.stderr)
            return 1
    return 0 if options.no_goal or ratio <= _GOAL else 1


def _first(error: Exception) -> Exception:
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error


if __name__ == "__main__":
    sys.exit(main())
