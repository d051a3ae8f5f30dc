"""The command line's client commands as processes: on pipes, and on a terminal of the standard library's."""

import codecs
import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ..processes import ROOT

__all__ = ["Terminal", "clean_env", "on_terminal", "piped"]

PATIENCE_S = 60.0
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_=>])")


def clean_env(**env: str) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("AGENTWS_")}
    # Nobody answers a question for the cursor's position here.
    return {**inherited, "TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1", **env}


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
    """A process on a pseudo terminal; `raw` is all that it wrote, `text` the same without escape sequences."""

    def __init__(self, process: "subprocess.Popen[bytes]", descriptor: int) -> None:
        self.raw = ""
        self._process = process
        self._descriptor = descriptor
        self._changed = threading.Condition()
        self._over = False
        threading.Thread(target=self._read, daemon=True).start()

    @property
    def text(self) -> str:
        return _ESCAPES.sub("", self.raw).replace("\r\n", "\n")

    def type(self, text: str) -> None:
        os.write(self._descriptor, text.encode())

    def enter(self, text: str) -> None:
        self.type(text + "\r")

    def shows(self, text: str, *, times: int = 1) -> None:
        """Waits until a text was written so many times."""
        with self._changed:
            seen = self._changed.wait_for(lambda: self.text.count(text) >= times or self._over, PATIENCE_S)
        assert seen, f"{text!r} was not shown in {self.text[-3000:]}"
        assert self.text.count(text) >= times, f"{text!r} was not shown before the end: {self.text[-3000:]}"

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
                self.raw += decoder.decode(piece)
                self._over = not piece
                self._changed.notify_all()
            if not piece:
                return


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
        yield Terminal(process, ours)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        os.close(ours)
