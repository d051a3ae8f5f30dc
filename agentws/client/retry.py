"""When a lost connection is made again: the table of close codes (section 4), and growing pauses with jitter."""

from collections.abc import Callable
from enum import Enum
from random import SystemRandom

__all__ = ["Backoff", "Verdict", "after_close", "after_status"]

_random = SystemRandom()

LATER_S = 5.0
"""The least pause where the server said that it has too much to do."""


class Verdict(Enum):
    """What follows on a connection that ended, or was refused."""

    RECONNECT = "reconnect"
    LATER = "reconnect after a while"
    RENEW = "fetch a token, reconnect"
    FINAL = "do not retry"


_BY_CODE = {
    1000: Verdict.FINAL,
    1007: Verdict.FINAL,
    1008: Verdict.FINAL,
    1009: Verdict.FINAL,
    4409: Verdict.FINAL,
    1013: Verdict.LATER,
    4429: Verdict.LATER,
    4401: Verdict.RENEW,
}


def after_close(code: int | None) -> Verdict:
    """What follows on a close code; None: the connection broke without one."""
    return Verdict.RECONNECT if code is None else _BY_CODE.get(code, Verdict.RECONNECT)


def after_status(status: int) -> Verdict:
    """What follows on an upgrade that was answered with this HTTP status."""
    if status == 401:
        return Verdict.RENEW
    if status in (429, 503):
        return Verdict.LATER
    return Verdict.RECONNECT if status >= 500 else Verdict.FINAL


class Backoff:
    """Pauses that grow twofold, each spread over its whole length, so that many clients do not come back at once.

    Args:
        first_s: the longest first pause.
        longest_s: the longest pause of all.
        uniform: gives a random number between two.
    """

    def __init__(
        self,
        *,
        first_s: float = 0.25,
        longest_s: float = 10.0,
        uniform: Callable[[float, float], float] = _random.uniform,
    ) -> None:
        self._first_s = first_s
        self._longest_s = longest_s
        self._uniform = uniform
        self._failures = 0

    def next_s(self, *, at_least_s: float = 0.0) -> float:
        """The next pause, in seconds; spread above `at_least_s`."""
        bound = min(self._longest_s, self._first_s * 2.0 ** min(self._failures, 30))
        self._failures += 1
        return at_least_s + self._uniform(0.0, bound)

    def reset(self) -> None:
        """The connection held: the next pause is a first one."""
        self._failures = 0
