"""Text of others made fit for a terminal: nothing in it can move the cursor, change a colour or ring a bell.

Pure; widths are counted in cells, as terminals show them.
"""

import re
import unicodedata

__all__ = ["LineBreaker", "cells", "cut", "one_line", "safe"]

TAB = 4

_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")
# They turn the direction of what follows them, so that it reads as something else (CVE-2021-42574).
_DIRECTIONS = re.compile("[\u202a-\u202e\u2066-\u2069]")
_BREAKS = re.compile(r"[\r\n\u2028\u2029]+")


def safe(text: str) -> str:
    """The text with control characters shown as signs: ESC as ␛; newlines and tabs stay."""
    return _DIRECTIONS.sub("\N{REPLACEMENT CHARACTER}", _CONTROLS.sub(_sign, text.replace("\r\n", "\n")))


def _sign(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code < 0x20:
        return chr(0x2400 + code)
    return "\N{SYMBOL FOR DELETE}" if code == 0x7F else "\N{REPLACEMENT CHARACTER}"


def one_line(text: str) -> str:
    """The text on one line, fit for a terminal: a line break is one ⏎, a tab a space."""
    return safe(_BREAKS.sub("⏎", text).replace("\t", " "))


def cells(text: str) -> int:
    """How many cells a text without control characters takes."""
    return len(text) if text.isascii() else sum(map(_cell, text))


def _cell(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in ("W", "F") else 1


def cut(text: str, width: int) -> str:
    """The text, or as much of it as fits into `width` cells with an ellipsis."""
    if cells(text) <= width:
        return text
    return _fitting(text, max(0, width - 1)) + "…"


def _fitting(text: str, width: int) -> str:
    """The longest beginning that fits."""
    taken = 0
    for index, character in enumerate(text):
        taken += _cell(character)
        if taken > width:
            return text[:index]
    return text


class LineBreaker:
    """Makes lines of a text that comes in pieces, at spaces where it can.

    Args:
        width: how many cells a line may take; at least 2.
    """

    def __init__(self, width: int) -> None:
        self._width = max(2, width)
        self._after_break = False
        self.rest = ""

    def feed(self, text: str) -> list[str]:
        """Takes a piece of safe text; returns the lines that are complete. `rest` is the one that is not."""
        if self._after_break:
            # Spaces at which a line was broken do not begin the next one.
            text = text.lstrip(" ")
            self._after_break = not text
        *whole, last = (self.rest + text).split("\n")
        lines: list[str] = []
        for paragraph in whole:
            *broken, end = self._broken(paragraph)
            lines += [*broken, end]
        *broken, self.rest = self._broken(last)
        self._after_break = self._after_break or (bool(broken) and not self.rest)
        return lines + broken

    def close(self) -> list[str]:
        """The text is over: returns the last line, where there is one."""
        rest, self.rest = self.rest, ""
        return [rest] if rest else []

    def _broken(self, line: str) -> list[str]:
        """The lines of a paragraph; the last may still grow."""
        line = line.expandtabs(TAB)
        lines: list[str] = []
        while cells(line) > self._width:
            fitting = _fitting(line, self._width)
            # A word that is longer than a line is broken where the line ends.
            at_space = len(fitting) if line[len(fitting)] == " " else fitting.rfind(" ") + 1
            place = at_space or len(fitting) or 1
            lines.append(line[:place].rstrip(" "))
            line = line[place:].lstrip(" ")
        return [*lines, line]
