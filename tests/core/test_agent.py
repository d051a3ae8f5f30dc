"""What an agent may be, and what it declares of itself."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import pytest

from agentws.core.agent import AgentSpec, agent, declare


async def plain(run: Any) -> None: ...


async def two(extra: int, run: Any) -> None: ...


def synchronous(run: Any) -> None: ...


async def generator(run: Any) -> Any:
    yield run


class Answering:
    async def __call__(self, run: Any) -> None: ...


class Silent:
    def __call__(self, run: Any) -> None: ...


@pytest.mark.parametrize("call", [plain, Answering(), partial(two, 5)], ids=["function", "object", "partial"])
def test_a_coroutine_function_is_an_agent_with_the_defaults(call: Any) -> None:
    specs = declare({"a": call})
    assert specs == {"a": AgentSpec(name="a", call=call, on_crash="fail", timeout_s=None)}


@pytest.mark.parametrize("call", [synchronous, generator, Silent(), None, 5, "plain", lambda run: plain(run)])
def test_anything_else_is_no_agent(call: object) -> None:
    with pytest.raises(TypeError, match="'a'"):
        declare({"a": call})


@pytest.mark.parametrize("name", ["a", "x" * 128, "Forscher ü"])
def test_an_agent_has_a_name_of_1_to_128_characters(name: str) -> None:
    assert declare({name: plain})[name].name == name


@pytest.mark.parametrize("name", ["", "x" * 129])
def test_another_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="1 to 128"):
        declare({name: plain})


def test_the_first_agent_stays_the_first() -> None:
    assert list(declare({"b": plain, "a": plain, "c": plain})) == ["b", "a", "c"]
    assert declare({}) == {}


DECLARATIONS: list[tuple[dict[str, Any], Literal["fail", "restart"], float | None]] = [
    ({}, "fail", None),
    ({"on_crash": "restart"}, "restart", None),
    ({"timeout_s": 0.5}, "fail", 0.5),
    ({"on_crash": "fail", "timeout_s": 3}, "fail", 3),
]


@pytest.mark.parametrize(("given", "on_crash", "timeout_s"), DECLARATIONS)
def test_an_agent_declares_what_differs(
    given: dict[str, Any], on_crash: Literal["fail", "restart"], timeout_s: float | None
) -> None:
    async def mine(run: Any) -> None: ...

    decorate: Callable[[Any], Any] = agent(**given)
    assert decorate(mine) is mine
    assert declare({"a": mine})["a"] == AgentSpec(name="a", call=mine, on_crash=on_crash, timeout_s=timeout_s)


@pytest.mark.parametrize("given", [{"on_crash": "retry"}, {"on_crash": None}, {"timeout_s": 0}, {"timeout_s": -1.0}])
def test_a_declaration_that_makes_no_sense_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"on_crash|timeout_s"):
        agent(**given)
