"""A thread has one run at work, and those that wait start in order: as accepted, an interrupting one before them."""

from collections.abc import Iterator

from scripts.chaos.promises.evidence import Book, Evidence
from scripts.chaos.record import ENDS, Event, Finding

__all__ = ["Queue", "check_queues"]


class Queue:
    """A thread's runs, event by event. `order` is the queue's, with those that have ended; `interrupts` says whether
    one ever went before others."""

    def __init__(self, evidence: Evidence, user: str) -> None:
        self.order: list[str] = []
        self.waiting: list[str] = []
        self.running: str | None = None
        self.interrupts = False
        self._claimed: str | None = None
        self._evidence = evidence
        self._user = user

    def _goes_first(self, run_id: str) -> bool:
        run = self._evidence.runs.get((self._user, run_id))
        return run is not None and run.asked.sent.get("if_busy") == "interrupt"

    def take(self, event: Event) -> str:
        """Takes the thread's next event; returns what is wrong about it."""
        run_id = event.run_id
        if event.type == "agent_queued":
            return self._queue(event)
        if event.type == "agent_started":
            return self._start(event)
        if event.type in ENDS:
            if run_id in self.waiting:
                self.waiting.remove(run_id)
            if run_id == self.running:
                self.running = None
        elif run_id != self.running:
            return f"{event.type} of {run_id} while {self.running} is at work"
        return ""

    def _queue(self, event: Event) -> str:
        place = len(self.waiting)
        # The first of those that wait is claimed a moment before its agent_started, and waits no more then.
        claimed = self.running is None and place > 0
        if self._goes_first(event.run_id):
            self.interrupts = True
            if self._claimed not in self.waiting:
                self._claimed = self.waiting[0] if claimed else None
            claimed, place = False, 0
        before = self.order.index(self.waiting[place]) if place < len(self.waiting) else len(self.order)
        self.order.insert(before, event.run_id)
        self.waiting.insert(place, event.run_id)
        told = event.content.get("position")
        return (
            ""
            if told in (place + 1, place + 1 - claimed)
            else f"{event.run_id} is told position {told}, and is at {place + 1}"
        )

    def _start(self, event: Event) -> str:
        run_id, running, self.running = event.run_id, self.running, event.run_id
        if running not in (None, run_id):
            return f"{run_id} started while {running} was at work"
        if event.attempt > 1:
            return ""
        if run_id not in self.waiting:
            self.order.append(run_id)
            return f"{run_id} started at once while {self.waiting} waited" if self.waiting else ""
        first = self.waiting[0]
        self.waiting.remove(run_id)
        return "" if run_id in (first, self._claimed) else f"{run_id} started before {first}"


def check_queues(evidence: Evidence) -> Iterator[Finding]:
    """The queue of every thread that was read at the end."""
    for book, final in evidence.alive:
        yield from _check_queue(evidence, book, final)


def _check_queue(evidence: Evidence, book: Book, final: list[Event]) -> Iterator[Finding]:
    queue = Queue(evidence, book.user)
    for event in final:
        wrong = queue.take(event)
        if wrong:
            yield book.finding("queue", wrong)
