"""What the kernel knows of processes: their children, whether they live, and how much memory they hold."""

import ctypes
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

__all__ = ["children_of", "die_with_parent", "is_alive", "resident_bytes"]

# Loaded here, since between fork and exec nothing may be.
_PRCTL: Callable[..., int] | None = ctypes.CDLL(None).prctl if sys.platform == "linux" else None


def children_of(parent: int) -> list[int]:
    """The processes that a process has started and that have not ended."""
    pids = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal())
    return [pid for pid in pids if (status := _status(pid)) is not None and status[1] == parent]


def is_alive(pid: int) -> bool:
    """Whether there is such a process, and it has not ended."""
    status = _status(pid)
    return status is not None and status[0] not in ("Z", "X")


def resident_bytes(pid: int) -> int:
    """How much memory a process holds; 0 where there is none."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def die_with_parent() -> None:
    """In a child before it begins: it is killed when whoever started it has ended, however that was."""
    if _PRCTL is not None:
        _PRCTL(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _status(pid: int) -> tuple[str, int] | None:
    """A process's state and parent."""
    try:
        # The name stands in brackets, and may hold anything.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return fields[0], int(fields[1])
    except (OSError, IndexError, ValueError):
        return None
