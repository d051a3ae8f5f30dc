"""Text of others cannot do anything to a terminal, and fits into it."""

import pytest

from agentws.client.text import LineBreaker, cells, cut, one_line, safe


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain\ttext\n", "plain\ttext\n"),
        ("\x1b[31mred\x1b[0m", "␛[31mred␛[0m"),
        ("\x1b]0;title\x07", "␛]0;title␇"),
        ("\x9b2J\x85\x90", "\ufffd2J\ufffd\ufffd"),
        ("a\x7f\x00\x08b", "a␡␀␈b"),
        ("over\rwritten", "over␍written"),
        ("dos\r\nline", "dos\nline"),
        ("x\u202ey\u2066z", "x\ufffdy\ufffdz"),
        ("a\u2028b", "a\ufffdb"),
        ("grün 漢字 🌲", "grün 漢字 🌲"),
    ],
)
def test_control_characters_are_shown_and_not_sent(text: str, shown: str) -> None:
    assert safe(text) == shown


def test_no_control_character_passes() -> None:
    every = "".join(map(chr, [*range(0x20), 0x7F, *range(0x80, 0xA0)]))
    assert {character for character in safe(every) if not character.isprintable()} == {"\t", "\n"}
    assert all(character.isprintable() for character in one_line(every))


def test_one_line_is_one() -> None:
    assert one_line("a\nb\r\n\r\nc\td\x1b") == "a⏎b⏎c d␛"


@pytest.mark.parametrize(("text", "width"), [("abc", 3), ("漢字", 4), ("e\u0301", 1), ("🌲", 2), ("", 0)])
def test_width_is_counted_in_cells(text: str, width: int) -> None:
    assert cells(text) == width


@pytest.mark.parametrize(
    ("text", "width", "shown"),
    [("abcdef", 6, "abcdef"), ("abcdef", 4, "abc…"), ("漢字漢字", 6, "漢字…"), ("ab", 1, "…")],
)
def test_what_does_not_fit_is_cut(text: str, width: int, shown: str) -> None:
    assert cut(text, width) == shown
    assert cells(shown) <= width


@pytest.mark.parametrize(
    ("width", "pieces", "lines"),
    [
        (10, ["one two ", "three four"], ["one two", "three four"]),
        (10, ["a\n", "\n", "b\nc"], ["a", "", "b", "c"]),
        (5, ["abcdefghijkl"], ["abcde", "fghij", "kl"]),
        (4, ["漢字漢字"], ["漢字", "漢字"]),
        (3, ["漢字"], ["漢", "字"]),
        (8, ["\tab cd"], ["    ab", "cd"]),
        (10, ["1234567890", "\nx"], ["1234567890", "x"]),
        (1, ["漢a"], ["漢", "a"]),
        (6, ["word   ", "  next"], ["word", "next"]),
    ],
)
def test_lines_are_broken_at_spaces_where_they_can(width: int, pieces: list[str], lines: list[str]) -> None:
    breaker = LineBreaker(width)
    made = [line for piece in pieces for line in breaker.feed(piece)]
    assert made + breaker.close() == lines
    assert breaker.close() == []


def test_however_a_text_is_cut_into_pieces_its_lines_are_the_same() -> None:
    text = "It is a truth,   universally\nacknowledged,          that a single\n\n man 漢字漢字漢字漢字漢字 " * 5
    breaker = LineBreaker(17)
    whole = breaker.feed(text) + breaker.close()
    assert " ".join(whole).replace(" ", "") == text.replace(" ", "").replace("\n", "")
    for size in range(1, 20):
        breaker = LineBreaker(17)
        pieces = [text[place : place + size] for place in range(0, len(text), size)]
        lines = [line for piece in pieces for line in breaker.feed(piece)] + breaker.close()
        assert lines == whole
        assert all(cells(line) <= 17 for line in lines)
