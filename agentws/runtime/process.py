"""Runs a program for a tool: nothing of it is left when the call is over, however it ends, and its output is bounded.

It has a process group of its own, which is ended as a whole. A second process waits beside it and ends the group where
this one is killed: a death signal would reach the program only and not what it has started, and would have to be asked
for in Python between fork and exec, which is not safe beside threads.
"""

import asyncio
import contextlib
import logging
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Coroutine, Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any

__all__ = ["ProcessError", "ProcessResult", "run_process"]

log = logging.getLogger("agentws.runtime")

MAX_OUTPUT_BYTES = 1024 * 1024
_TERMINATE_S = 2.0
_REAP_S = 2.0
_SOON_S = 0.002
_STAT_BYTES = 4096
_READ_BYTES = 64 * 1024
# What a pipe can hold at most, unless an administrator has changed it.
_PIPE_BYTES = 1024 * 1024
# Ends the group of its first line when its input ends without a second one, as it does when this process is killed.
_WATCH = 'read -r group && { read -r _ || { kill -TERM "-$group"; sleep 2; kill -KILL "-$group"; }; } 2>/dev/null'


class ProcessError(RuntimeError):
    """A program could not be started; the text says which and why."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ProcessResult:
    """How a program has ended.

    Attributes:
        returncode: its exit status; the negative number of the signal that ended it.
        stdout, stderr: what it has written, as text; what is not UTF-8 is replaced.
        stdout_truncated, stderr_truncated: whether it has written more than was kept.
    """

    returncode: int
    stdout: str
    stderr: str
    stdout_truncated: bool
    stderr_truncated: bool


async def run_process(
    *command: str | os.PathLike[str],
    input: str | bytes | None = None,
    cwd: str | os.PathLike[str] | None = None,
    env: Mapping[str, str] | None = None,
    timeout_s: float | None = None,
    max_output_bytes: int = MAX_OUTPUT_BYTES,
) -> ProcessResult:
    """Runs a program to its end, without a shell; cancelled or out of time, it ends it and all that it has started.

    They get SIGTERM, and SIGKILL 2 s later or when this call is cancelled once more. What the program leaves running in
    its process group when it ends by itself is ended in the same way. What has made a session of its own is not found.

    Args:
        command: the program, looked for in PATH, and its arguments.
        input: what it reads from its standard input; None: nothing.
        cwd: its directory; None: this process's.
        env: all of its environment variables; None: this process's, but those of agentws, which hold secrets.
        timeout_s: how long it may take, in seconds; None: any time.
        max_output_bytes: how much is kept of each of its outputs; the rest is read and dropped.

    Raises:
        ProcessError: if it cannot be started.
        TimeoutError: if it has not ended in time.
    """
    if not command:
        raise ProcessError("a command needs at least a program")
    process = _Process.start(
        [os.fspath(each) for each in command], input=input, cwd=cwd, env=env, most_bytes=max_output_bytes
    )
    try:
        async with asyncio.timeout(timeout_s):
            await process.main.ended()
    except TimeoutError:
        raise TimeoutError(f"{os.fspath(command[0])!r} did not end within {timeout_s} s") from None
    finally:
        await process.end()
    return process.result()


class _Child:
    """A process of ours. Its number is not given to another before `reap` has returned True."""

    def __init__(self, popen: "subprocess.Popen[bytes]") -> None:
        self.popen = popen

    def reap(self) -> bool:
        """Whether it has ended."""
        return self.popen.poll() is not None

    async def ended(self) -> None:
        """Waits until it has ended, and reaps it."""
        if self.reap():
            return
        try:
            handle = os.pidfd_open(self.popen.pid) if sys.platform == "linux" else None
        except OSError:
            handle = None
        if handle is None:
            # The thread goes on where this is cancelled, until the process is ended, which is what follows.
            await asyncio.to_thread(self.popen.wait)
            return
        loop, gone = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(handle, gone.set)
        try:
            await gone.wait()
        finally:
            loop.remove_reader(handle)
            os.close(handle)
        self.reap()


class _Output:
    """What comes from a pipe, as far as it is kept."""

    def __init__(self, pipe: IO[bytes], most: int) -> None:
        self._pipe = pipe
        self._most = most
        self._kept = bytearray()
        self.truncated = False
        os.set_blocking(pipe.fileno(), False)
        asyncio.get_running_loop().add_reader(pipe.fileno(), self._read)

    @property
    def text(self) -> str:
        return self._kept.decode(errors="replace")

    def _read(self) -> int:
        """Takes what is there; returns how much that was."""
        try:
            data = os.read(self._pipe.fileno(), _READ_BYTES)
        except BlockingIOError:
            return 0
        if not data:
            asyncio.get_running_loop().remove_reader(self._pipe.fileno())
            return 0
        room = self._most - len(self._kept)
        self._kept += data[:room]
        self.truncated = self.truncated or len(data) > room
        return len(data)

    def finish(self) -> None:
        """Takes what the pipe still holds, without waiting for others who may have it open, and closes it."""
        left = _PIPE_BYTES
        while left > 0 and (taken := self._read()):
            left -= taken
        asyncio.get_running_loop().remove_reader(self._pipe.fileno())
        self._pipe.close()


@dataclass(frozen=True, slots=True)
class _Process:
    """A program, its outputs, and who watches that it does not outlive us; None where there is no shell."""

    main: _Child
    watch: _Child | None
    stdout: _Output
    stderr: _Output

    @classmethod
    def start(
        cls,
        command: list[str],
        *,
        input: str | bytes | None,
        cwd: str | os.PathLike[str] | None,
        env: Mapping[str, str] | None,
        most_bytes: int,
    ) -> "_Process":
        """Nothing is awaited here: from the first process on there is somebody who ends it."""
        watch = _start_watch()
        try:
            with _input(input) as given:
                popen = subprocess.Popen(
                    command,
                    stdin=given,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    cwd=cwd,
                    env=_environment() if env is None else dict(env),
                    start_new_session=True,
                )
        except (OSError, ValueError) as error:
            if watch is not None:
                _tell(watch, b"")
                watch.popen.wait()
            raise ProcessError(f"cannot start {command[0]!r}: {error}") from error
        if watch is not None:
            _tell(watch, b"%d\n" % popen.pid, last=False)
        assert popen.stdout is not None
        assert popen.stderr is not None
        return cls(_Child(popen), watch, _Output(popen.stdout, most_bytes), _Output(popen.stderr, most_bytes))

    async def end(self) -> None:
        """Ends what is still at work; however often it is cancelled, it sends the last signal and closes the pipes."""
        try:
            await self._end_group()
        finally:
            self.stdout.finish()
            self.stderr.finish()
            if self.watch is not None:
                _tell(self.watch, b"\n")
                await _within(self.watch.ended())

    async def _end_group(self) -> None:
        group = self.main.popen.pid
        ended = self.main.reap()
        if not _signal(group, signal.SIGTERM) and ended:
            return
        try:
            async with asyncio.timeout(_TERMINATE_S):
                await self._gone()
        except BaseException as error:
            _signal(group, signal.SIGKILL)
            if not await _within(self._gone()):
                log.error("process group %d does not end after SIGKILL; it is left", group)
            if not isinstance(error, TimeoutError):
                raise

    async def _gone(self) -> None:
        """Waits until nothing of the group is at work."""
        await self.main.ended()
        group, pause_s = self.main.popen.pid, 0.001
        while _signal(group, 0):
            # What has ended is mostly reaped at once; to look into each process is dear.
            if pause_s > _SOON_S and not await asyncio.to_thread(_at_work, group):
                return
            # Nothing tells when a process ends that is no child of ours.
            await asyncio.sleep(pause_s)
            pause_s = min(0.05, pause_s * 2)

    def result(self) -> ProcessResult:
        return ProcessResult(
            returncode=self.main.popen.returncode,
            stdout=self.stdout.text,
            stderr=self.stderr.text,
            stdout_truncated=self.stdout.truncated,
            stderr_truncated=self.stderr.truncated,
        )


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("AGENTWS_")}


@contextlib.contextmanager
def _input(given: str | bytes | None) -> Iterator[int | IO[bytes]]:
    """A file, so that nobody has to feed a pipe."""
    if given is None:
        yield subprocess.DEVNULL
        return
    with tempfile.TemporaryFile() as file:
        file.write(given.encode() if isinstance(given, str) else given)
        file.seek(0)
        yield file


def _start_watch() -> _Child | None:
    try:
        popen = subprocess.Popen(
            ["/bin/sh", "-c", _WATCH],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env={"PATH": os.defpath},
            start_new_session=True,
        )
    except OSError as error:
        log.debug("nobody watches over a process: %s", error)
        return None
    return _Child(popen)


def _tell(watch: _Child, line: bytes, *, last: bool = True) -> None:
    """Hands it a line, and after the last one the end of its input."""
    if watch.popen.stdin is not None:
        # Somebody else may have ended it.
        with contextlib.suppress(OSError):
            watch.popen.stdin.write(line)
        if last:
            watch.popen.stdin.close()


def _signal(group: int, number: int) -> bool:
    """Whether there is such a process group of ours; one whose members have all ended may still be there."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _at_work(group: int) -> bool:
    """Whether a process of the group has not ended; one that somebody else has still to reap has."""
    with contextlib.suppress(ChildProcessError):
        # Ours are those that lost their parent where this process is the first of its container.
        while os.waitpid(-group, os.WNOHANG) != (0, 0):
            pass
    if sys.platform != "linux":
        return True
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            # After the name, which may hold anything: the state, the parent, the group.
            state, _, its_group = file.read(_STAT_BYTES).rpartition(b")")[2].split(maxsplit=3)[:3]
            if int(its_group) == group and state not in b"ZX":
                return True
    return False


async def _within(wait: Coroutine[Any, Any, None]) -> bool:
    """Whether what is waited for came soon."""
    try:
        async with asyncio.timeout(_REAP_S):
            await wait
    except TimeoutError:
        return False
    return True
