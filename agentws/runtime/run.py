"""The run that an agent is handed: `Run` over a recorder."""

import asyncio
import logging
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import msgspec

from agentws.core.context import UserExecutionContext, freeze
from agentws.core.run import Claim, Draft, Message
from agentws.ports import Journal
from agentws.runtime.recorder import Recorder
from agentws.runtime.tally import Tally
from agentws.runtime.tools import ResultError, StopSign, ToolCall, ToolThreads, encode_value, invoke
from agentws.wire.codec import clean, encode_text
from agentws.wire.errors import CATALOGUE
from agentws.wire.events import (
    NULL,
    AgentEvent,
    AgentThinking,
    EventType,
    NamedProgress,
    Outcome,
    ToolCompleted,
    ToolError,
    ToolExecuting,
)
from agentws.wire.ids import request_id_of

__all__ = ["AgentRun", "context_of"]

log = logging.getLogger("agentws.runtime")

MAX_EVENT_BYTES = 64 * 1024
_NAMESPACED = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)+")
_execution: ContextVar["tuple[str, str] | None"] = ContextVar("agentws_execution", default=None)


@dataclass(frozen=True, slots=True)
class _Open:
    """A tool between its two events. `began` by the monotonic clock."""

    name: str
    began: float
    call: ToolCall


class AgentRun:
    """Keeps which tools are open, so that whoever ends the run can close them.

    Args:
        held: whether this process holds the lease that the run was claimed under.
        drop: leaves the run, because it does not.
    """

    def __init__(
        self,
        claim: Claim,
        context: UserExecutionContext,
        recorder: Recorder,
        tally: Tally,
        *,
        journal: Journal,
        threads: ToolThreads,
        held: Callable[[], bool],
        drop: Callable[[], None],
    ) -> None:
        self.context = context
        self.text = claim.text
        self._claim = claim
        self._recorder = recorder
        self._tally = tally
        self._journal = journal
        self._threads = threads
        self._held = held
        self._drop = drop
        self._steps = 0
        self._calls = 0
        self._open: dict[str, _Open] = {}
        self._callers: dict[str, asyncio.Task[Any]] = {}
        self._sign = StopSign()
        self._has_left = False

    @property
    def cancelled(self) -> bool:
        return self._sign.is_up

    async def think(self, reasoning: str) -> None:
        self._steps += 1
        thought = AgentThinking(reasoning=clean(reasoning), step=self._steps, offset=0)
        self._recorder.add(Draft(EventType.AGENT_THINKING, encode_text(thought)))
        await self._recorder.room()

    async def write(self, text: str) -> None:
        self._recorder.add_text(text)
        await self._recorder.room()

    async def emit(self, name: str, value: Any) -> None:
        if len(name) > 128 or not _NAMESPACED.fullmatch(name):
            raise ValueError(f"{name!r} is no namespaced name, such as app.thing")
        try:
            encoded = encode_value(value, what="the value", most=MAX_EVENT_BYTES)
        except ResultError as error:
            raise ValueError(str(error)) from error
        event = AgentEvent(name=name, value=msgspec.Raw(encoded))
        self._recorder.add(Draft(EventType.AGENT_EVENT, encode_text(event)))
        await self._recorder.room()

    async def progress(self, progress: float | None = None, message: str | None = None) -> None:
        execution = _execution.get()
        if execution is None or execution[0] not in self._open:
            raise RuntimeError("progress is told from inside a tool")
        share = None if progress is None else float(progress)
        if share is not None and not 0 <= share <= 1:
            raise ValueError("progress is a number from 0 to 1")
        told = NamedProgress(
            execution_id=execution[0],
            tool_name=execution[1],
            progress=msgspec.UNSET if share is None else share,
            message=msgspec.UNSET if message is None else clean(message),
        )
        self._recorder.add(Draft(EventType.TOOL_PROGRESS, encode_text(told)))
        await self._recorder.room()

    async def history(self, limit: int = 50, before: Message | None = None) -> Sequence[Message]:
        if not 1 <= limit <= 1000:
            raise ValueError("limit is a number from 1 to 1000")
        return await self._journal.read_messages(self._claim, before=before, limit=limit)

    async def call_tool(self, name: str, tool: Callable[..., Any], /, **parameters: Any) -> Any:
        name = _tool_name(name)
        call = ToolCall(self._sign, check=self._check_lease)
        execution_id = self._begin(name, encode_value(parameters, what=f"the parameters of tool {name!r}"), call)
        with self._calling(execution_id, name, call):
            try:
                await self._recorder.committed()
                result = await invoke(tool, parameters, threads=self._threads, call=call)
                kept = encode_value(result, what=f"the result of tool {name!r}")
            except asyncio.CancelledError:
                # By now a coroutine has ended, and so has a thread, unless it was left: nobody knows what that will do.
                self._has_left = self._has_left or call.left
                self._close(execution_id, Outcome.UNKNOWN if call.left else Outcome.STOPPED, "tool_stopped")
                raise
            except ResultError as error:
                self._close(execution_id, Outcome.FAILED, error.code)
                raise
            except (SystemExit, KeyboardInterrupt) as error:
                # A tool does not end the server; in a task of its own, which the agent made, it would.
                self._close(execution_id, Outcome.FAILED, "tool_failed")
                raise RuntimeError(f"tool {name!r} raised {type(error).__name__}") from error
            except Exception:
                log.info("tool %s failed in run %s", name, self.context.run_id, exc_info=True)
                self._close(execution_id, Outcome.FAILED, "tool_failed")
                raise
            self._close(execution_id, Outcome.DONE, None, kept)
        await self._recorder.room()
        return result

    @contextmanager
    def _calling(self, execution_id: str, name: str, call: ToolCall) -> Iterator[None]:
        """This task is in a tool. A stop that came meanwhile reaches the agent, whatever the tool has made of it."""
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a tool is called from a task")
        cancelled_before = task.cancelling()
        token = _execution.set((execution_id, name))
        self._callers[execution_id] = task
        try:
            yield
        finally:
            _execution.reset(token)
            del self._callers[execution_id]
            if call.owed or (self.cancelled and task.cancelling() > cancelled_before):
                raise asyncio.CancelledError

    def stop(self, *, wait_until: float | None) -> None:
        """Tells tools that the run is stopping; until that time of the loop those in threads are waited for."""
        self._sign.put_up(wait_until=wait_until)

    @property
    def in_tools(self) -> bool:
        """Whether a tool of it may be at work here: one that is called, or one in a thread that was left."""
        return self._has_left or bool(self._callers)

    def leave(self) -> set["asyncio.Task[Any]"]:
        """Waits for nothing any more, and calls no tool that was asked for; returns the tasks that are in one."""
        self.stop(wait_until=None)
        for each in self._open.values():
            each.call.withdraw()
        return set(self._callers.values())

    def _check_lease(self) -> None:
        """Nothing is called where another may have taken the run over since its tool was committed, as in a pause.

        That tool is left open: whoever takes over closes it, and cannot know that it was not called.
        """
        if not self._held():
            log.error("run %s is left before a tool is called: the lease is not held", self.context.run_id)
            self._drop()
            raise asyncio.CancelledError

    def _begin(self, name: str, parameters: bytes, call: ToolCall) -> str:
        self._calls += 1
        execution_id = f"{self._claim.run_no:016x}.{self._recorder.attempt}.{self._calls}"
        executing = ToolExecuting(execution_id=execution_id, tool_name=name, parameters=msgspec.Raw(parameters))
        self._recorder.add(Draft(EventType.TOOL_EXECUTING, encode_text(executing)))
        self._open[execution_id] = _Open(name, time.monotonic(), call)
        return execution_id

    def _close(self, execution_id: str, outcome: Outcome, code: str | None, result: bytes | None = None) -> None:
        # A run that has ended meanwhile has closed its tools already.
        if execution_id in self._open and not self._recorder.closed:
            self._recorder.add(self._completed(execution_id, outcome, code, result))

    def close_open(self, code: str) -> list[Draft]:
        """What closes the tools that nobody else can close any more; what one that was called did is not known."""
        drafts = []
        for execution_id, each in tuple(self._open.items()):
            each.call.withdraw()
            outcome = Outcome.UNKNOWN if each.call.began else Outcome.STOPPED
            drafts.append(self._completed(execution_id, outcome, code, None))
        return drafts

    def _completed(self, execution_id: str, outcome: Outcome, code: str | None, result: bytes | None) -> Draft:
        opened = self._open.pop(execution_id)
        took_s = time.monotonic() - opened.began
        self._tally.tool(outcome, took_s)
        completed = ToolCompleted(
            execution_id=execution_id,
            tool_name=opened.name,
            success=outcome is Outcome.DONE,
            outcome=outcome,
            result=NULL if result is None else msgspec.Raw(result),
            error=None if code is None else ToolError(code=code, message=CATALOGUE[code].text),
            duration_ms=round(took_s * 1000),
        )
        return Draft(EventType.TOOL_COMPLETED, encode_text(completed))


def context_of(claim: Claim, *, attempt: int) -> UserExecutionContext:
    """What an agent may know of the request that a claim stands for."""
    given = {} if claim.context is None else {"context": freeze(msgspec.json.decode(claim.context))}
    return UserExecutionContext(
        tenant_id=claim.principal.tenant_id,
        user_id=claim.principal.user_id,
        thread_id=claim.thread_id,
        run_id=claim.run_id,
        request_id=request_id_of(claim.run_no),
        connection_id=claim.connection_id,
        created_at=claim.accepted_at,
        attempt=attempt,
        **given,
    )


def _tool_name(name: str) -> str:
    if not isinstance(name, str):
        raise TypeError(f"a tool's name is text, not {name!r}")
    if not 1 <= len(name) <= 128:
        raise ValueError("a tool's name has 1 to 128 characters")
    return clean(name)
