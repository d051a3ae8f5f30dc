"""Histories and thread lists are what the events say, each at its own snapshot."""

from collections.abc import Iterator
from typing import Any

from scripts.chaos.promises.evidence import Book, Evidence, Exchange, Fields
from scripts.chaos.promises.queue import Queue
from scripts.chaos.record import ENDS, Event, Finding

__all__ = ["check_histories", "check_lists"]

_STATUS = {"agent_completed": "completed", "agent_error": "failed", "agent_stopped": "stopped"}
_Message = tuple[str, Any, str, str, int]


class _Snapshot:
    """A thread as it is after the number `last`."""

    def __init__(self, evidence: Evidence, book: Book, last: int) -> None:
        self._queue = Queue(evidence, book.user)
        self._evidence = evidence
        self._user = book.user
        self._runs: dict[str, list[Event]] = {}
        for event in book.final or ():
            if event.from_seq <= last:
                self._queue.take(event)
                self._runs.setdefault(event.run_id, []).append(event)
        self.resume_after = min(
            (events[0].from_seq - 1 for events in self._runs.values() if events[-1].type not in ENDS), default=last
        )

    @property
    def interrupts(self) -> bool:
        return self._queue.interrupts

    def messages(self) -> Iterator[tuple[_Message, set[int]]]:
        """Each message with the numbers that it may have: a run has more than one `agent_started` after a crash."""
        for run_id in self._queue.order:
            events = self._runs[run_id]
            run = self._evidence.runs.get((self._user, run_id))
            started = {event.seq for event in events if event.type == "agent_started"}
            status = "running" if started else "queued"
            status = _STATUS.get(events[-1].type, status)
            text = run.asked.text if run else ""
            yield ("user", text, run_id, status, 0), started or {events[0].seq}
            if events[-1].type in ENDS and events[-1].content.get("response"):
                yield ("assistant", events[-1].content["response"], run_id, status, 0), {events[-1].seq}


def check_histories(evidence: Evidence) -> Iterator[Finding]:
    """Each page of a history, of any moment, as far as its thread was read at the end."""
    books = {(book.user, book.thread_id, book.epoch): book for book, _ in evidence.alive}
    read: dict[tuple[str, str, int], list[Fields]] = {}
    snapshots: dict[tuple[str, str, str, int], _Snapshot] = {}
    for each, told in evidence.of_type("thread_history"):
        user, thread_id, last = each.log.user, str(told.get("thread_id")), int(told.get("last_seq") or 0)
        book = books.get((user, thread_id, str(told.get("epoch"))))
        if book is None:
            continue
        if last > book.last_seq:
            yield book.finding("history", f"a history at {last}, and the thread ends at {book.last_seq}")
            continue
        place = (user, thread_id, book.epoch, last)
        snapshot = snapshots.get(place) or snapshots.setdefault(place, _Snapshot(evidence, book, last))
        if told.get("resume_after") != snapshot.resume_after:
            detail = f"resume_after {told.get('resume_after')} at {last}, not {snapshot.resume_after}"
            yield book.finding("resume_after", detail)
        if each.sent.get("before") is None:
            yield from _check_latest(book, snapshot, each, told)
        if each.log.final:
            read.setdefault((user, thread_id, id(each.log)), []).append(told)
    for (user, thread_id, _), pages in read.items():
        book = books[(user, thread_id, str(pages[0].get("epoch")))]
        messages = [message for page in reversed(pages) for message in page.get("messages", ())]
        if pages[-1].get("next_before") is None:
            yield from _compare(book, _Snapshot(evidence, book, book.last_seq), messages, whole=True)


def _check_latest(book: Book, snapshot: _Snapshot, each: Exchange, told: Fields) -> Iterator[Finding]:
    messages = told.get("messages", [])
    whole = told.get("next_before") is None
    if not whole and len(messages) != (each.sent.get("limit") or 50):
        yield book.finding("history", f"{len(messages)} messages and a next page, for {each.sent}")
    yield from _compare(book, snapshot, messages, whole=whole)


def _compare(book: Book, snapshot: _Snapshot, messages: list[Fields], *, whole: bool) -> Iterator[Finding]:
    expected = list(snapshot.messages())
    told = [
        (tuple(message.get(name) for name in ("role", "content", "run_id", "status")), message.get("seq"))
        for message in messages
    ]
    if whole and len(told) != len(expected):
        yield book.finding("history", f"{len(told)} messages, not {len(expected)}")
        return
    wanted = [(message[:4], seqs) for message, seqs in expected[len(expected) - len(told) :]]
    if snapshot.interrupts:
        # Where a run that never started stands among those that went before others is not said.
        every = {repr(message): seqs for message, seqs in ((each[:4], seqs) for each, seqs in expected)}
        for message, seq in told:
            if seq not in every.get(repr(message), ()):
                yield book.finding("history", f"{message} at {seq} is not in the events")
        return
    for (message, seq), (want, seqs) in zip(told, wanted, strict=False):
        if message != want or seq not in seqs:
            yield book.finding("history", f"{message} at {seq}, not {want} at {sorted(seqs)}")
            return


def check_lists(evidence: Evidence) -> Iterator[Finding]:
    """At the end a user's thread lists, on the WebSocket and over HTTP, have the threads that there are, in order."""
    lists: dict[tuple[str, int], list[Fields]] = {}
    for each, told in evidence.of_type("thread_list"):
        threads = told.get("threads", [])
        order = [str(thread.get("updated_at")) for thread in threads]
        if order != sorted(order, reverse=True):
            yield Finding("lists", each.log.user, None, f"not by updated_at, latest first: {order}")
        if each.log.final:
            lists.setdefault((each.log.user, id(each.log)), []).extend(threads)
    for (user, _), threads in lists.items():
        yield from _check_list(evidence, user, threads)


def _check_list(evidence: Evidence, user: str, threads: list[Fields]) -> Iterator[Finding]:
    names = [str(thread.get("thread_id")) for thread in threads]
    books = {book.thread_id: book for book, _ in evidence.alive if book.user == user}
    if len(set(names)) != len(names):
        yield Finding("lists", user, None, f"a thread twice in {names}")
    # Whoever asked for a thread and did not wait for the answer does not read it at the end.
    asked_for = {
        str(each.sent.get("thread_id"))
        for each in evidence.exchanges
        if each.log.user == user and each.type == "create_thread"
    }
    for name in books.keys() ^ (set(names) - (asked_for - books.keys())):
        where = "not in the list" if name in books else "in the list, and nobody made it"
        yield Finding("lists", user, name, where)
    for thread in threads:
        book = books.get(str(thread.get("thread_id")))
        told = (thread.get("epoch"), thread.get("last_seq"), thread.get("running_run_id"))
        if book is not None and told != (book.epoch, book.last_seq, None):
            yield book.finding("lists", f"listed as {told}, read as {(book.epoch, book.last_seq)}")
