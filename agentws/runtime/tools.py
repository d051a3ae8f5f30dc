"""How a tool is called, and what of its result can be kept."""

import asyncio
import contextvars
import inspect
import logging
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future
from contextlib import suppress
from functools import partial
from typing import Any

import msgspec

from agentws.wire.codec import clean, encode

__all__ = [
    "MAX_RESULT_BYTES",
    "MOST_AT_WORK",
    "MOST_LEFT",
    "ResultError",
    "StopSign",
    "TooManyLeft",
    "ToolCall",
    "ToolThreads",
    "encode_value",
    "invoke",
    "is_async",
    "stopping",
]

log = logging.getLogger("agentws.runtime")

MAX_RESULT_BYTES = 256 * 1024
MOST_AT_WORK = 64
MOST_LEFT = 64


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


class StopSign:
    """Whether a run is stopping, for its tools; and until when, by the loop's time, those in threads are waited for."""

    def __init__(self) -> None:
        self.is_up = False
        self.wait_until: float | None = None

    def put_up(self, *, wait_until: float | None) -> None:
        """The run is stopping from now on. None: nobody waits for a tool in a thread."""
        self.wait_until = wait_until
        self.is_up = True


class ToolCall:
    """One call of a tool: what the tool may ask, and what is known of it when its caller was cancelled.

    Args:
        check: asked at the last moment before the tool is called; raises where it must not be.

    Attributes:
        sign: its run's.
        began: the tool has been called.
        left: it goes on in a thread, though nobody waits for it.
        owed: its result was there when its caller was cancelled, which the caller has not been told yet.
    """

    def __init__(self, sign: StopSign, *, check: Callable[[], None] | None = None) -> None:
        self.sign = sign
        self._check = check
        self.began = False
        self.left = False
        self.owed = False
        # An agent that was stopped may call tools to clean up; what it had asked for before is not called any more.
        self._cleans_up = sign.is_up
        self._withdrawn = False

    def withdraw(self) -> None:
        """It is not to be called any more."""
        self._withdrawn = True

    def begin(self) -> None:
        """Asked at the last moment before the tool is called. Raises CancelledError where it must not be any more."""
        if self._withdrawn or (self.sign.is_up and not self._cleans_up):
            raise asyncio.CancelledError
        if self._check is not None:
            self._check()
        self.began = True


_current: contextvars.ContextVar[ToolCall | None] = contextvars.ContextVar("agentws_tool_call", default=None)


def stopping() -> bool:
    """Whether the tool that asks should end: its run is stopping, or nobody waits for this call of it any more.

    For tools in threads, which cannot be cancelled; a loop in one asks it now and then. False outside a tool.
    """
    call = _current.get()
    return call is not None and (call.left or call.sign.is_up)


class TooManyLeft(RuntimeError):
    """So many tools in threads have not ended after they were left that no other is called."""


class ToolThreads:
    """Tools that are no coroutine functions, each called in a thread.

    At most `most` are at work at once, further ones wait. A thread cannot be ended: one that is left goes on beside
    those, and while `most_left` of them do, no other tool is called. So no more threads are needed than both together.

    Args:
        executor: of so many threads.
    """

    def __init__(self, executor: Executor, *, most: int = MOST_AT_WORK, most_left: int = MOST_LEFT) -> None:
        self._executor = executor
        self._most = most
        self._most_left = most_left
        self._busy = 0
        self._left: set[asyncio.Future[None]] = set()
        self._waiting: deque[asyncio.Future[bool]] = deque()

    @property
    def at_work(self) -> int:
        """How many calls are in a thread, or wait for one."""
        return self._busy + len(self._left) + len(self._waiting)

    @property
    def abandoned(self) -> int:
        """How many calls go on although nobody waits for them any more."""
        return len(self._left)

    async def call(self, tool: Callable[..., Any], parameters: Mapping[str, Any], call: ToolCall) -> Any:
        """Calls a tool with this task's context variables.

        Cancelled while the run is stopping, it waits for the call to end as long as the sign says; else, and when it is
        cancelled once more, it leaves a call that has begun to itself.

        Raises:
            TooManyLeft: nothing was called.
        """
        await self._take_turn()
        loop = asyncio.get_running_loop()
        ended = loop.create_future()
        try:
            call.begin()
            work = self._executor.submit(contextvars.copy_context().run, partial(_call, tool, parameters))
        except BaseException:
            self._give_turn()
            raise
        ended.add_done_callback(self._on_ended)
        work.add_done_callback(partial(_tell, loop, ended))
        try:
            await asyncio.shield(ended)
        except asyncio.CancelledError:
            if not work.done():
                try:
                    await _wait(ended, until=call.sign.wait_until if call.sign.is_up else None)
                finally:
                    self._leave(work, ended, call)
                raise
            call.owed = True
        return work.result()

    def _leave(self, work: "Future[Any]", ended: "asyncio.Future[None]", call: ToolCall) -> None:
        """Lets a call go on by itself, unless it has ended by now, or not begun."""
        if work.done() or work.cancel():
            return
        call.left = True
        self._left.add(ended)
        self._give_turn()

    def _on_ended(self, ended: "asyncio.Future[None]") -> None:
        if ended in self._left:
            self._left.remove(ended)
        else:
            self._give_turn()

    async def _take_turn(self) -> None:
        if self._is_full:
            raise self._refusal()
        if self._busy < self._most:
            self._busy += 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            may = await turn
        except asyncio.CancelledError:
            if not turn.cancelled():
                # It was given in the moment of the cancellation.
                if turn.result():
                    self._give_turn()
            else:
                with suppress(ValueError):
                    self._waiting.remove(turn)
            raise
        if not may:
            raise self._refusal()

    def _give_turn(self) -> None:
        self._busy -= 1
        self._serve_waiting()

    def _serve_waiting(self) -> None:
        while self._waiting and (self._is_full or self._busy < self._most):
            turn = self._waiting.popleft()
            if not turn.done():
                may = not self._is_full
                self._busy += may
                turn.set_result(may)

    @property
    def _is_full(self) -> bool:
        return len(self._left) >= self._most_left

    def _refusal(self) -> TooManyLeft:
        log.error("%d tools in threads have not ended after they were left; no other is called", len(self._left))
        return TooManyLeft(f"{len(self._left)} tools in threads have not ended after they were left")


async def _wait(ended: "asyncio.Future[None]", *, until: float | None) -> None:
    """Waits for a call's end until the loop's time is `until`; None: not at all."""
    if until is not None:
        with suppress(TimeoutError):
            async with asyncio.timeout_at(until):
                await asyncio.shield(ended)


def _tell(loop: asyncio.AbstractEventLoop, ended: "asyncio.Future[None]", _: "Future[Any]") -> None:
    # Comes from the call's thread; where the loop is closed by then, nobody counts any more.
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(_set, ended)


def _set(ended: "asyncio.Future[None]") -> None:
    ended.set_result(None)


async def invoke(
    tool: Callable[..., Any], parameters: Mapping[str, Any], *, threads: ToolThreads, call: ToolCall | None = None
) -> Any:
    """Calls a tool: a coroutine function here, any other in a thread, with this task's context variables.

    A thread cannot be cancelled: where this call is, it is waited for or left, as `ToolThreads.call` says.
    """
    call = call or ToolCall(StopSign())
    token = _current.set(call)
    try:
        if is_async(tool):
            call.begin()
            return await tool(**parameters)
        result = await threads.call(tool, parameters, call)
        if not inspect.isawaitable(result):
            return result
        if call.owed and inspect.iscoroutine(result):
            # The thread has only made it: it is not begun.
            result.close()
            raise asyncio.CancelledError
        return await result
    finally:
        _current.reset(token)


def _call(tool: Callable[..., Any], parameters: Mapping[str, Any]) -> Any:
    try:
        return tool(**parameters)
    except StopIteration as error:
        # A future cannot hold this one, and whoever waits for it would wait for ever.
        raise RuntimeError("the tool raised StopIteration") from error


def is_async(tool: Callable[..., Any]) -> bool:
    """Whether a tool runs in the loop, so that it can be cancelled."""
    return inspect.iscoroutinefunction(tool) or inspect.iscoroutinefunction(getattr(tool, "__call__", None))  # noqa: B004
