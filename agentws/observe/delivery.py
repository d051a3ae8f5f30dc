"""What one follower is given: how many events came live and from the journal, and how late they are."""

import time
from collections.abc import Callable

from agentws.observe.meters import FeedMeter
from agentws.observe.statistics import Statistics

__all__ = ["Delivery"]


class Delivery:
    """Counts events when they are taken, not those that are dropped before.

    Args:
        behind: there is something to catch up with.
    """

    def __init__(self, meter: FeedMeter, statistics: Statistics, *, behind: bool) -> None:
        self._meter = meter
        self._statistics = statistics
        self._caught_up_with: int | None = 0 if behind else None
        self._live = 0
        self._read = 0
        self._oldest: tuple[float, Callable[[float], None] | None] | None = None

    def heard(self, committed_at: float | None, on_sent: Callable[[float], None] | None) -> None:
        """An event waits that was heard of: when its commit was answered, and who is told how long ago that was."""
        self._live += 1
        if self._oldest is None and committed_at is not None:
            self._oldest = committed_at, on_sent

    def read(self) -> None:
        """An event waits that was read from the journal."""
        self._read += 1
        if self._caught_up_with is not None:
            self._caught_up_with += 1

    def caught_up(self) -> None:
        """Everything that the journal had has been read."""
        if self._caught_up_with is not None:
            self._meter.resumed(self._caught_up_with)
            self._caught_up_with = None

    def taken(self) -> None:
        """What waited goes to the socket."""
        if not self._live and not self._read:
            return
        self._meter.sent(live=self._live, replayed=self._read)
        self._statistics.events_sent(self._live + self._read, replayed=self._read)
        if self._oldest is not None:
            committed_at, on_sent = self._oldest
            lag_s = time.monotonic() - committed_at
            self._meter.lag(lag_s)
            if on_sent is not None:
                on_sent(lag_s)
        self.dropped()

    def dropped(self) -> None:
        """What waited goes nowhere."""
        self._live = self._read = 0
        self._oldest = None
