"""A user of the load: what it has started, and a start that is repeated until it is answered."""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from scripts.chaos.link import Frame, Link, Lost, Refused
from scripts.chaos.plans import request
from scripts.chaos.record import Recording
from scripts.chaos.web import Web

__all__ = ["GONE", "Person", "Start"]

GONE = "gone-"
"""The names of threads that are deleted and made anew."""

_PATIENCE_S = (3.0, 12.0)
_CUT_AFTER = (1, 60)


@dataclass(frozen=True)
class Start:
    """A start as it is sent each time: the frame without `id`."""

    frame: Frame

    @property
    def key(self) -> str:
        return str(self.frame["idempotency_key"])

    @property
    def thread_id(self) -> str | None:
        return self.frame.get("thread_id")


@dataclass
class Person:
    """One user, at one of the `urls` with each connection.

    `unanswered` are the starts of which nobody knows whether they were accepted; `accepted` says by run which answer
    there was.
    """

    name: str
    urls: Sequence[str]
    recording: Recording
    rng: random.Random
    threads: list[str] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)
    unanswered: dict[str, Start] = field(default_factory=dict)
    accepted: dict[str, tuple[Start, Frame]] = field(default_factory=dict)
    _made: int = 0

    def some_thread(self) -> str:
        """One of the lasting threads, or a late one; never one that is deleted now and then."""
        lasting = [name for name in self.threads if not name.startswith(GONE)]
        return self.rng.choice([*lasting[:4], *lasting[-2:]])

    @property
    def patience_s(self) -> float:
        return self.rng.uniform(*_PATIENCE_S)

    async def connect(self, *, cut: bool = True, bytes_per_s: float = 0, final: bool = False) -> Link:
        """A connection to one of the servers, tried until there is one; with `cut` it resets itself later."""
        while True:
            log = self.recording.log(self.name, final=final)
            frames_left = self.rng.randint(*_CUT_AFTER) if cut else None
            try:
                link = await Link.open(
                    log, self.rng.choice(self.urls), frames_left=frames_left, bytes_per_s=bytes_per_s
                )
            except Lost:
                self.recording.counts["not_connected"] += 1
                if not log.entries:
                    self.recording.logs.remove(log)
                await asyncio.sleep(self.rng.uniform(0.1, 0.5))
                continue
            self.recording.counts["connections"] += 1
            self.links = [each for each in self.links if each.is_open]
            self.links.append(link)
            return link

    def new_start(self, agent: str, thread_id: str | None, *, seconds: float = 0.0, **options: object) -> Start:
        """A start with a text and a key of its own, in the form of one of the frames that can start a run."""
        self._made += 1
        key = f"{self.name}-{self._made}"
        text = request(self.name, key, seconds=seconds)
        kind, field_ = self.rng.choice(
            (("start_agent", "user_request"), ("user_message", "content"), ("chat", "message"))
        )
        frame: Frame = {"type": kind, field_: text, "agent": agent, "idempotency_key": key, **options}
        if thread_id is not None:
            frame["thread_id"] = thread_id
        if self.rng.random() < 0.3:
            frame["run_id"] = f"run-of-{key}"
        return Start(frame)

    def web(self, via: str = "http", *, final: bool = False) -> Web:
        """HTTP requests at one of the servers."""
        return Web(self.recording.log(self.name, via, final=final), self.rng.choice(self.urls))

    async def pause(self, most_s: float) -> None:
        await asyncio.sleep(self.rng.uniform(0, most_s))

    async def start(self, start: Start, link: Link | None) -> tuple[Frame, Link] | None:
        """Sends the start, again and again, until it is answered; returns the answer and the link that it came on, or
        None where it was refused for good."""
        self.unanswered[start.key] = start
        while True:
            if link is None or not link.is_open:
                link = await self.connect()
            try:
                answer = await link.ask(start.frame, timeout_s=self.patience_s)
                self.take_accepted(start, answer)
            except Lost:
                continue
            except Refused as refused:
                if not refused.retryable or refused.code == "thread_busy":
                    self.unanswered.pop(start.key, None)
                    return None
                await self.pause(0.5)
            else:
                return answer, link

    def take_accepted(self, start: Start, answer: Frame) -> None:
        """Remembers that the start was accepted, and its thread."""
        self.unanswered.pop(start.key, None)
        if answer["thread_id"] not in self.threads:
            self.threads.append(str(answer["thread_id"]))
        self.accepted[str(answer.get("run_id"))] = (start, answer)

    def ended(self, run_id: str) -> bool:
        return self.recording.has_ended(self.name, run_id)
