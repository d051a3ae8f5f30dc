"""Following a thread: each number once, in order, whatever is lost, doubled or late."""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentws.core.replay import Batch, Item, follow, restart_at


def item(from_seq: int, seq: int) -> Item:
    return Item(from_seq, seq, lambda: f"{from_seq}-{seq}")


def batch(after_seq: int, *spans: tuple[int, int]) -> Batch:
    return Batch(epoch="e", after_seq=after_seq, last_seq=spans[-1][1], items=[item(*span) for span in spans])


def hint(last_seq: int) -> Batch:
    return Batch(epoch="e", after_seq=last_seq, last_seq=last_seq)


SINGLES = batch(4, (5, 5), (6, 6), (7, 7))
MERGED = batch(4, (5, 8), (9, 9))

TAKEN: list[tuple[int, Batch, list[int] | None]] = [
    (0, SINGLES, None),
    (3, SINGLES, None),
    (4, SINGLES, [5, 6, 7]),
    (5, SINGLES, [6, 7]),
    (6, SINGLES, [7]),
    (7, SINGLES, []),
    (8, SINGLES, []),
    (3, MERGED, None),
    (4, MERGED, [8, 9]),
    (6, MERGED, [8, 9]),
    (8, MERGED, [9]),
    (9, MERGED, []),
    (0, batch(0, (1, 1)), [1]),
    (0, hint(1), None),
    (0, hint(0), []),
    (6, hint(7), None),
    (7, hint(7), []),
    (8, hint(7), []),
    (4, Batch(epoch="e", after_seq=4, last_seq=7), None),
]


@pytest.mark.parametrize(("cursor", "heard", "seqs"), TAKEN)
def test_a_follower_takes_what_lies_beyond_its_cursor(cursor: int, heard: Batch, seqs: list[int] | None) -> None:
    items = follow(cursor, heard)
    assert (None if items is None else [each.seq for each in items]) == seqs


def test_a_frame_is_encoded_once_and_only_when_asked_for() -> None:
    calls: list[int] = []

    def encode() -> str:
        calls.append(1)
        return "frame"

    made = Item(1, 1, encode)
    assert calls == []
    assert (made.frame, made.frame) == ("frame", "frame")
    assert calls == [1]


class Reader:
    """A follower with the rules of a subscription; `got` are the spans that it was given."""

    def __init__(self, cursor: int) -> None:
        self.cursor = cursor
        self.got: list[tuple[int, int]] = []

    def hear(self, heard: Batch, journal: Sequence[Item]) -> None:
        items = follow(self.cursor, heard)
        if items is None:
            items = [each for each in journal if each.seq > self.cursor]
        for each in items:
            self.got.append((each.from_seq, each.seq))
            self.cursor = each.seq

    def numbers(self, start: int) -> list[int]:
        """What a client holds that takes of each event what lies beyond its last number."""
        held: list[int] = []
        last = start
        for from_seq, seq in self.got:
            assert from_seq <= last + 1, "a hole"
            assert seq > last, "old news"
            held += range(last + 1, seq + 1)
            last = seq
        return held


def merge(numbers: Sequence[int], sizes: Sequence[int]) -> list[Item]:
    """Events of consecutive numbers, of which some stand for several."""
    items: list[Item] = []
    at = 0
    for turn in range(len(numbers)):
        if at >= len(numbers):
            break
        last = min(at + sizes[turn % len(sizes)], len(numbers)) - 1
        items.append(item(numbers[at], numbers[last]))
        at = last + 1
    return items


SIZES = st.lists(st.integers(1, 4), min_size=1, max_size=4)


@settings(database=None, deadline=None, max_examples=300)
@given(
    commits=st.lists(st.tuples(st.integers(1, 6), SIZES), max_size=8),
    stored=SIZES,
    start=st.integers(0, 10),
    data=st.data(),
)
def test_each_number_comes_once_in_order_whatever_becomes_of_the_batches(
    commits: list[tuple[int, list[int]]], stored: list[int], start: int, data: st.DataObject
) -> None:
    batches: list[Batch] = []
    last = 0
    for length, sizes in commits:
        items = merge(range(last + 1, last + length + 1), sizes)
        batches.append(Batch(epoch="e", after_seq=last, last_seq=last + length, items=items))
        last += length
    start = min(start, last)
    reader = Reader(start)
    committed = 0
    for _ in range(data.draw(st.integers(0, 12), "steps")):
        # A batch is heard after its commit only: in any order, doubled, as a hint, or never.
        committed = data.draw(st.integers(committed, len(batches)), "committed")
        if not committed:
            continue
        heard = batches[data.draw(st.integers(0, committed - 1), "heard")]
        if data.draw(st.booleans(), "hint"):
            heard = hint(heard.last_seq)
        reader.hear(heard, merge(range(1, batches[committed - 1].last_seq + 1), stored))
    reader.hear(hint(last), merge(range(1, last + 1), stored))
    assert reader.numbers(start) == list(range(start + 1, last + 1))


RESTARTS: list[tuple[int, str | None, int, int, tuple[int, bool]]] = [
    # after_seq, the client's epoch, first_seq, last_seq
    (0, None, 1, 0, (0, True)),
    (0, None, 1, 9, (0, True)),
    (0, "now", 1, 9, (0, True)),
    (5, "now", 1, 9, (5, True)),
    (5, None, 1, 9, (5, True)),
    (9, "now", 1, 9, (9, True)),
    (10, "now", 1, 9, (0, False)),
    (10, None, 1, 9, (0, False)),
    (1, None, 1, 0, (0, False)),
    (5, "old", 1, 9, (0, False)),
    (0, "old", 1, 9, (0, False)),
    (0, "old", 1, 0, (0, False)),
    (5, "", 1, 9, (0, False)),
    (3, "now", 5, 9, (4, False)),
    (4, "now", 5, 9, (4, True)),
    (5, "now", 5, 9, (5, True)),
    (0, None, 5, 9, (4, False)),
    (7, "old", 5, 9, (4, False)),
    (9, "now", 10, 9, (9, True)),
    (8, "now", 10, 9, (9, False)),
    (2**63 - 1, "now", 5, 9, (4, False)),
]


@pytest.mark.parametrize(("after_seq", "epoch", "first_seq", "last_seq", "expected"), RESTARTS)
def test_a_subscription_goes_on_where_the_client_is_or_starts_anew(
    after_seq: int, epoch: str | None, first_seq: int, last_seq: int, expected: tuple[int, bool]
) -> None:
    start = restart_at(after_seq=after_seq, epoch=epoch, first_seq=first_seq, last_seq=last_seq, current="now")
    assert start == expected
