"""The command line's client commands as processes: on pipes, and on a terminal of the standard library's."""

import codecs
import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from ..processes import ROOT
from .screen import Screen

__all__ = ["Terminal", "clean_env", "on_terminal", "piped"]

PATIENCE_S = 60.0


def clean_env(**env: str) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("AGENTWS_")}
    return {**inherited, "TERM": "xterm", **env}


def piped(arguments: Sequence[str], *, given: str = "", **env: str) -> "subprocess.CompletedProcess[str]":
    """Runs `agentws` with pipes, to its end."""
    return subprocess.run(
        [sys.executable, "-m", "agentws", *arguments],
        input=given,
        env=clean_env(**env),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )


class Terminal:
    """A process on a pseudo terminal: `raw` is all that it wrote, `text` what is shown and what has scrolled away."""

    def __init__(self, process: "subprocess.Popen[bytes]", descriptor: int, *, columns: int, rows: int) -> None:
        self.raw = ""
        self.text = ""
        self._process = process
        self._descriptor = descriptor
        self._screen = Screen(columns, rows, answer=self.type)
        self._changed = threading.Condition()
        self._over = False
        threading.Thread(target=self._read, daemon=True).start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def type(self, text: str) -> None:
        os.write(self._descriptor, text.encode())

    def enter(self, text: str) -> None:
        self.type(text + "\r")

    def shows(self, text: str, *, times: int = 1) -> None:
        """Waits until a text is shown so many times."""
        self.until(lambda shown: shown.count(text) >= times, f"{text!r}")

    def until(self, match: Callable[[str], bool], what: str) -> None:
        with self._changed:
            self._changed.wait_for(lambda: match(self.text) or self._over, PATIENCE_S)
            assert match(self.text), f"{what} is not shown:\n{self.text[-3000:]}"

    def ends(self) -> int:
        """Waits for the process; returns its exit status."""
        status = self._process.wait(PATIENCE_S)
        with self._changed:
            self._changed.wait_for(lambda: self._over, PATIENCE_S)
        return status

    def _read(self) -> None:
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        while True:
            try:
                piece = os.read(self._descriptor, 65536)
            except OSError:
                piece = b""
            with self._changed:
                self._take(decoder.decode(piece))
                self._over = not piece
                self._changed.notify_all()
            if not piece:
                return

    def _take(self, text: str) -> None:
        self.raw += text
        self._screen.feed(text)
        self.text = self._screen.text


@contextmanager
def on_terminal(arguments: Sequence[str], *, columns: int = 80, rows: int = 30, **env: str) -> Iterator[Terminal]:
    """`agentws` on a terminal of its own; killed at the block's end where it still runs."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-m", "agentws", *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=clean_env(**env),
        cwd=ROOT,
        start_new_session=True,
    )
    os.close(theirs)
    try:
        yield Terminal(process, ours, columns=columns, rows=rows)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        os.close(ours)
