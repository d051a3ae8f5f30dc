"""What one follower is given: how many events came live and from the journal, and how late they are."""

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from agentws.observe.meters import FeedMeter
from agentws.observe.statistics import Statistics

__all__ = ["Commit", "Delivery"]


class Commit(NamedTuple):
    """When it was answered, by a clock that never goes back, and who is told how long after that an event was taken."""

    at: float | None
    on_sent: Callable[[float], None] | None


class Delivery:
    """Counts events when they are taken, not those that are dropped before.

    Args:
        behind: there is something to catch up with.
    """

    def __init__(self, meter: FeedMeter, statistics: Statistics, *, behind: bool) -> None:
        self._meter = meter
        self._statistics = statistics
        self._caught_up_with: int | None = 0 if behind else None

    def read(self) -> None:
        """An event waits that was read from the journal."""
        if self._caught_up_with is not None:
            self._caught_up_with += 1

    def caught_up(self) -> None:
        """Everything that the journal had has been read."""
        if self._caught_up_with is not None:
            self._meter.resumed(self._caught_up_with)
            self._caught_up_with = None

    def taken(self, events: Sequence[Commit | None]) -> None:
        """Events go to the socket: with what they were heard of; None: they were read from the journal."""
        if not events:
            return
        heard = [commit for commit in events if commit is not None]
        replayed = len(events) - len(heard)
        self._meter.sent(live=len(heard), replayed=replayed)
        self._statistics.events_sent(len(events), replayed=replayed)
        oldest = next((commit for commit in heard if commit.at is not None), None)
        if oldest is not None and oldest.at is not None:
            lag_s = time.monotonic() - oldest.at
            self._meter.lag(lag_s)
            if oldest.on_sent is not None:
                oldest.on_sent(lag_s)
