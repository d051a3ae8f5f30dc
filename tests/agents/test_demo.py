"""The demo agent: it thinks, calls a tool, and streams an answer that holds the result."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentws.agents.demo import calculate, describe, find_arithmetic, make_demo
from agentws.core.context import UserExecutionContext
from agentws.core.run import Message
from agentws.wire.ids import RunId, ThreadId

CONTEXT = UserExecutionContext(
    tenant_id="",
    user_id="u",
    thread_id=ThreadId("t"),
    run_id=RunId("r"),
    request_id="req-1",
    connection_id=None,
    created_at=datetime(2024, 5, 6, tzinfo=UTC),
)


class Sheet:
    """A run that notes what its agent does, in order."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.context = CONTEXT
        self.cancelled = False
        self.notes: list[tuple[str, Any]] = []

    async def think(self, reasoning: str) -> None:
        self.notes.append(("think", reasoning))

    async def write(self, text: str) -> None:
        self.notes.append(("write", text))

    async def call_tool(
        self, name: str, tool: Callable[..., Any] | Callable[..., Awaitable[Any]], /, **parameters: Any
    ) -> Any:
        self.notes.append(("tool", (name, parameters)))
        return await tool(**parameters)

    async def emit(self, name: str, value: Any) -> None:
        self.notes.append(("emit", name))

    async def progress(self, progress: float | None = None, message: str | None = None) -> None:
        self.notes.append(("progress", progress))

    async def history(self, limit: int = 50, before: Message | None = None) -> Sequence[Message]:
        return []

    @property
    def steps(self) -> list[str]:
        return [step for step, _ in self.notes]

    @property
    def words(self) -> list[str]:
        return [note for step, note in self.notes if step == "write"]


async def played(text: str) -> Sheet:
    sheet = Sheet(text)
    await make_demo(0)(sheet)
    return sheet


FOUND: list[tuple[str, str | None]] = [
    ("what is 2+2?", "2+2"),
    ("2 + 2 = 4", "2 + 2"),
    ("please: 12 * (3 + 4) / 7 now", "12 * (3 + 4) / 7"),
    ("1+1 and 10+20+30", "10+20+30"),
    ("2^10", "2^10"),
    ("2**3", "2**3"),
    ("7 // 2", "7 // 2"),
    ("7 % 4", "7 % 4"),
    ("-3 - -4", "-3 - -4"),
    ("1.5*2", "1.5*2"),
    ("1/0", "1/0"),
    ("line 1\n2+3\n4", "2+3"),
    ("", None),
    ("hello", None),
    ("-5", None),
    ("42", None),
    ("1 2", None),
    ("50% of it", None),
    ("version 3.5.2", None),
    ("(1+2", None),
    ("a/b + c", None),
    ("007+1", None),
    ("call 5 (2+3)", None),
    ("...", None),
    ("()" * 50, None),
    ("(" * 500 + "1+1" + ")" * 500, None),
]


@pytest.mark.parametrize(("text", "expression"), FOUND)
def test_the_longest_arithmetic_of_a_text_is_found(text: str, expression: str | None) -> None:
    assert find_arithmetic(text) == expression


VALUES: list[tuple[str, int | float]] = [
    ("2+2", 4),
    ("12 * (3 + 4) / 7", 12),
    ("7/2", 3.5),
    ("7//2", 3),
    ("-7 % 3", 2),
    ("2^10", 1024),
    ("2**-1", 0.5),
    ("2^3^2", 512),
    ("-3 - -4", 1),
    ("+5", 5),
    ("0.1+0.2", 0.1 + 0.2),
    ("10/5", 2),
    ("2^62 + (2^62 - 1)", 2**63 - 1),
    ("1/3", 1 / 3),
    (" 1 ", 1),
]


@pytest.mark.parametrize(("expression", "value"), VALUES)
async def test_arithmetic_is_calculated(expression: str, value: float) -> None:
    result = await calculate(expression)
    assert (result, type(result)) == (value, type(value))


@pytest.mark.parametrize(
    "expression",
    [
        *(
            "1/0",
            "1//0",
            "1%0",
            "0^-1",
            "2^63",
            "2^1001",
            "10^1000",
            "(-8)^0.5",
            "9.9^999",
            "10^18*10",
            "9" * 30 + "*1",
        ),
        *(
            "",
            "()",
            "1+",
            "two",
            "1 2",
            "1<2",
            "'a'*3",
            "1j",
            "True+1",
            "[1][0]",
            "f(1)",
            "a.b",
            "1 if 1 else 2",
            "x:=1",
        ),
        *("__import__('os')", "lambda: 1", "1; 2", "~1", "not 1", "1 << 2", "1 @ 2", "(1, 2)", "\0", "9" * 5000),
        "(" * 5000 + "1" + ")" * 5000,
    ],
    ids=lambda expression: ascii(expression)[:30],
)
async def test_what_has_no_value_or_too_large_a_one_is_an_arithmetic_error(expression: str) -> None:
    with pytest.raises(ArithmeticError):
        await calculate(expression)


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        ("", {"characters": 0, "words": 0, "lines": 1}),
        ("hello there", {"characters": 11, "words": 2, "lines": 1}),
        ("a\nb\n🎈", {"characters": 5, "words": 3, "lines": 3}),
    ],
)
async def test_a_text_is_described(text: str, facts: dict[str, int]) -> None:
    assert await describe(text) == facts


async def test_arithmetic_is_given_to_the_calculator_and_answered() -> None:
    sheet = await played("what is 6 * 7, please?")
    assert sheet.steps[:3] == ["think", "tool", "write"]
    assert sheet.notes[1] == ("tool", ("calculator", {"expression": "6 * 7"}))
    assert "6 * 7 = 42" in "".join(sheet.words)


async def test_any_other_text_is_described_and_repeated() -> None:
    sheet = await played("hello there, agent")
    assert sheet.steps[:3] == ["think", "tool", "write"]
    assert sheet.notes[1] == ("tool", ("text_statistics", {"text": "hello there, agent"}))
    answer = "".join(sheet.words)
    assert "3 words in 18 characters" in answer
    assert answer.endswith("hello there, agent")


async def test_what_cannot_be_calculated_is_said() -> None:
    sheet = await played("1/0")
    assert "1/0 cannot be calculated" in "".join(sheet.words)


async def test_the_answer_comes_word_by_word() -> None:
    words = (await played("one  two\nthree four ")).words
    assert len(words) >= 8
    assert all(len(word.split()) <= 1 for word in words)
    assert "".join(words).endswith("one  two\nthree four ")


@settings(database=None, deadline=None)
@given(st.text(st.sampled_from("a é🎈\n\t\u2028.1+"), max_size=40))
def test_the_words_are_the_whole_answer(text: str) -> None:
    sheet = asyncio.run(played(text))
    answer = "".join(sheet.words)
    assert sheet.steps[:2] == ["think", "tool"]
    assert "" not in sheet.words
    if sheet.notes[1][1][0] == "text_statistics":
        assert answer.endswith(f"characters: {text}")


@pytest.mark.parametrize("words_per_s", [30.0, 1000.0])
async def test_words_come_at_their_pace(words_per_s: float, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    async def note(delay: float) -> None:
        waits.append(delay)

    monkeypatch.setattr(asyncio, "sleep", note)
    sheet = Sheet("one two three")
    await make_demo(words_per_s)(sheet)
    assert waits == [1 / words_per_s] * len(sheet.words)


@pytest.mark.parametrize("text", [" " * 1_000_000 + "x", "(" * 1_000_000, "1+" * 500_000, "9" * 1_000_000])
def test_a_text_made_to_be_slow_is_looked_through_once(text: str) -> None:
    # Were it quadratic, this would take hours.
    assert find_arithmetic(text) is None


@pytest.mark.parametrize(
    "expression", ["10.0^200*10.0^200", "10.0^200*10.0^200-10.0^200*10.0^200", "9" * 400, "(-8)^0.5", "2^63", "1/0"]
)
async def test_what_has_no_value_that_can_be_told_is_an_arithmetic_error(expression: str) -> None:
    with pytest.raises(ArithmeticError):
        await calculate(expression)
