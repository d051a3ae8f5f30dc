"""What was shown once is never missing or other afterwards: whatever was told of a number, by any server at any time,
is one story, and the last reading has all of it."""

from collections.abc import Iterator
from typing import Any

from scripts.chaos.promises.evidence import Book, Evidence, seconds
from scripts.chaos.promises.streams import MERGED
from scripts.chaos.record import ENDED, ENDS, Event, Finding, Log, Told, length

__all__ = ["CLOCKS_DIFFER_S", "check_ends", "check_numbers", "check_pages", "check_times"]

CLOCKS_DIFFER_S = 1.0
"""How far the clocks of servers and database may be from each other: here they share one machine's."""


def _owner(event: Event) -> tuple[Any, ...]:
    """What all events that can be merged with this one have in common."""
    content = event.content if event.type in MERGED else {}
    part = content.get("step") or content.get("execution_id") or ""
    alone = "" if event.type in MERGED else event.event_id
    return (event.type, event.run_id, event.request_id, event.agent_name, event.attempt, part, alone)


class _Story:
    """What is known of each number of a book; `take` returns what contradicts it."""

    def __init__(self) -> None:
        self._owners: dict[int, tuple[Any, ...]] = {}
        self._ids: dict[int, str] = {}
        self._whole: dict[int, tuple[bytes, str]] = {}
        self._edges: dict[tuple[tuple[Any, ...], int], int] = {}

    def take(self, event: Event) -> str:
        owner = _owner(event)
        for number in range(event.from_seq, event.seq + 1):
            if self._owners.setdefault(number, owner) != owner:
                return f"{number} was {self._owners[number]}, and is {owner}"
        if self._ids.setdefault(event.seq, event.event_id) != event.event_id:
            return f"{event.seq} was {self._ids[event.seq]}, and is {event.event_id}"
        if event.type not in MERGED and event.from_seq != event.seq:
            return f"{event.type} {event.event_id} stands for {event.from_seq} to {event.seq}"
        if event.type not in ("agent_message", "agent_thinking"):
            whole = (event.payload, "" if event.type in MERGED else event.timestamp)
            kept = self._whole.setdefault(event.seq, whole)
            return "" if kept == whole else f"{event.seq} was {kept}, and is {whole}"
        content = event.content
        offset = int(content.get("offset") or 0)
        size = length(content.get("text") if event.type == "agent_message" else content.get("reasoning"))
        for number, place in ((event.from_seq - 1, offset), (event.seq, offset + size)):
            if self._edges.setdefault((owner, number), place) != place:
                return f"the text after {number} began at {self._edges[(owner, number)]}, and begins at {place}"
        return ""


def check_numbers(evidence: Evidence) -> Iterator[Finding]:
    """One number, one content; the last reading has every number from 1 to the last that anybody was shown."""
    for book in evidence.books.values():
        story = _Story()
        for event in sorted(book.shown, key=lambda each: (each.seq, each.from_seq)):
            wrong = story.take(event)
            if wrong:
                yield book.finding("unchanged", wrong)
        if book.final is None:
            if (book.user, book.thread_id) not in evidence.deleted:
                yield book.finding("nothing lost", f"the epoch {book.epoch} is gone, and nobody deleted the thread")
            continue
        shown = max((event.seq for event in book.shown), default=0)
        read = max((event.seq for event in book.final), default=0)
        if read < shown or read < book.last_seq:
            yield book.finding("nothing lost", f"shown to {shown}, read to {read}, last_seq {book.last_seq}")
        if book.final and book.final[0].from_seq != 1:
            yield book.finding("nothing lost", f"the last reading begins at {book.final[0].from_seq}")


def check_pages(evidence: Evidence) -> Iterator[Finding]:
    """The pages of HTTP, read at the end, say what the WebSocket said."""
    books = {(book.user, book.thread_id): book for book, _ in evidence.alive}
    for log in evidence.recording.logs:
        if log.final and log.via == "page":
            yield from _check_page(log, books)


def _check_page(log: Log, books: dict[tuple[str, str], Book]) -> Iterator[Finding]:
    told = next((entry.fields for entry in log.entries if isinstance(entry, Told) and entry.type == "subscribed"), None)
    if told is None:
        return
    book = books.get((log.user, str(told.get("thread_id"))))
    events = [entry for entry in log.entries if isinstance(entry, Event)]
    last = max((event.seq for event in events), default=0)
    if book is None:
        yield Finding("pages", log.user, str(told.get("thread_id")), "a thread that the WebSocket does not know")
    elif (told.get("epoch"), last) != (book.epoch, book.last_seq):
        yield book.finding("pages", f"pages to {last} of {told.get('epoch')}, not {book.last_seq} of {book.epoch}")


def check_ends(evidence: Evidence) -> Iterator[Finding]:
    """A run has one terminal event and nothing after it, also in threads that are gone; every accepted one has it."""
    for book in evidence.books.values():
        ends: dict[str, Event] = {}
        for event in sorted(book.shown, key=lambda each: each.seq):
            end = ends.get(event.run_id)
            if end is not None and end.event_id != event.event_id:
                yield book.finding("one end", f"{event.type} {event.seq} of {event.run_id} after {end.type} {end.seq}")
            if event.type in ENDS:
                ends[event.run_id] = event
    books = {(book.user, book.thread_id, book.epoch): book for book, _ in evidence.alive}
    ended = {place: {event.run_id for event in book.final or () if event.type in ENDS} for place, book in books.items()}
    for run in evidence.runs.values():
        for answer in run.answers[:1]:
            read = books.get((run.user, str(answer.get("thread_id")), str(answer.get("epoch"))))
            if read is not None:
                if run.run_id not in ended[read.user, read.thread_id, read.epoch]:
                    yield read.finding("ends", f"{run.run_id} was accepted and has no terminal event")
            elif run.answers[-1].get("status") not in ENDED:
                thread_id = str(answer.get("thread_id"))
                detail = f"{run.run_id} of a thread that is gone is {run.answers[-1].get('status')}"
                yield Finding("ends", run.user, thread_id, detail)


def check_times(evidence: Evidence) -> Iterator[Finding]:
    """Times never go back within a thread by more than the clocks may differ."""
    for book, final in evidence.alive:
        latest = 0.0
        for event in final:
            at = seconds(event.timestamp)
            if at < latest - CLOCKS_DIFFER_S:
                yield book.finding(
                    "times", f"{event.type} {event.event_id} is {latest - at:.3f} s before one before it"
                )
            latest = max(latest, at)
