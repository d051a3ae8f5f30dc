"""How tools are called, and what of a result can be kept."""

import asyncio
import contextvars
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest

from agentws.runtime.tools import (
    MAX_RESULT_BYTES,
    ResultError,
    ToolThreads,
    encode_value,
    invoke,
    is_async,
)

who: contextvars.ContextVar[str] = contextvars.ContextVar("who")


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as made:
        yield made


@dataclass
class Point:
    x: int


SAME: list[Any] = [None, True, 0, -1.5, 2**63, "é🎈\n", [], {}, {"a": [None, {"b": 1}]}]
KEPT: list[tuple[Any, Any]] = [
    *((each, each) for each in SAME),
    ((1, 2), [1, 2]),
    ({3}, [3]),
    (Point(1), {"x": 1}),
    (b"hi", "aGk="),
    ({1: "a"}, {"1": "a"}),
    (datetime(2024, 5, 6, tzinfo=UTC), "2024-05-06T00:00:00Z"),
    (float("nan"), None),
    (float("inf"), None),
]


@pytest.mark.parametrize(("value", "kept"), KEPT, ids=repr)
def test_what_json_can_hold_is_kept(value: Any, kept: Any) -> None:
    assert json.loads(encode_value(value, what="it")) == kept


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ("a\ud800b", "a\ufffdb"),
        (["\ud800", ("\udfff",), {"\ud800": frozenset({"\ud800"})}], ["\ufffd", ["\ufffd"], {"\ufffd": ["\ufffd"]}]),
        ("\ud83c\udf88", "🎈"),
    ],
)
def test_text_that_is_no_text_is_replaced(value: Any, kept: Any) -> None:
    assert json.loads(encode_value(value, what="it")) == kept


def endless() -> list[object]:
    value: list[object] = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    "value",
    [object(), [object()], {(1, 2): 3}, lambda: None, 10**5000, endless(), ["\ud800", object()], 1j],
    ids=lambda value: type(value).__name__,
)
def test_what_json_cannot_hold_is_a_failed_tool(value: object) -> None:
    with pytest.raises(ResultError, match=r"^it cannot be written as JSON") as caught:
        encode_value(value, what="it")
    assert caught.value.code == "tool_failed"
    assert isinstance(caught.value, TypeError)


@pytest.mark.parametrize("most", [10, MAX_RESULT_BYTES])
def test_a_value_is_kept_up_to_its_size_in_bytes_of_json(most: int) -> None:
    fits = "é" * ((most - 2) // 2)
    assert len(encode_value(fits, what="it", most=most)) == most
    with pytest.raises(ResultError, match=rf"^it is {most + 1} bytes of JSON, at most {most} are kept$") as caught:
        encode_value(fits + "x", what="it", most=most)
    assert caught.value.code == "tool_too_large"


def test_a_result_may_have_256_kib() -> None:
    assert MAX_RESULT_BYTES == 256 * 1024
    with pytest.raises(ResultError):
        encode_value("x" * MAX_RESULT_BYTES, what="it")


async def double(value: int) -> int:
    return 2 * value


def double_in_thread(value: int) -> int:
    return 2 * value


class Doubling:
    async def __call__(self, value: int) -> int:
        return 2 * value


class DoublingInThread:
    def __call__(self, value: int) -> int:
        return 2 * value


IN_LOOP = [double, Doubling(), partial(double)]
IN_THREAD = [double_in_thread, DoublingInThread(), partial(double_in_thread), lambda value: double(value)]


@pytest.mark.parametrize("tool", [*IN_LOOP, *IN_THREAD])
async def test_a_tool_is_called_with_its_parameters(tool: Any, executor: ThreadPoolExecutor) -> None:
    assert await invoke(tool, {"value": 21}, threads=ToolThreads(executor)) == 42


@pytest.mark.parametrize("tool", IN_LOOP)
def test_what_runs_in_the_loop_can_be_cancelled(tool: Any) -> None:
    assert is_async(tool)


@pytest.mark.parametrize("tool", IN_THREAD)
def test_what_runs_in_a_thread_cannot(tool: Any) -> None:
    assert not is_async(tool)


async def test_a_synchronous_tool_runs_in_a_thread_and_an_asynchronous_one_does_not(
    executor: ThreadPoolExecutor,
) -> None:
    async def here() -> int:
        return threading.get_ident()

    own = threading.get_ident()
    assert await invoke(here, {}, threads=ToolThreads(executor)) == own
    assert await invoke(threading.get_ident, {}, threads=ToolThreads(executor)) != own


@pytest.mark.parametrize("name", ["tool", "self", "func", "callable", "parameters", "executor", "context"])
async def test_a_parameter_may_have_any_name(name: str, executor: ThreadPoolExecutor) -> None:
    def given(**parameters: int) -> dict[str, int]:
        return parameters

    assert await invoke(given, {name: 1}, threads=ToolThreads(executor)) == {name: 1}


async def test_a_tool_sees_the_context_variables_of_its_run_and_sets_none(executor: ThreadPoolExecutor) -> None:
    who.set("alice")

    def look() -> str:
        seen = who.get()
        who.set("mallory")
        return seen

    assert await invoke(look, {}, threads=ToolThreads(executor)) == "alice"
    assert who.get() == "alice"


@pytest.mark.parametrize("in_loop", [True, False])
async def test_what_a_tool_raises_is_raised(in_loop: bool, executor: ThreadPoolExecutor) -> None:
    def fail() -> None:
        raise LookupError("nothing there")

    async def fail_in_loop() -> None:
        fail()

    with pytest.raises(LookupError, match="nothing there"):
        await invoke(fail_in_loop if in_loop else fail, {}, threads=ToolThreads(executor))


async def test_the_loop_goes_on_while_a_synchronous_tool_works(executor: ThreadPoolExecutor) -> None:
    go_on = threading.Event()
    call = asyncio.create_task(invoke(go_on.wait, {"timeout": 30}, threads=ToolThreads(executor)))
    asyncio.get_running_loop().call_soon(go_on.set)
    assert await call is True


async def test_an_asynchronous_tool_can_be_cancelled(executor: ThreadPoolExecutor) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def hang() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    call = asyncio.create_task(invoke(hang, {}, threads=ToolThreads(executor)))
    await begun.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert ended.is_set()


async def test_a_call_in_a_thread_can_be_left_and_its_result_is_dropped(executor: ThreadPoolExecutor) -> None:
    loop, begun, go_on = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

    def wait() -> str:
        loop.call_soon_threadsafe(begun.set)
        go_on.wait(30)
        return "too late"

    call = asyncio.create_task(invoke(wait, {}, threads=ToolThreads(executor)))
    await begun.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    go_on.set()
    assert await invoke(double_in_thread, {"value": 1}, threads=ToolThreads(executor)) == 2


async def test_a_tool_in_a_thread_that_raises_stop_iteration_is_not_waited_for_for_ever() -> None:
    def tool() -> None:
        next(iter([]))

    with ThreadPoolExecutor(1) as threads:
        async with asyncio.timeout(20):
            with pytest.raises(RuntimeError, match="StopIteration"):
                await invoke(tool, {}, threads=ToolThreads(threads))
