"""Clocks that go wrong: a server may be started with a wall clock that is ahead or behind."""

import random
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

__all__ = ["Clock"]

_PLACES = ("/usr/lib/*/faketime/libfaketimeMT.so.1", "/usr/lib/faketime/libfaketimeMT.so.1")
_SHIFTS = ("+45s", "-30s", "+2s", "-2s")


class Clock:
    """
    Args:
        enabled: whether clocks go wrong at all.

    `counts`: `clock`: the starts with a shifted one.
    """

    def __init__(self, *, enabled: bool) -> None:
        found = (str(path) for place in _PLACES for path in Path("/").glob(place.lstrip("/")))
        self.library = next(found, None)
        self.counts: Counter[str] = Counter()
        self._enabled = enabled

    @property
    def state(self) -> str:
        """What the report says of it."""
        if not self._enabled:
            return "off"
        return "on" if self.library else "unavailable"

    def of_server(self, rng: random.Random) -> Callable[[], Mapping[str, str]]:
        """For one server: the variables of its next start. One start in two has the right time."""

        def choose() -> Mapping[str, str]:
            shift = rng.choice((None, rng.choice(_SHIFTS)))
            if shift is None or self.library is None or not self._enabled:
                return {}
            self.counts["clock"] += 1
            return {
                "LD_PRELOAD": self.library,
                "FAKETIME": shift,
                # What waits and what times out goes by the monotonic clock, which nobody can set.
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
                "NO_FAKE_STAT": "1",
            }

        return choose
