"""A cursor tells each event once and in order, and of merged text what is new."""

import pytest

from agentws.client.reader import Cursor, Event, Gap

from .events import event


def piece(seq: int, text: str, offset: int, **fields: int | str) -> Event:
    return event(seq, "agent_message", {"text": text, "offset": offset}, **fields)


def taken(cursor: Cursor, *events: Event) -> list[tuple[int, str]]:
    """Number and text of what is new."""
    new = [cursor.take(each) for each in events]
    return [(each.seq, each.payload.get("text", each.payload.get("reasoning", ""))) for each in new if each]


def test_an_event_is_taken_once() -> None:
    cursor = Cursor(epoch="e1", seq=0)
    first, second = piece(1, "a", 0), piece(2, "b", 1)
    assert taken(cursor, first, first, second, first, second) == [(1, "a"), (2, "b")]
    assert cursor.seq == 2


@pytest.mark.parametrize("late", [piece(3, "c", 2), piece(5, "cde", 2, from_seq=3)])
def test_an_event_without_those_before_it_is_a_gap_and_moves_nothing(late: Event) -> None:
    cursor = Cursor(epoch="e1", seq=1)
    with pytest.raises(Gap):
        cursor.take(late)
    assert cursor.seq == 1
    assert taken(cursor, piece(2, "b", 1)) == [(2, "b")]


def test_an_event_that_covers_skipped_ones_is_no_gap() -> None:
    cursor = Cursor(epoch="e1", seq=1)
    covering = event(6, "agent_completed", {"response": "", "duration_ms": 1}, from_seq=2)
    assert cursor.take(covering) is covering
    assert cursor.seq == 6


def test_of_a_merged_piece_what_lies_beyond_is_taken_by_offset() -> None:
    cursor = Cursor(epoch="e1", seq=0)
    assert taken(cursor, piece(1, "grün ", 0), piece(2, "🌲", 5)) == [(1, "grün "), (2, "🌲")]
    merged = cursor.take(piece(4, "grün 🌲 Wald", 0, from_seq=1))
    assert merged is not None
    assert (merged.payload, merged.from_seq, merged.seq) == ({"text": " Wald", "offset": 6}, 3, 4)
    assert merged.frame["payload"] == merged.payload
    assert merged.frame["from_seq"] == 3


def test_a_merged_piece_is_whole_where_nothing_of_it_was_held() -> None:
    cursor = Cursor(epoch="e1", seq=2)
    assert taken(cursor, piece(4, "abcd", 0, from_seq=1), piece(6, "cdef", 2, from_seq=3)) == [(4, "abcd"), (6, "ef")]


def test_thinking_is_joined_within_its_step() -> None:
    def thought(seq: int, text: str, step: int, offset: int, **fields: int) -> Event:
        return event(seq, "agent_thinking", {"reasoning": text, "step": step, "offset": offset}, **fields)

    cursor = Cursor(epoch="e1", seq=0)
    events = (thought(1, "ab", 1, 0), thought(2, "x", 2, 0), thought(3, "xyz", 2, 0, from_seq=2))
    assert taken(cursor, *events) == [(1, "ab"), (2, "x"), (3, "yz")]


def test_a_later_attempt_begins_its_text_anew() -> None:
    cursor = Cursor(epoch="e1", seq=0)
    started = event(2, "agent_started", {"message": "hi", "status": "started"}, attempt=2)
    pieces = piece(3, "abc", 0, attempt=2), piece(4, "abcd", 0, attempt=2, from_seq=3)
    assert taken(cursor, piece(1, "abc", 0), started, *pieces) == [(1, "abc"), (2, ""), (3, "abc"), (4, "d")]


def test_texts_of_two_runs_are_apart() -> None:
    cursor = Cursor(epoch="e1", seq=0)
    events = piece(1, "abc", 0, run_id="r"), piece(2, "ab", 0, run_id="s"), piece(4, "abcd", 0, run_id="s", from_seq=2)
    assert taken(cursor, *events) == [(1, "abc"), (2, "ab"), (4, "cd")]


def test_an_event_of_another_epoch_is_no_part_of_this_reading() -> None:
    cursor = Cursor(epoch="e1", seq=1)
    assert cursor.take(piece(2, "old", 0, epoch="e0")) is None
    assert taken(cursor, piece(2, "new", 0)) == [(2, "new")]


def test_an_event_of_an_unknown_type_counts() -> None:
    cursor = Cursor(epoch="e1", seq=0)
    assert taken(cursor, event(1, "agent_dreams", {}), piece(2, "a", 0)) == [(1, ""), (2, "a")]
