"""The recording as the checks read it: what was asked and answered, every distinct event a thread's epoch ever showed,
and what the last reading showed of it."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from scripts.chaos.record import Event, Finding, Log, Recording, Sent, Told

__all__ = ["STARTS", "Book", "Evidence", "Exchange", "Fields", "Run", "seconds"]

Fields = dict[str, Any]

STARTS = {
    "start_agent": "start_agent",
    "execute_agent": "start_agent",
    "user_message": "user_message",
    "user": "user_message",
    "user_input": "user_message",
    "chat_message": "user_message",
    "message": "user_message",
    "chat": "chat",
}
"""The frames that start a run, and what they are aliases of."""


def seconds(timestamp: str) -> float:
    """The time in seconds since the epoch; 0 where it is none (which is found elsewhere)."""
    try:
        return datetime.fromisoformat(timestamp).timestamp()
    except ValueError:
        return 0.0


@dataclass(frozen=True)
class Exchange:
    """A frame that was sent, and what it was answered, if it was.

    `at` is the place of the answer in its log, `time` when it came.
    """

    log: Log
    sent: Fields
    may: frozenset[str]
    answer: Fields | None = None
    at: int = -1
    time: float = 0.0

    @property
    def type(self) -> str:
        return str(self.sent.get("type"))

    @property
    def kind(self) -> str:
        """The type of the answer."""
        return str(self.answer.get("type")) if self.answer else ""

    @property
    def text(self) -> str:
        names = ("user_request",) if STARTS.get(self.type) == "start_agent" else ("message", "content", "text")
        return next((str(self.sent[name]) for name in names if self.sent.get(name)), "")


@dataclass
class Book:
    """A thread's epoch. `shown` are all distinct events; `final` those of the last reading, in order, or None where
    there was none (the epoch is over); then `last_seq` is what that reading said."""

    user: str
    thread_id: str
    epoch: str
    shown: dict[Event, None] = field(default_factory=dict)
    final: list[Event] | None = None
    last_seq: int = 0

    def finding(self, promise: str, detail: str) -> Finding:
        return Finding(promise, self.user, self.thread_id, detail)


@dataclass
class Run:
    """An accepted run: the exchanges that named it, by the first of which it is known what was asked."""

    user: str
    run_id: str
    asked: Exchange
    answers: list[Fields]


class Evidence:
    """Everything by what it belongs to. Runs, keys and threads are a user's; so is every index here."""

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        self.exchanges = [exchange for log in recording.logs for exchange in _exchanges(log)]
        self.books = _books(recording.logs)
        self.by_key: dict[tuple[str, str], list[Exchange]] = {}
        self.by_text: dict[tuple[str, str], Exchange] = {}
        self.runs: dict[tuple[str, str], Run] = {}
        self.deleted: set[tuple[str, str]] = set()
        for each in self.exchanges:
            self._sort(each)
        self._add_unanswered()

    def _sort(self, each: Exchange) -> None:
        user = each.log.user
        if each.type in STARTS:
            self.by_key.setdefault((user, str(each.sent.get("idempotency_key"))), []).append(each)
            self.by_text.setdefault((user, each.text), each)
            if each.answer and each.kind == "request_accepted":
                run_id = str(each.answer.get("run_id"))
                run = self.runs.setdefault((user, run_id), Run(user, run_id, each, []))
                run.answers.append(each.answer)
        elif each.type == "delete_thread":
            self.deleted.add((user, str(each.sent.get("thread_id"))))

    def _add_unanswered(self) -> None:
        """Runs that were started by what was never answered are known by their text."""
        for book in self.books.values():
            for event in book.shown:
                if event.type == "agent_started" and (event.user_id, event.run_id) not in self.runs:
                    asked = self.by_text.get((book.user, str(event.content.get("message"))))
                    if asked:
                        self.runs[(book.user, event.run_id)] = Run(book.user, event.run_id, asked, [])

    def run(self, event: Event) -> Run | None:
        return self.runs.get((event.user_id, event.run_id))

    @property
    def alive(self) -> Iterator[tuple[Book, list[Event]]]:
        """The books that were read at the end."""
        for book in self.books.values():
            if book.final is not None:
                yield book, book.final

    def of_type(self, *types: str) -> Iterator[tuple[Exchange, Fields]]:
        """What was answered so."""
        for each in self.exchanges:
            if each.answer and each.kind in types:
                yield each, each.answer


def _exchanges(log: Log) -> Iterable[Exchange]:
    asked: dict[Any, Exchange] = {}
    for at, entry in enumerate(log.entries):
        match entry:
            case Sent():
                exchange = Exchange(log, entry.fields, entry.may)
                asked[exchange.sent.get("id")] = exchange
            case Told() if entry.type not in ("caught_up", "connection_established"):
                answer = entry.fields
                before = asked.get(answer.get("id")) if answer.get("id") is not None else None
                if before is not None and before.answer is None:
                    asked[answer["id"]] = Exchange(log, before.sent, before.may, answer, at, entry.at)
    return asked.values()


def _books(logs: Iterable[Log]) -> dict[tuple[str, str, str], Book]:
    books: dict[tuple[str, str, str], Book] = {}

    def book(user: str, thread_id: str, epoch: str) -> Book:
        return books.setdefault((user, thread_id, epoch), Book(user, thread_id, epoch))

    for log in logs:
        for entry in log.entries:
            if isinstance(entry, Event):
                place = book(log.user, entry.thread_id, entry.epoch)
                place.shown[entry] = None
                if log.final and log.via == "ws" and place.final is not None:
                    place.final.append(entry)
            elif log.final and log.via == "ws" and isinstance(entry, Told) and entry.type == "subscribed":
                told = entry.fields
                place = book(log.user, str(told.get("thread_id")), str(told.get("epoch")))
                place.final, place.last_seq = [], int(told.get("last_seq") or 0)
    return books
