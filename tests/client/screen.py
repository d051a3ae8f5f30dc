"""What a terminal shows of the bytes that it gets: enough of a VT100 for a prompt with lines above it."""

import re
import unicodedata
from collections.abc import Callable

__all__ = ["Screen"]

_TOKEN = re.compile(
    r"(?P<csi>\x1b\[(?P<private>[?>=]?)(?P<numbers>[0-9;:]*)(?P<final>[@-~]))"
    r"|(?P<osc>\x1b\][^\x07\x1b]*(?:\x07|\x1b\\))|(?P<escape>\x1b[@-Z\\^_=>78])|(?P<control>[\x00-\x1f\x7f-\x9f])|(?P<text>.)"
)
_UNFINISHED = re.compile(r"\x1b(?:\[[0-9;:?>=]*|\][^\x07\x1b]*\x1b?)?$")


class Screen:
    """`lines` is all that was ever shown and not erased, with what has scrolled away.

    Args:
        answer: takes what a terminal says to the program: where the cursor is, when it is asked.
    """

    def __init__(self, columns: int, rows: int, answer: Callable[[str], None]) -> None:
        self._columns = columns
        self._rows = rows
        self._answer = answer
        self._grid: list[list[str]] = [[]]
        self._top = 0
        self._row = 0
        self._column = 0
        self._wraps = True
        self._rest = ""
        self.titles = 0
        self.bells = 0

    @property
    def lines(self) -> list[str]:
        return ["".join(line).rstrip() for line in self._grid]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def feed(self, text: str) -> None:
        text = self._rest + text
        unfinished = _UNFINISHED.search(text)
        self._rest = unfinished[0] if unfinished else ""
        for token in _TOKEN.finditer(text.removesuffix(self._rest)):
            if token["csi"]:
                self._sequence(token["private"], token["numbers"], token["final"])
            elif token["osc"]:
                self.titles += 1
            elif token["control"]:
                self._control(token["control"])
            elif token["text"]:
                self._put(token["text"])

    def _control(self, character: str) -> None:
        match character:
            case "\r":
                self._column = 0
            case "\n":
                self._down()
            case "\b":
                self._column = max(0, self._column - 1)
            case "\x07":
                self.bells += 1
            case _:
                raise AssertionError(f"the control character {character!r} reached the terminal")

    def _down(self) -> None:
        self._row += 1
        self._top = max(self._top, self._row - self._rows + 1)
        while len(self._grid) <= self._row:
            self._grid.append([])

    def _put(self, character: str) -> None:
        width = 2 if unicodedata.east_asian_width(character) in ("W", "F") else 1
        if self._column + width > self._columns:
            if self._wraps:
                self._column = 0
                self._down()
            else:
                self._column = self._columns - width
        line = self._grid[self._row]
        line += [" "] * (self._column + width - len(line))
        line[self._column : self._column + width] = [character, ""][:width]
        self._column += width

    def _sequence(self, private: str, numbers: str, final: str) -> None:
        values = [int(value or 0) for value in numbers.split(";")] if numbers and ":" not in numbers else [0]
        many = values[0] or 1
        match private, final:
            case "", "A":
                self._row = max(self._top, self._row - many)
            case "", "B":
                for _ in range(many):
                    if self._row - self._top < self._rows - 1:
                        self._down()
            case "", "C":
                self._column = min(self._columns - 1, self._column + many)
            case "", "D":
                self._column = max(0, min(self._column, self._columns - 1) - many)
            case "", "J" if values[0] == 0:
                del self._grid[self._row][self._column :]
                self._grid[self._row + 1 :] = [[] for _ in self._grid[self._row + 1 :]]
            case "", "K" if values[0] == 0:
                del self._grid[self._row][self._column :]
            case "", "n" if values[0] == 6:
                self._answer(f"\x1b[{self._row - self._top + 1};{self._column + 1}R")
            case "?", "h" | "l" if values[0] == 7:
                self._wraps = final == "h"
            case ("?", "h" | "l") | ("", "m"):
                pass
            case _:
                raise AssertionError(f"this terminal does not know CSI {private}{numbers}{final}")
