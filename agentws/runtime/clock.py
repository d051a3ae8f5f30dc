"""A clock that goes on while this process is paused and, where the system has such a clock, while the machine sleeps.

Not the event loop's: its time may be that of the beginning of its current step, however long ago that was.
"""

import time

__all__ = ["now"]


def now() -> float:
    """Seconds since some time in the past; never goes back."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()
