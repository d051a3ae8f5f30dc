"""Merged events say what the single ones said, wherever they are cut, and whatever was merged before."""

import itertools
import json
from collections.abc import Iterator, Sequence
from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentws.core import fold
from agentws.core.fold import WINDOW, Group, beyond, groups, merge
from agentws.core.framing import first_of, frame
from agentws.wire.events import EventType

from ..histories import Event, Reader, event, threads

MESSAGE, THINKING, PROGRESS = EventType.AGENT_MESSAGE, EventType.AGENT_THINKING, EventType.TOOL_PROGRESS


def piece(seq: int, text: str, offset: int, *, run: int = 1, attempt: int = 1, from_seq: int | None = None) -> Event:
    body = json.dumps({"text": text, "offset": offset})
    return event(seq, MESSAGE, body, run=run, attempt=attempt, from_seq=from_seq)


def thought(seq: int, text: str, offset: int, *, step: int = 1, attempt: int = 1) -> Event:
    return event(seq, THINKING, json.dumps({"reasoning": text, "step": step, "offset": offset}), attempt=attempt)


def progress(seq: int, done: float, *, of: str = "x1", attempt: int = 1) -> Event:
    body = json.dumps({"execution_id": of, "tool_name": "dig", "progress": done})
    return event(seq, PROGRESS, body, attempt=attempt)


def told(events: Sequence[Event]) -> list[tuple[int | None, int, object]]:
    return [(record.from_seq, record.seq, json.loads(record.body or "null")) for _, record in events]


def test_pieces_of_an_answer_become_one_with_the_name_and_time_of_the_last() -> None:
    [(origin, record)] = merge([piece(3, "grün ", 0), piece(4, "🌲", 5), piece(5, " Wald", 6)])
    assert (origin.run_id, record.from_seq, record.seq, record.ordinal, record.timestamp) == ("r1", 3, 5, 5, "at 5")
    assert json.loads(record.body or "") == {"text": "grün 🌲 Wald", "offset": 0}
    assert groups([piece(3, "a", 0), piece(4, "b", 1), piece(6, "c", 2)]) == [
        Group(from_seq=3, seq=4, rows=2, body='{"text":"ab","offset":0}')
    ]


def test_pieces_of_a_step_of_thinking_become_one() -> None:
    merged = merge([thought(1, "a", 0), thought(2, "b", 1), thought(3, "c", 0, step=2)])
    assert told(merged) == [
        (1, 2, {"reasoning": "ab", "step": 1, "offset": 0}),
        (None, 3, {"reasoning": "c", "step": 2, "offset": 0}),
    ]


def test_of_a_tools_progress_the_latest_counts() -> None:
    merged = merge([progress(1, 0.1), progress(2, 0.5), progress(3, 0.2, of="x2")])
    assert told(merged) == [
        (1, 2, {"execution_id": "x1", "tool_name": "dig", "progress": 0.5}),
        (None, 3, {"execution_id": "x2", "tool_name": "dig", "progress": 0.2}),
    ]


def test_what_was_merged_before_is_merged_on() -> None:
    merged = merge([piece(2, "a", 0), piece(5, "bcd", 1, from_seq=3), piece(6, "e", 4)])
    assert told(merged) == [(2, 6, {"text": "abcde", "offset": 0})]


@pytest.mark.parametrize(
    "apart",
    [
        (piece(1, "a", 0), piece(3, "b", 1)),
        (piece(1, "a", 0), piece(4, "b", 1, from_seq=3)),
        (piece(1, "a", 0), piece(2, "b", 2)),
        (piece(1, "ab", 0), piece(2, "b", 1)),
        (piece(1, "a", 0), piece(2, "b", 1, run=2)),
        (piece(1, "a", 0), piece(2, "b", 1, attempt=2)),
        (piece(1, "a", 0), thought(2, "b", 1)),
        (thought(1, "a", 0), thought(2, "b", 1, step=2)),
        (thought(1, "a", 0), thought(2, "b", 1, attempt=2)),
        (progress(1, 0.1), progress(2, 0.2, of="x2")),
        (progress(1, 0.1), progress(2, 0.2, attempt=2)),
        (progress(1, 0.1), progress(3, 0.2)),
        (event(1, MESSAGE, None), event(2, MESSAGE, None)),
        (event(1, MESSAGE, "[]"), event(2, MESSAGE, "{")),
        (event(1, MESSAGE, '{"text":"a","offset":0,"mood":"calm"}'), piece(2, "b", 1)),
        (piece(1, "a", 0), event(2, EventType.AGENT_EVENT, "{}"), piece(3, "b", 1)),
        (event(1, EventType.AGENT_EVENT, "{}"), event(2, EventType.AGENT_EVENT, "{}")),
    ],
)
def test_what_does_not_belong_together_stays_apart_as_it_is(apart: tuple[Event, ...]) -> None:
    assert merge(apart) == list(apart)
    assert groups(apart) == []


def test_an_answer_is_cut_where_it_gets_long() -> None:
    size = 1000
    pieces = [piece(n + 1, "x" * size, n * size) for n in range(100)]
    merged = merge(pieces)
    assert len(merged) == -(-100 * size // WINDOW)
    assert max(len(record.body or "") for _, record in merged) < WINDOW + size + 50
    assert "".join(json.loads(record.body or "")["text"] for _, record in merged) == "x" * 100 * size


def frames(events: Sequence[Event]) -> list[dict[str, Any]]:
    return [json.loads(frame(*each)) for each in events]


def pages(events: Sequence[Event], cuts: Sequence[int]) -> Iterator[Sequence[Event]]:
    for start, end in itertools.pairwise([0, *sorted(cuts), len(events)]):
        yield events[start:end]


windows = st.sampled_from([5, 20, WINDOW])


@settings(database=None, deadline=None)
@given(threads(), st.lists(st.integers(0, 60)), st.integers(0, 60), windows)
def test_a_reader_holds_the_same_whatever_was_merged(
    events: list[Event], cuts: list[int], after: int, window: int
) -> None:
    with mock.patch.object(fold, "WINDOW", window):
        whole = Reader.of(frames(events))
        in_pages = [each for page in pages(events, [min(cut, len(events)) for cut in cuts]) for each in merge(page)]
        assert Reader.of(frames(in_pages)) == whole
        assert Reader.of(frames(merge(in_pages))) == whole
        # One that goes on where an event begins before what it holds.
        reader = Reader.of(frames(events[:after]))
        reader.read(frames([each for each in merge(events) if each[1].seq > after]))
        assert reader == whole


@settings(database=None, deadline=None)
@given(threads(), st.lists(st.integers(0, 60), min_size=1), st.integers(0, 60), windows)
def test_what_lies_beyond_is_what_was_not_told(events: list[Event], cuts: list[int], after: int, window: int) -> None:
    with mock.patch.object(fold, "WINDOW", window):
        after = min(after, len(events))
        told = [each for page in pages(events[:after], [min(cut, after) for cut in cuts]) for each in merge(page)]
        rest = [each for each in merge(events) if each[1].seq > after]
        if rest and told:
            rest[0] = beyond(rest[0], told[-1]) if first_of(rest[0][1]) <= after else rest[0]
            assert first_of(rest[0][1]) == after + 1
        assert Reader.of(frames([*told, *rest])) == Reader.of(frames(events))
        # What remains is what the same pieces say without those that were told.
        assert [told_of(each) for each in merge(rest)] == [told_of(each) for each in merge(events[after:])]


def told_of(each: Event) -> tuple[str, int, int, object]:
    origin, record = each
    return origin.run_id, first_of(record), record.seq, json.loads(record.body or "null")


@settings(database=None, deadline=None)
@given(threads(), st.lists(st.integers(0, 60)), windows)
def test_it_does_not_matter_what_was_merged_before(events: list[Event], cuts: list[int], window: int) -> None:
    with mock.patch.object(fold, "WINDOW", window):
        merged = merge(events)
        assert merge(merged) == merged
        parts = [merge(page) for page in pages(events, [min(cut, len(events)) for cut in cuts])]
        assert merge([each for part in parts for each in part]) == merged
        for before, after in itertools.pairwise([record for _, record in merged]):
            assert first_of(after) == before.seq + 1
        found = groups(events)
        assert [(group.from_seq, group.seq, group.body) for group in found] == [
            (record.from_seq, record.seq, record.body) for _, record in merged if record.from_seq is not None
        ]
        assert sum(group.rows for group in found) - len(found) == len(events) - len(merged)
