"""When a connection's credentials expire: a warning a minute before, then the end, by the wall clock."""

import asyncio
import time
from collections.abc import Callable

__all__ = ["Expiry"]

_WARNING_S = 60.0
# A timer counts without the wall clock: it is set anew now and then, so that a clock that is put right is heeded.
_LONGEST_WAIT_S = 600.0


class Expiry:
    """
    Args:
        at: seconds since the epoch; None: never.
        warn: called 60 s before, or at once where less is left.
        end: called when the time has come.
    """

    def __init__(self, at: float | None, *, warn: Callable[[], None], end: Callable[[], None]) -> None:
        self.at = at
        self._warn = warn
        self._end = end
        self._warned = False
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begins to watch the time."""
        self._watch()

    def renew(self, at: float | None) -> None:
        """Goes on until another time."""
        self.at = at
        self._warned = False
        self._watch()

    def stop(self) -> None:
        """Calls nothing any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _watch(self) -> None:
        self.stop()
        if self.at is None:
            return
        left_s = self.at - time.time()
        if left_s <= 0:
            self._end()
            return
        if not self._warned and left_s <= _WARNING_S:
            self._warned = True
            self._warn()
        wait_s = left_s if self._warned else left_s - _WARNING_S
        self._timer = asyncio.get_running_loop().call_later(min(wait_s, _LONGEST_WAIT_S), self._watch)
