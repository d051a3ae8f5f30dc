"""Limits: what a user and a process may have at once, and a token bucket a user for frames. Pure: time is handed in."""

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from agentws.core.context import Principal
from agentws.wire.errors import Refusal

__all__ = ["RETRY_AFTER_MS", "Buckets", "Patience", "StartLimits", "refuse"]

RETRY_AFTER_MS: Final[Mapping[str, int]] = {
    "too_many_runs": 1_000,
    "overloaded": 1_000,
    "too_many_subscriptions": 5_000,
    "too_many_threads": 60_000,
    "draining": 1_000,
}
"""When something that a limit refused may be tried again, in milliseconds."""

_MOST_BUCKETS = 100_000


def refuse(code: str) -> Refusal:
    """The refusal of a limit that has been reached, `code` being one of `RETRY_AFTER_MS`."""
    return Refusal(code, retry_after_ms=RETRY_AFTER_MS[code])


@dataclass(frozen=True, kw_only=True, slots=True)
class StartLimits:
    """What the database may hold of a user (threads; runs, also waiting) and of all (waiting runs); 0: no limit."""

    threads: int = 0
    runs: int = 0
    waiting: int = 0


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float


class Buckets:
    """A token bucket for each user; one that is full again is forgotten.

    Args:
        rate: tokens a second; 0: no limit.
        burst: how many a bucket holds; at least 1.
    """

    def __init__(self, *, rate: float, burst: int) -> None:
        self._rate = rate
        self._burst = max(1, burst)
        self._buckets: dict[Principal, _Bucket] = {}

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, principal: Principal, now: float) -> Refusal | None:
        """Takes a token; where there is none, the refusal that says when there will be one.

        Args:
            now: a monotonic time in seconds.
        """
        if not self._rate:
            return None
        bucket = self._buckets.get(principal)
        if bucket is None:
            if len(self._buckets) >= _MOST_BUCKETS:
                self._forget_full(now)
            bucket = self._buckets[principal] = _Bucket(self._burst, now)
        bucket.tokens = self._filled(bucket, now)
        bucket.at = now
        if bucket.tokens < 1:
            # Rounded up: who waits exactly so long finds a token.
            return Refusal("rate_limited", retry_after_ms=math.ceil((1 - bucket.tokens) / self._rate * 1000) + 1)
        bucket.tokens -= 1
        return None

    def _filled(self, bucket: _Bucket, now: float) -> float:
        return min(self._burst, bucket.tokens + max(0.0, now - bucket.at) * self._rate)

    def _forget_full(self, now: float) -> None:
        for principal, bucket in tuple(self._buckets.items()):
            if self._filled(bucket, now) >= self._burst:
                del self._buckets[principal]


class Patience:
    """Ends with a client that goes on sending what is refused: at more than `most` refusals within `seconds`."""

    def __init__(self, *, most: int, seconds: float) -> None:
        self._most = most
        self._seconds = seconds
        self._refusals: deque[float] = deque(maxlen=most + 1)

    def is_at_an_end(self, now: float) -> bool:
        """Counts a refusal at a monotonic time, in seconds."""
        self._refusals.append(now)
        return len(self._refusals) > self._most and now - self._refusals[0] <= self._seconds
