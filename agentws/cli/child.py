"""A worker as its parent sees it: begun, known to serve or to have failed, told to go, known to have ended."""

import asyncio
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.spawn import get_command_line
from typing import Self

from agentws.cli.control import HURRY, MAKE_ROOM, Answer, Handover
from agentws.settings import Settings

__all__ = ["Child"]

# Where the parent finds modules the worker finds them, however it was started; `-P` keeps all else away until then.
_BOOT = (
    "import sys; sys.path[:] = {path!r}; "
    "from agentws.cli.worker import serve_as_worker; sys.exit(serve_as_worker({control}))"
)


class Child:
    """One process that serves. Made by `begin`; `reap` has to be called whenever some child process has ended.

    Args:
        number: of the worker that it is.
    """

    def __init__(self, number: int, process: "subprocess.Popen[bytes]", control: socket.socket) -> None:
        self.number = number
        self._process = process
        self._control = control
        self._said = b""
        self._answer: Answer | None = None
        self._served_since: float | None = None
        self._served_s = 0.0
        self._answered = asyncio.Event()
        self._ended = asyncio.Event()
        control.setblocking(False)
        asyncio.get_running_loop().add_reader(control, self._hear)

    @classmethod
    def begin(cls, number: int, settings: Settings, *, agents: str | None, sockets: Sequence[socket.socket]) -> Self:
        """Starts a process that will serve.

        Raises:
            OSError: if the system has no room for one.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            descriptors = [each.fileno() for each in sockets]
            process = subprocess.Popen(
                _command(number, theirs.fileno()),
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), *descriptors),
                # So that Ctrl-C in a terminal, which signals a whole group, reaches the parent alone.
                start_new_session=True,
            )
            handover = Handover(settings=settings, agents=agents, worker=number, sockets=descriptors)
            with suppress(OSError):  # it has ended
                ours.sendall(handover.line())
        return cls(number, process, ours)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def failed(self) -> bool:
        """Whether it has ended otherwise than by doing what it was told."""
        return self._process.returncode not in (None, 0, -signal.SIGTERM)

    @property
    def served_s(self) -> float:
        """For how many seconds one that has ended took connections."""
        return self._served_s

    async def serves(self) -> str | None:
        """Waits until it takes connections: None; or the line that says why it cannot."""
        await self._answered.wait()
        if self._answer is not None:
            return self._answer.failure
        return f"worker {self.number} {await self.ended()} while it was starting"

    async def ended(self) -> str:
        """Waits until it has ended; returns how."""
        await self._ended.wait()
        status = self._process.returncode
        return f"ended with status {status}" if status >= 0 else f"was killed by {signal.Signals(-status).name}"

    def leave(self) -> None:
        """Tells it to drain and to end; again, nothing."""
        self._process.terminate()

    def make_room(self) -> None:
        """As `leave`, while others serve: who connects from now on is theirs."""
        self._tell(MAKE_ROOM)

    def hurry(self) -> None:
        """Ends the time that its runs are given."""
        self._tell(HURRY)

    def _tell(self, line: bytes) -> None:
        with suppress(OSError):  # it is ending
            self._control.send(line)

    def reap(self) -> bool:
        """Whether it has ended."""
        if self._process.poll() is None:
            return False
        self._hear()
        self._stop_hearing()
        if self._served_since is not None:
            self._served_s = time.monotonic() - self._served_since
        self._control.close()
        self._ended.set()
        return True

    def _hear(self) -> None:
        if self._answered.is_set():
            return
        try:
            heard = self._control.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            heard = b""
        self._said += heard
        if self._said.endswith(b"\n"):
            self._answer = Answer.of(self._said)
            if self._answer.failure is None:
                self._served_since = time.monotonic()
        if self._answer is not None or not heard:
            self._stop_hearing()

    def _stop_hearing(self) -> None:
        asyncio.get_running_loop().remove_reader(self._control)
        self._answered.set()


def _command(number: int, control: int) -> list[str]:
    flags = get_command_line()[1:-3]  # those that this interpreter was given
    boot = _BOOT.format(path=[str(place) for place in sys.path], control=control)
    return [sys.executable, *flags, "-P", "-c", boot, "agentws", "worker", str(number)]
