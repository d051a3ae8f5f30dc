"""How a tool is called, and what of its result can be kept."""

import asyncio
import contextvars
import inspect
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future
from functools import partial
from typing import Any

import msgspec

from agentws.wire.codec import clean, encode

__all__ = ["MAX_RESULT_BYTES", "ResultError", "ToolThreads", "encode_value", "invoke", "is_async"]

MAX_RESULT_BYTES = 256 * 1024


class ResultError(TypeError):
    """A value that cannot be kept: it is no JSON, or too large. `code` is the catalogue's."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


def encode_value(value: Any, *, what: str, most: int = MAX_RESULT_BYTES) -> bytes:
    """The JSON of something that an agent or a tool hands over; lone surrogates, which are no text, are replaced.

    Args:
        value: anything msgspec encodes: None, numbers, text, lists, dicts, dataclasses, structs, times.
        what: how to name it in an error.
        most: the greatest size in bytes.

    Raises:
        ResultError: `tool_failed` if it cannot be encoded, `tool_too_large` if it is longer than `most`.
    """
    try:
        encoded = _encode(value)
    except (TypeError, ValueError, RecursionError, OverflowError) as error:
        raise ResultError("tool_failed", f"{what} cannot be written as JSON: {error}") from error
    if len(encoded) > most:
        raise ResultError("tool_too_large", f"{what} is {len(encoded)} bytes of JSON, at most {most} are kept")
    return encoded


def _encode(value: Any) -> bytes:
    try:
        return encode(value)
    except UnicodeEncodeError:
        return encode(_cleaned(msgspec.to_builtins(value)))


def _cleaned(value: Any) -> Any:
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, Mapping):
        return {_cleaned(name): _cleaned(each) for name, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_cleaned(each) for each in value]
    return value


class ToolThreads:
    """Tools that are no coroutine functions, each called in a thread; a thread goes on when nobody waits for it."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._calls: set[Future[Any]] = set()
        self._abandoned: set[Future[Any]] = set()

    @property
    def at_work(self) -> int:
        """How many calls are in a thread, or wait for one."""
        return len(self._calls)

    @property
    def abandoned(self) -> int:
        """How many calls go on although nobody waits for them any more."""
        return len(self._abandoned)

    async def call(self, tool: Callable[..., Any], parameters: Mapping[str, Any]) -> Any:
        """Calls a tool with this task's context variables; cancelled, it leaves a call that has begun to itself."""
        call = self._executor.submit(contextvars.copy_context().run, partial(_call, tool, parameters))
        # Callbacks come from the call's thread: a set's own operations are safe for that.
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)
        try:
            return await asyncio.wrap_future(call)
        except asyncio.CancelledError:
            if not call.done():
                self._abandoned.add(call)
                call.add_done_callback(self._abandoned.discard)
            raise


async def invoke(tool: Callable[..., Any], parameters: Mapping[str, Any], *, threads: ToolThreads) -> Any:
    """Calls a tool: a coroutine function here, any other in a thread, with this task's context variables.

    A thread cannot be cancelled: where this call is, the thread goes on and its result is dropped.
    """
    if is_async(tool):
        return await tool(**parameters)
    result = await threads.call(tool, parameters)
    return await result if inspect.isawaitable(result) else result


def _call(tool: Callable[..., Any], parameters: Mapping[str, Any]) -> Any:
    try:
        return tool(**parameters)
    except StopIteration as error:
        # A future cannot hold this one, and whoever waits for it would wait for ever.
        raise RuntimeError("the tool raised StopIteration") from error


def is_async(tool: Callable[..., Any]) -> bool:
    """Whether a tool runs in the loop, so that it can be cancelled."""
    return inspect.iscoroutinefunction(tool) or inspect.iscoroutinefunction(getattr(tool, "__call__", None))  # noqa: B004
