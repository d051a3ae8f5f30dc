"""Credentials are warned of and ended by the wall clock, whatever it does meanwhile."""

import pytest

from agentws.edge.expiry import Expiry

from .clock import Clock


class Told:
    """What an expiry told, in order; it begins to watch at once."""

    def __init__(self, at: float | None) -> None:
        self.calls: list[str] = []
        self.expiry = Expiry(at, warn=lambda: self.calls.append("warn"), end=lambda: self.calls.append("end"))
        self.expiry.start()


@pytest.fixture
async def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


async def test_a_warning_comes_a_minute_before_the_end_and_each_once(clock: Clock) -> None:
    told = Told(clock.now + 100)
    for seconds, calls in ((39, []), (0.9, []), (0.2, ["warn"]), (59, ["warn"]), (0.8, ["warn"])):
        await clock.forward(seconds)
        assert told.calls == calls
    await clock.forward(0.2)
    assert told.calls == ["warn", "end"]


async def test_where_less_than_a_minute_is_left_the_warning_comes_at_once(clock: Clock) -> None:
    told = Told(clock.now + 59)
    assert told.calls == ["warn"]
    told.expiry.stop()


async def test_what_has_expired_already_ends_at_once_without_a_warning(clock: Clock) -> None:
    assert Told(clock.now).calls == ["end"]
    assert Told(clock.now - 1).calls == ["end"]


async def test_what_never_expires_tells_nothing(clock: Clock) -> None:
    told, other = Told(None), Told(clock.now + 10_000)
    await clock.forward(9_000)
    assert (told.expiry.at, told.calls) == (None, [])
    other.expiry.stop()


async def test_a_stopped_one_tells_nothing_more(clock: Clock) -> None:
    told, other = Told(clock.now + 50), Told(clock.now + 1000)
    told.expiry.stop()
    await clock.forward(100)
    assert told.calls == ["warn"]
    other.expiry.stop()


async def test_a_renewed_one_goes_on_until_the_new_end_and_warns_anew(clock: Clock) -> None:
    told = Told(clock.now + 50)
    told.expiry.renew(clock.now + 200)
    await clock.forward(100)
    assert told.calls == ["warn"]
    await clock.forward(50)
    assert told.calls == ["warn", "warn"]
    await clock.forward(51)
    assert told.calls == ["warn", "warn", "end"]


async def test_one_that_is_renewed_for_a_shorter_time_ends_then(clock: Clock) -> None:
    told = Told(clock.now + 1000)
    told.expiry.renew(clock.now + 30)
    assert told.calls == ["warn"]
    await clock.forward(31)
    assert told.calls == ["warn", "end"]


async def test_a_clock_that_is_put_far_forward_ends_without_a_warning(clock: Clock) -> None:
    told = Told(clock.now + 1000)
    await clock.forward(2000)
    assert told.calls == ["end"]


async def test_a_clock_that_is_put_back_gives_time(clock: Clock) -> None:
    told = Told(clock.now + 100)
    await clock.forward(-1000)
    await clock.forward(1039)
    assert told.calls == []
    await clock.forward(2)
    assert told.calls == ["warn"]
    told.expiry.stop()
