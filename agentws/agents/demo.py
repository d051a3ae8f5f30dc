"""The agent that is always there: it needs no network and no key, and shows what agents do.

It thinks, calls a tool (a calculator where the text holds arithmetic, else text statistics), streams an answer that
holds the result word by word, and completes.
"""

import ast
import asyncio
import math
import operator
import re
from collections.abc import Awaitable, Callable
from typing import Any

from agentws.ports import Run

__all__ = ["calculate", "describe", "find_arithmetic", "make_demo"]

# What arithmetic is made of, in linear time; longer ones are no arithmetic that a person asks for.
_ARITHMETIC = re.compile(r"[\d.()+\-*/%^ \t]+")
_LONGEST = 1000
_MAX_POWER = 1000
_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
_UNARY: dict[type[ast.unaryop], Callable[[Any], Any]] = {ast.UAdd: operator.pos, ast.USub: operator.neg}


def make_demo(words_per_s: float) -> Callable[[Run], Awaitable[None]]:
    """The demo agent.

    Args:
        words_per_s: how fast it answers; 0: all words at once.
    """

    async def demo(run: Run) -> None:
        expression = find_arithmetic(run.text)
        if expression is not None:
            await run.think(f"The text holds arithmetic: {expression}. I will calculate it.")
            answer = await _calculate(run, expression)
        else:
            await run.think("There is nothing to calculate. I will look at the text itself.")
            facts = await run.call_tool("text_statistics", describe, text=run.text)
            answer = f"You wrote {facts['words']} words in {facts['characters']} characters: {run.text}"
        for word in re.findall(r"\s*\S+\s*?(?=\s|$)|\s+$", answer):
            await run.write(word)
            if words_per_s:
                await asyncio.sleep(1 / words_per_s)

    return demo


async def _calculate(run: Run, expression: str) -> str:
    try:
        result = await run.call_tool("calculator", calculate, expression=expression)
    except ArithmeticError as error:
        return f"{expression} cannot be calculated: {error}."
    return f"{expression} = {result}"


def find_arithmetic(text: str) -> str | None:
    """The longest arithmetic expression in a text: at least one operator between numbers; None where there is none."""
    for found in sorted(_ARITHMETIC.finditer(text), key=lambda each: len(each[0]), reverse=True):
        expression = str(found[0]).strip()
        if not 3 <= len(expression) <= _LONGEST or not any(character.isdigit() for character in expression):
            continue
        try:
            tree = ast.parse(_python(expression), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        if isinstance(tree, ast.BinOp):
            return expression
    return None


async def calculate(expression: str) -> int | float:
    """The value of an arithmetic expression: numbers, + - * / // % ^ and brackets.

    Raises:
        ArithmeticError: if it has no value, or one too large.
    """
    try:
        value = _value(ast.parse(_python(expression), mode="eval").body)
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError) as error:
        raise ArithmeticError("this is not arithmetic") from error
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 1e15 else value


async def describe(text: str) -> dict[str, int]:
    """How many characters, words and lines a text has."""
    return {"characters": len(text), "words": len(text.split()), "lines": text.count("\n") + 1}


def _python(expression: str) -> str:
    return expression.replace("^", "**").strip()


def _value(node: ast.expr) -> int | float:
    match node:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            return _bounded(number)
        case ast.UnaryOp(op=op, operand=operand) if type(op) in _UNARY:
            return _bounded(_UNARY[type(op)](_value(operand)))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            first, second = _value(left), _value(right)
            if isinstance(op, ast.Pow) and (abs(second) > _MAX_POWER or abs(first) > 1e100):
                raise ArithmeticError("the number is too large")
            return _bounded(_BINARY[type(op)](first, second))
    raise ArithmeticError("this is not arithmetic")


def _bounded(value: Any) -> int | float:
    if isinstance(value, int) and value.bit_length() <= 63:
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    raise ArithmeticError("the number is too large")
