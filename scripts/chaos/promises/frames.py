"""Every frame by itself: its fields, whose it is, errors only where they may be, and how connections end."""

import re
from collections.abc import Iterator
from typing import Any

from scripts.chaos.promises.evidence import Evidence, Exchange, Fields
from scripts.chaos.record import Closed, Event, Fault, Finding, Log, Told

__all__ = ["check_closes", "check_errors", "check_fields", "check_isolation"]

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")

# s text, s? text or null, t time, i whole number, n number, b boolean, o object, o? object or null, l list.
_ANSWERS = {
    "request_accepted": "request_id:s thread_id:s epoch:s run_id:s seq:i duplicate:b status:s position:i",
    "stop_accepted": "run_ids:l already_ended:l",
    "subscribed": "thread_id:s epoch:s first_seq:i last_seq:i after_seq:i recovered:b",
    "caught_up": "thread_id:s seq:i",
    "unsubscribed": "thread_id:s",
    "thread_created": "thread:o",
    "thread_updated": "thread:o",
    "thread_switched": "thread:o resume_after:i",
    "thread_deleted": "thread_id:s",
    "thread_list": "threads:l next_before:s?",
    "thread_history": "thread_id:s epoch:s last_seq:i resume_after:i messages:l next_before:s?",
    "pong": "payload:any",
    "heartbeat_ack": "status:s",
}
_UNASKED = {
    "connection_established": "connection_id:s user_id:s expires_at:s? protocol:s server_version:s"
    " heartbeat_interval_s:n limits:o",
    "draining": "retry_after_ms:i",
    "subscription_ended": "thread_id:s reason:s",
    "error": "id:s? code:s message:s retryable:b",
}
_THREAD = "thread_id:s title:s? metadata:o? created_at:t updated_at:t epoch:s last_seq:i running_run_id:s?"
_MESSAGE = "message_id:s role:s content:s run_id:s status:s seq:i created_at:t"
_PAYLOADS = {
    "agent_queued": "position:i",
    "agent_started": "status:s message:s",
    "agent_thinking": "reasoning:s step:i offset:i",
    "tool_executing": "execution_id:s tool_name:s parameters:o",
    "tool_completed": "execution_id:s tool_name:s success:b outcome:s result:any error:o? duration_ms:n",
    "tool_progress": "execution_id:s",
    "agent_message": "text:s offset:i",
    "agent_event": "name:s value:any",
    "agent_completed": "response:s status:s duration_ms:n",
    "agent_error": "code:s message:s retryable:b response:s? duration_ms:n",
    "agent_stopped": "status:s reason:s response:s? duration_ms:n",
}
_TYPES: dict[str, tuple[type, ...]] = {
    "s": (str, dict),  # a long text was kept as its digest
    "s?": (str, dict, type(None)),
    "i": (int,),
    "n": (int, float),
    "b": (bool,),
    "o": (dict,),
    "o?": (dict, type(None)),
    "l": (list,),
}

_LIMITS = {"rate_limited", "overloaded", "too_many_runs", "too_many_subscriptions", "too_many_threads", "draining"}
_RETRYABLE = _LIMITS | {"thread_busy", "database_unavailable", "internal_error"}
_FINAL = {"invalid_json", "not_an_object", "missing_type", "unknown_type", "reserved_type", "unsupported_frame"}
_FINAL |= {"not_implemented", "validation_error", "ambiguous_thread", "thread_not_found", "run_not_found"}
_FINAL |= {"agent_not_found", "run_id_conflict", "idempotency_conflict", "identity_mismatch", "unauthorized"}
_FINAL |= {"forbidden_origin", "token_expired"}
_NEVER = frozenset({1000, 1002, 1003, 1007, 1008, 1009, 4401, 4409, 4429})
"""Codes that a server has no reason to close these clients with."""


def lacking(fields: Fields, shape: str) -> list[str]:
    """The fields of the shape that are missing or of another type."""
    wrong = []
    for part in shape.split():
        name, kind = part.split(":")
        if name not in fields:
            wrong.append(f"no {name}")
        elif kind != "any" and not _is(fields[name], kind):
            wrong.append(f"{name} is {fields[name]!r}")
    return wrong


def _is(value: Any, kind: str) -> bool:
    if kind == "t":
        return isinstance(value, str) and bool(_TIME.fullmatch(value))
    return isinstance(value, _TYPES[kind]) and (kind == "b" or not isinstance(value, bool))


def _lacking_in_answer(told: Told) -> list[str]:
    fields = told.fields
    if told.type in _UNASKED:
        return lacking(fields, _UNASKED[told.type])
    if told.type not in _ANSWERS:
        return []
    wrong = lacking(fields, f"id:s? timestamp:t {_ANSWERS[told.type]}")
    if isinstance(fields.get("thread"), dict):
        wrong += lacking(fields["thread"], _THREAD)
    for name, shape in (("threads", _THREAD), ("messages", _MESSAGE)):
        for each in fields.get(name) or ():
            wrong += lacking(each, shape)
    return wrong


def check_fields(evidence: Evidence) -> Iterator[Finding]:
    """Server frames have every field that their row names; what could not be read at all is told here too."""
    for log in evidence.recording.logs:
        for entry in log.entries:
            match entry:
                case Fault():
                    yield Finding(entry.promise, log.user, None, entry.detail)
                case Told():
                    wrong = _lacking_in_answer(entry)
                    if wrong:
                        yield Finding("fields", log.user, None, f"{entry.type}: {', '.join(wrong)}: {entry.frame!r}")
    for book in evidence.books.values():
        for event in book.shown:
            wrong = lacking(event.content, _PAYLOADS.get(event.type, ""))
            if not _TIME.fullmatch(event.timestamp):
                wrong.append(f"timestamp {event.timestamp}")
            if wrong:
                yield book.finding("fields", f"{event.type} {event.event_id}: {', '.join(wrong)}")


def check_isolation(evidence: Evidence) -> Iterator[Finding]:
    """Every event is the asker's own; no id that the server makes is met by two users."""
    owners: dict[str, str] = {}
    for log in evidence.recording.logs:
        for entry in log.entries:
            if isinstance(entry, Event) and entry.user_id != log.user:
                yield Finding("isolation", log.user, entry.thread_id, f"{entry.event_id} is {entry.user_id}'s")
            elif isinstance(entry, Told) and entry.type == "connection_established":
                user = entry.fields.get("user_id")
                if user != log.user:
                    yield Finding("isolation", log.user, None, f"established for {user}")
    for (user, run_id), run in evidence.runs.items():
        ids = {str(answer.get("request_id")) for answer in run.answers}
        ids |= {run_id} if "run_id" not in run.asked.sent else set()
        for each in ids:
            if owners.setdefault(each, user) != user:
                yield Finding("isolation", user, None, f"{each} is {owners[each]}'s too")


def check_errors(evidence: Evidence) -> Iterator[Finding]:
    """Errors are of the catalogue, retryable as it says, and only such as the client gave a reason for."""
    asked = {(id(each.log), each.at): each for each in evidence.exchanges if each.answer}
    for log in evidence.recording.logs:
        for at, entry in enumerate(log.entries):
            if isinstance(entry, Told) and entry.type == "error":
                wrong = _wrong_error(evidence, log, entry.fields, asked.get((id(log), at)))
                if wrong:
                    yield Finding("errors", log.user, None, f"{wrong}: {entry.frame!r}")


def _wrong_error(evidence: Evidence, log: Log, error: Fields, asked: Exchange | None) -> str:
    code = str(error.get("code"))
    if code not in _RETRYABLE | _FINAL:
        return "not in the catalogue"
    if error.get("retryable") is not (code in _RETRYABLE):
        return "retryable is not as in the catalogue"
    if code in _LIMITS and not isinstance(error.get("retry_after_ms"), int):
        return "no retry_after_ms"
    if code in _LIMITS or code == "database_unavailable":
        return ""
    if asked is None:
        return "nothing was asked"
    if code in asked.may or (code == "thread_busy" and asked.sent.get("if_busy") == "reject"):
        return ""
    threads = {str(asked.sent.get("thread_id"))}
    run = evidence.runs.get((log.user, str(asked.sent.get("run_id"))))
    if run is not None:
        threads |= {str(answer.get("thread_id")) for answer in run.answers}
    gone = any((log.user, thread_id) in evidence.deleted for thread_id in threads)
    if code in ("thread_not_found", "run_not_found") and gone:
        return ""
    return f"no reason for it in {asked.sent}"


def check_closes(evidence: Evidence) -> Iterator[Finding]:
    """`connection_established` comes first of all, and the server closes with a code that there was a reason for."""
    for log in evidence.recording.logs:
        if log.via != "ws":
            continue
        heard = [entry for entry in log.entries if isinstance(entry, Event | Told)]
        if heard and not (isinstance(heard[0], Told) and heard[0].type == "connection_established"):
            yield Finding("frames", log.user, None, f"{heard[0].type} came before connection_established")
        for entry in log.entries:
            if isinstance(entry, Closed) and not entry.by_client and entry.code in _NEVER:
                yield Finding("closes", log.user, None, f"closed with {entry.code} {entry.reason}")
