"""The counters of section 8: what raises which, and the sum that has to come out."""

import itertools

import pytest

from agentws.observe.statistics import Statistics

NAMES = {
    "messages_processed", "start_agent_requests", "user_messages", "chat_messages", "errors", "last_processed_time",
    "received", "duplicates", "frame_errors", "deprecated", "runs_in_flight", "runs_completed", "runs_failed",
    "runs_stopped", "connections", "events_sent", "events_replayed", "uptime_seconds",
}  # fmt: skip
KINDS = {"start_agent": "start_agent_requests", "user_message": "user_messages", "chat": "chat_messages"}


def raised(statistics: Statistics) -> dict[str, float]:
    """The counters that are not at their beginning, without the clocks'."""
    return {name: value for name, value in statistics.read().items() if value and name != "uptime_seconds"}


def test_there_are_exactly_these_and_all_begin_at_nothing() -> None:
    told = Statistics().read()
    assert set(told) == NAMES
    assert told.pop("last_processed_time") is None
    assert told.pop("uptime_seconds") is not None
    assert set(told.values()) == {0}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("status", "runs"), [("completed", "runs_completed"), ("stopped", "runs_stopped")])
def test_a_run_that_completed_or_was_stopped_raises_its_own_kind(kind: str, status: str, runs: str) -> None:
    statistics = Statistics(now=lambda: 1700000000.5)
    statistics.received()
    statistics.run_ended(kind, status)
    assert raised(statistics) == {
        "received": 1,
        "messages_processed": 1,
        KINDS[kind]: 1,
        runs: 1,
        "last_processed_time": 1700000000.5,
    }


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_failed_raises_errors_once_and_no_kind(kind: str) -> None:
    statistics = Statistics()
    statistics.received()
    statistics.run_ended(kind, "failed")
    assert raised(statistics) == {"received": 1, "errors": 1, "runs_failed": 1}


def test_a_refused_start_raises_errors_once() -> None:
    statistics = Statistics()
    statistics.received()
    statistics.refused()
    assert raised(statistics) == {"received": 1, "errors": 1}


def test_a_repeat_raises_duplicates_alone() -> None:
    statistics = Statistics()
    statistics.received()
    statistics.duplicate()
    assert raised(statistics) == {"received": 1, "duplicates": 1}


def test_a_start_in_doubt_is_an_error_until_its_run_turns_up() -> None:
    statistics = Statistics(now=lambda: 5.0)
    statistics.received()
    statistics.in_doubt(("", "ada", 7))
    assert raised(statistics) == {"received": 1, "errors": 1}
    statistics.run_ended("chat", "completed", ("", "ada", 7))
    assert raised(statistics) == {
        "received": 1,
        "messages_processed": 1,
        "chat_messages": 1,
        "runs_completed": 1,
        "last_processed_time": 5.0,
    }


def test_a_start_in_doubt_whose_run_fails_is_one_error() -> None:
    statistics = Statistics()
    statistics.received()
    statistics.in_doubt("it")
    statistics.run_ended("chat", "failed", "it")
    assert raised(statistics) == {"received": 1, "errors": 1, "runs_failed": 1}


def test_a_start_in_doubt_that_is_repeated_and_accepted_anew_stays_an_error() -> None:
    statistics = Statistics(now=lambda: 5.0)
    statistics.received()
    statistics.in_doubt("first")
    statistics.received()
    statistics.run_ended("chat", "completed", "second")
    told = statistics.read()
    assert (told["received"], told["errors"], told["messages_processed"]) == (2, 1, 1)


def test_starts_in_doubt_are_remembered_up_to_a_number_and_stay_errors_beyond_it() -> None:
    statistics = Statistics(most_in_doubt=2)
    for run in ("a", "b", "c"):
        statistics.received()
        statistics.in_doubt(run)
    assert raised(statistics) == {"received": 3, "errors": 3}
    statistics.run_ended("chat", "stopped", "c")
    assert statistics.read()["errors"] == 2


def test_other_frames_raise_their_own_counters_alone() -> None:
    statistics = Statistics()
    statistics.frame_refused()
    statistics.deprecated()
    statistics.events_sent(3)
    statistics.events_sent(4, replayed=2)
    assert raised(statistics) == {"frame_errors": 1, "deprecated": 1, "events_sent": 7, "events_replayed": 2}


def test_what_is_open_is_asked_for_and_time_goes_on() -> None:
    clock = itertools.count(100.0, 2.5)
    statistics = Statistics(runs_in_flight=lambda: 3, connections=lambda: 4, clock=lambda: next(clock))
    assert raised(statistics) == {"runs_in_flight": 3, "connections": 4}
    assert statistics.read()["uptime_seconds"] == 5.0


def test_reading_gives_a_copy() -> None:
    statistics = Statistics()
    statistics.read()["received"] = 99
    assert statistics.read()["received"] == 0


# What becomes of one start: the calls that tell of it.
FATES = {
    "refused": lambda it, _: it.refused(),
    "duplicate": lambda it, _: it.duplicate(),
    "completed": lambda it, run: it.run_ended("chat", "completed", run),
    "failed": lambda it, run: it.run_ended("user_message", "failed", run),
    "stopped": lambda it, run: it.run_ended("start_agent", "stopped", run),
    "stopped while it waited": lambda it, _: it.run_ended("start_agent", "stopped"),
    "in doubt, lost": lambda it, run: it.in_doubt(run),
    "in doubt, completed": lambda it, run: (it.in_doubt(run), it.run_ended("chat", "completed", run)),
    "in doubt, failed": lambda it, run: (it.in_doubt(run), it.run_ended("chat", "failed", run)),
}


@pytest.mark.parametrize("first", FATES)
@pytest.mark.parametrize("second", FATES)
def test_received_is_what_was_processed_refused_or_repeated(first: str, second: str) -> None:
    statistics = Statistics()
    for number, fate in enumerate((first, second, first)):
        statistics.received()
        FATES[fate](statistics, number)  # type: ignore[no-untyped-call]
    told = statistics.read()
    processed, errors, duplicates = (told[name] or 0 for name in ("messages_processed", "errors", "duplicates"))
    assert told["received"] == processed + errors + duplicates == 3
    assert processed == sum(told[name] or 0 for name in KINDS.values())
