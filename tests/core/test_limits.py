"""A user's frames are counted by a bucket that fills with time; whoever goes on all the same is parted with."""

import pytest

from agentws.core import limits
from agentws.core.context import Principal
from agentws.core.limits import RETRY_AFTER_MS, Buckets, Patience, StartLimits, refuse
from agentws.wire.errors import CATALOGUE

ADA, EVE = Principal("", "ada"), Principal("", "eve")


def taken(buckets: Buckets, *times: float, whose: Principal = ADA) -> list[int | None]:
    """For each time None, or after how many milliseconds to come back."""
    refusals = [buckets.take(whose, now) for now in times]
    assert {refusal.code for refusal in refusals if refusal} <= {"rate_limited"}
    return [None if refusal is None else refusal.retry_after_ms for refusal in refusals]


def test_a_full_bucket_gives_its_burst_at_once_and_then_none() -> None:
    assert taken(Buckets(rate=2, burst=3), *[100.0] * 5) == [None, None, None, 501, 501]


def test_it_fills_at_its_rate() -> None:
    buckets = Buckets(rate=2, burst=2)
    assert taken(buckets, 0.0, 0.0, 0.0, 0.25, 0.5, 0.5, 1.0) == [None, None, 501, 251, None, 501, None]


def test_it_holds_no_more_than_its_burst() -> None:
    buckets = Buckets(rate=10, burst=2)
    taken(buckets, 0.0, 0.0)
    assert taken(buckets, *[1000.0] * 3) == [None, None, 101]


def test_a_refusal_takes_nothing() -> None:
    buckets = Buckets(rate=1, burst=1)
    assert taken(buckets, 0.0, *[0.5] * 50, 1.0) == [None, *[501] * 50, None]


@pytest.mark.parametrize("rate", [0.3, 1, 3, 7, 20, 333.3])
def test_whoever_waits_as_long_as_told_gets_a_token(rate: float) -> None:
    buckets = Buckets(rate=rate, burst=1)
    now = 12345.678
    for _ in range(50):
        assert taken(buckets, now) == [None]
        [wait_ms] = taken(buckets, now)
        assert wait_ms is not None
        # And not much longer.
        assert 0 <= wait_ms - 1000 / rate <= 2
        now += wait_ms / 1000


def test_users_have_buckets_of_their_own() -> None:
    buckets = Buckets(rate=1, burst=1)
    assert taken(buckets, 0.0, 0.0) == [None, 1001]
    for whose in (EVE, Principal("acme", "ada")):
        assert taken(buckets, 0.0, whose=whose) == [None]


def test_a_rate_of_0_is_no_limit_and_keeps_nothing() -> None:
    buckets = Buckets(rate=0, burst=1)
    assert taken(buckets, *[0.0] * 1000) == [None] * 1000
    assert len(buckets) == 0


@pytest.mark.parametrize("burst", [0, -5])
def test_a_bucket_holds_one_token_at_least(burst: int) -> None:
    assert taken(Buckets(rate=1, burst=burst), 0.0, 0.0, 1.0) == [None, 1001, None]


def test_a_clock_that_stands_still_or_goes_back_gives_nothing_and_takes_nothing() -> None:
    buckets = Buckets(rate=1, burst=2)
    assert taken(buckets, 10.0, 10.0, 5.0, 5.0) == [None, None, 1001, 1001]


def test_buckets_that_are_full_again_are_forgotten_where_there_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_MOST_BUCKETS", 3)
    buckets = Buckets(rate=1, burst=1)
    for number in range(3):
        taken(buckets, float(number), whose=Principal("", str(number)))
    # Of three the first is full again.
    taken(buckets, 1.5, whose=EVE)
    assert len(buckets) == 3
    assert taken(buckets, 1.5, whose=Principal("", "1")) == [501]
    assert taken(buckets, 1.5, whose=EVE) == [1001]


@pytest.mark.parametrize("code", RETRY_AFTER_MS)
def test_a_limit_that_has_been_reached_may_be_tried_again(code: str) -> None:
    refusal = refuse(code)
    assert (refusal.code, refusal.retry_after_ms) == (code, RETRY_AFTER_MS[code])
    assert RETRY_AFTER_MS[code] > 0
    assert CATALOGUE[code].retryable


def test_without_being_told_a_start_has_no_limits() -> None:
    assert StartLimits() == StartLimits(threads=0, runs=0, waiting=0)


# Patience


def test_patience_ends_with_one_refusal_more_than_so_many_within_the_time() -> None:
    patience = Patience(most=3, seconds=10)
    assert [patience.is_at_an_end(now) for now in (0.0, 1.0, 2.0, 10.0)] == [False, False, False, True]


def test_refusals_of_long_ago_do_not_count() -> None:
    patience = Patience(most=2, seconds=10)
    assert [patience.is_at_an_end(now) for now in (0.0, 1.0, 10.5, 11.5, 11.6)] == [False, False, False, False, True]


def test_a_client_that_keeps_below_is_borne_for_ever() -> None:
    patience = Patience(most=100, seconds=10)
    assert not any(patience.is_at_an_end(number * 0.11) for number in range(10_000))
