"""What follows on a lost connection, and how long the pauses are."""

import pytest

from agentws.client.retry import Backoff, Verdict, after_close, after_status


@pytest.mark.parametrize(
    ("code", "verdict"),
    [
        (1000, Verdict.FINAL),
        (1001, Verdict.RECONNECT),
        (1012, Verdict.RECONNECT),
        (None, Verdict.RECONNECT),
        (1006, Verdict.RECONNECT),
        (1011, Verdict.RECONNECT),
        (4999, Verdict.RECONNECT),
        (1007, Verdict.FINAL),
        (1008, Verdict.FINAL),
        (1009, Verdict.FINAL),
        (4409, Verdict.FINAL),
        (1013, Verdict.LATER),
        (4429, Verdict.LATER),
        (4401, Verdict.RENEW),
    ],
)
def test_close_codes_mean_what_the_protocol_says(code: int | None, verdict: Verdict) -> None:
    assert after_close(code) is verdict


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        (401, Verdict.RENEW),
        (403, Verdict.FINAL),
        (404, Verdict.FINAL),
        (429, Verdict.LATER),
        (503, Verdict.LATER),
        (502, Verdict.RECONNECT),
        (500, Verdict.RECONNECT),
        (301, Verdict.FINAL),
    ],
)
def test_a_refused_upgrade_says_whether_to_try_again(status: int, verdict: Verdict) -> None:
    assert after_status(status) is verdict


def test_pauses_grow_to_a_bound_and_begin_anew() -> None:
    backoff = Backoff(first_s=0.5, longest_s=3.0, uniform=lambda low, high: high)
    assert [backoff.next_s() for _ in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]
    backoff.reset()
    assert backoff.next_s(at_least_s=7.0) == 7.5


def test_pauses_are_spread_and_stay_finite() -> None:
    backoff = Backoff(first_s=1.0, longest_s=10.0)
    pauses = [backoff.next_s() for _ in range(3000)]
    assert all(0.0 <= pause <= 10.0 for pause in pauses)
    assert len(set(pauses)) > 2900
