"""What a server has told on one line: every frame in the order of its coming, each held to its row, and waited for with
a bound that only a hang reaches."""

import asyncio
import json
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import TypeAlias, TypeVar
from uuid import uuid4

from .reader import Reader
from .shapes import EVENTS, TERMINAL, Frame, check_frame

__all__ = ["PATIENCE_S", "Match", "Told", "assert_nothing_internal", "fresh", "of_run", "of_type", "until"]

PATIENCE_S = 20.0
NEVER_ON_THE_WIRE = ("secret-internal-text", "RuntimeError", "ValueError", "Traceback", "asyncpg", "SELECT ")

Match: TypeAlias = Callable[[Frame], bool]
T = TypeVar("T")


def fresh(stem: str) -> str:
    """A name that no other test uses; fits every kind of id."""
    return f"{stem}-{uuid4().hex}"


def of_type(*kinds: str) -> Match:
    return lambda frame: frame["type"] in kinds


def of_run(run_id: str, *kinds: str) -> Match:
    """Run events of `run_id`, of these types where any are named."""
    return lambda frame: frame["type"] in EVENTS and frame["run_id"] == run_id and (not kinds or frame["type"] in kinds)


def assert_nothing_internal(raw: str) -> None:
    assert not any(leak in raw for leak in NEVER_ON_THE_WIRE), f"an internal text is told: {raw}"


async def until(ask: Callable[[], Awaitable[T]], match: Callable[[T], bool]) -> T:
    """Asks for what nobody tells, slower than the rate that everyone has, until the answer matches; returns it."""
    answer = await ask()
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not match(answer):
                await asyncio.sleep(0.06)
                answer = await ask()
    except TimeoutError:
        raise AssertionError(f"after {PATIENCE_S} s the answer is {answer}") from None
    return answer


class Told(ABC):
    """`log` holds every frame; `next` takes the first one not yet taken that matches, so that an answer and the events
    around it may be awaited in any order."""

    def __init__(self) -> None:
        self.log: list[Frame] = []
        self._untaken: list[Frame] = []

    @abstractmethod
    async def read(self) -> str:
        """The next frame's text, however long it takes."""

    @abstractmethod
    def noted(self, frame: Frame) -> None:
        """Called with each frame once it is logged."""

    async def next(self, match: Match, what: str = "such frame") -> Frame:
        """The first frame not yet taken that matches."""
        for index, frame in enumerate(self._untaken):
            if match(frame):
                return self._untaken.pop(index)
        try:
            async with asyncio.timeout(PATIENCE_S):
                while not match(frame := await self.receive()):
                    self._untaken.append(frame)
        except TimeoutError:
            told = [(frame["type"], frame.get("id"), frame.get("code")) for frame in self.log[-30:]]
            raise AssertionError(f"no {what} in {PATIENCE_S} s; the last frames: {told}") from None
        return frame

    async def receive(self) -> Frame:
        """The next frame, checked and logged."""
        raw = await self.read()
        assert_nothing_internal(raw)
        frame = json.loads(raw)
        assert isinstance(frame, dict), f"no object: {raw}"
        self.log.append(frame)
        check_frame(frame)
        self.noted(frame)
        return frame

    async def event(self, run_id: str, *kinds: str) -> Frame:
        return await self.next(of_run(run_id, *kinds), f"{kinds or 'event'} of {run_id}")

    async def ended(self, run_id: str) -> Frame:
        """The run's terminal event; what came of it before that is taken too."""
        while (event := await self.event(run_id))["type"] not in TERMINAL:
            pass
        return event

    def reader(self, thread_id: str, *, after_seq: int, since: Frame) -> Reader:
        """A reader of the thread's events logged after the frame `since`."""
        return Reader(after_seq).feed_all(self.events(thread_id, since=since))

    def events(self, thread_id: str, *, since: Frame | None = None, until: Frame | None = None) -> list[Frame]:
        """The thread's run events logged between two frames of the log."""
        start = 0 if since is None else self.position(since) + 1
        end = len(self.log) if until is None else self.position(until)
        return [frame for frame in self.log[start:end] if frame["type"] in EVENTS and frame["thread_id"] == thread_id]

    def position(self, frame: Frame) -> int:
        """Where in the log this very frame stands."""
        return next(index for index, logged in enumerate(self.log) if logged is frame)
