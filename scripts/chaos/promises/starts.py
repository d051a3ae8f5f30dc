"""A key runs once: all its answers name one run, its journal has that run once, and a refused start has none."""

from collections.abc import Iterator
from typing import Any

from scripts.chaos.promises.evidence import STARTS, Evidence, Exchange
from scripts.chaos.record import Event, Finding, Log

__all__ = ["check_accepted", "check_keys", "check_once"]

_ONE = ("request_id", "run_id", "thread_id", "seq", "epoch")
_IN_DOUBT = ("", "database_unavailable")


def _content(each: Exchange) -> tuple[Any, ...]:
    """What must be the same wherever a key is repeated."""
    sent = each.sent
    options = ("agent", "thread_id", "run_id")
    busy, gone = sent.get("if_busy") or "queue", sent.get("on_disconnect") or "continue"
    context = repr(sorted((sent.get("context") or {}).items()))
    return (STARTS[each.type], each.text, *(sent.get(name) for name in options), context, busy, gone)


def check_keys(evidence: Evidence) -> Iterator[Finding]:
    """All answers with one key name the same run; one at most is no duplicate; other content is a conflict."""
    runs: dict[tuple[str, str], str] = {}
    for (user, key), sent in evidence.by_key.items():
        accepted = [each for each in sent if each.kind == "request_accepted"]
        answers = [each.answer for each in accepted if each.answer]
        told = {tuple(str(answer.get(name)) for name in _ONE) for answer in answers}
        if len(told) > 1:
            yield Finding("keys", user, None, f"{key} was answered with {sorted(told)}")
        if sum(answer.get("duplicate") is False for answer in answers) > 1:
            yield Finding("keys", user, None, f"{key} was accepted twice without being a duplicate")
        for answer in answers:
            if runs.setdefault((user, str(answer.get("run_id"))), key) != key:
                yield Finding("keys", user, None, f"{key} and {runs[(user, str(answer.get('run_id')))]} are one run")
        contents = {_content(each) for each in sent}
        if len({_content(each) for each in accepted}) > 1:
            yield Finding("keys", user, None, f"{key} was accepted with other content")
        for each in sent:
            code = str(each.answer.get("code")) if each.answer else ""
            if code == "idempotency_conflict" and len(contents) == 1:
                yield Finding("keys", user, None, f"{key} was never sent with other content: {each.answer}")


def check_once(evidence: Evidence) -> Iterator[Finding]:
    """In all threads that were read, a text that was sent once with a key runs at most once, and not where the start
    was refused."""
    first: dict[tuple[str, str], Event] = {}
    for book in evidence.books.values():
        for event in book.shown:
            if event.type == "agent_started":
                text = str(event.content.get("message"))
                before = first.setdefault((book.user, text), event)
                if before.run_id != event.run_id or before.epoch != event.epoch:
                    yield book.finding("keys", f"{text!r} ran as {before.run_id} and as {event.run_id}")
    for sent in evidence.by_key.values():
        for each in sent:
            alike = [other for other in sent if other.text == each.text]
            refused = all(
                other.kind == "error" and other.answer and str(other.answer.get("code")) not in _IN_DOUBT
                for other in alike
            )
            ran = first.get((each.log.user, each.text))
            if refused and ran:
                yield Finding("keys", each.log.user, ran.thread_id, f"{ran.run_id} was refused, and ran: {each.answer}")


def check_accepted(evidence: Evidence) -> Iterator[Finding]:
    """`request_accepted` is true of the run, and comes before its events on that connection."""
    firsts = {(book.user, event.run_id): event for book, final in evidence.alive for event in reversed(final)}
    for each, answer in evidence.of_type("request_accepted"):
        user, run_id = each.log.user, str(answer.get("run_id"))
        if each.sent.get("run_id") not in (None, run_id) or each.sent.get("thread_id") not in (
            None,
            answer.get("thread_id"),
        ):
            yield Finding("accepted", user, None, f"{each.sent} was answered {answer}")
        if (answer.get("status") == "queued") is not (answer.get("position") != 0) and not answer.get("duplicate"):
            yield Finding("accepted", user, None, f"position and status differ: {answer}")
        if not answer.get("duplicate") and each.log.via == "ws" and _begun(each.log, each.at, run_id):
            yield Finding("accepted", user, str(answer.get("thread_id")), f"events of {run_id} came before its answer")
        first = firsts.get((user, run_id))
        if first is not None:
            yield from _check_first(each, first)


def _begun(log: Log, at: int, run_id: str) -> bool:
    return any(isinstance(entry, Event) and entry.run_id == run_id for entry in log.entries[:at])


def _check_first(each: Exchange, first: Event) -> Iterator[Finding]:
    answer = each.answer or {}
    told = (answer.get("seq"), answer.get("request_id"), answer.get("thread_id"), answer.get("epoch"))
    if told != (first.from_seq - 1, first.request_id, first.thread_id, first.epoch):
        yield Finding("accepted", each.log.user, first.thread_id, f"{answer}, and its first event is {first}")
    if answer.get("duplicate"):
        return
    # Of the moment of the answer, which may be much later where the first one was lost on its way from the database.
    waits = answer.get("status") == "queued"
    if (waits and first.type != "agent_queued") or waits is not (answer.get("position") != 0):
        yield Finding("accepted", each.log.user, first.thread_id, f"{answer}, and its first event is {first}")
