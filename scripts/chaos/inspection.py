"""What a chaos run demands of the world itself, beside what its clients were promised: logs, database, what is left.

A line of a log that says that something failed is a finding, unless a fault explains it.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from scripts.chaos.database import ChaosDatabase
from scripts.chaos.record import Finding, Recording
from scripts.chaos.world import World

__all__ = ["check_database", "check_left", "check_world", "first", "keep_recording", "takeovers"]

_MOST_BYTES = 600 << 20
_TAKEOVER = re.compile(r"\btook over run number\b")
# Errors that a server is right to log in this world, by what happened and what was raised; the fault explains each.
_EXPLAINED = tuple(
    (re.compile(event), re.compile(raised))
    for event, raised in (
        # A pause, a silence or an outage longer than the lease: that is what it is for.
        (r"^the lease was lost; ", r"^$"),
        (r"^run \S+ is left before a tool is called: the lease is not held$", r"^$"),
        # Hints that are lost on purpose.
        (r"^notifications of the database do not reach this process", r"^$"),
        # Agents of the load that fail on purpose, or do not end when they are told to.
        (r"^run \S+: agent \S+ failed", r"RuntimeError: planned$"),
        (r"^run \S+: its agent does not end after being cancelled", r"^$"),
        # A drain: clients that do not answer the close of their connection are not waited for.
        (r"^Cancel \d+ running task\(s\), timeout graceful shutdown exceeded$", r"^$"),
        (r"^Exception in ASGI application$", r"CancelledError: Task cancelled, timeout graceful shutdown exceeded$"),
    )
)
# Lines of a start that ends because of its database: the process says why, ends with 1, and is started again.
_STARTS = re.compile(r"^agentws: ")
_POSTGRES = re.compile(r"PANIC:|deadlock detected|TRAP:")

# Held numbers, those with what they were merged from, are all of a thread's.
_HOLES = """
SELECT h.user_id, h.thread_id, h.first_seq, h.last_seq, h.last_seq - h.first_seq + 1 AS wanted,
    coalesce(sum(e.seq - coalesce(e.from_seq, e.seq) + 1), 0) AS held
FROM agentws.thread_head h LEFT JOIN agentws.event e USING (tenant_id, user_id, thread_no)
GROUP BY h.tenant_id, h.user_id, h.thread_id, h.first_seq, h.last_seq
HAVING h.last_seq - h.first_seq + 1 <> coalesce(sum(e.seq - coalesce(e.from_seq, e.seq) + 1), 0)
"""
_TWICE = """
SELECT r.user_id, t.thread_id, r.run_id, e.ordinal, array_agg(e.seq ORDER BY e.seq) AS seqs
FROM agentws.event e JOIN agentws.run r USING (tenant_id, user_id, run_no)
JOIN agentws.thread t ON t.tenant_id = r.tenant_id AND t.user_id = r.user_id AND t.thread_no = r.thread_no
GROUP BY r.tenant_id, r.user_id, r.run_no, r.run_id, t.thread_id, e.ordinal HAVING count(*) <> 1
"""
_QUEUED = "SELECT user_id, thread_id, run_no, owner, fence, attempt FROM agentws.run_queue"
_HEADS = """
SELECT user_id, thread_id, waiting, running_run_no FROM agentws.thread_head
WHERE waiting <> 0 OR running_run_no IS NOT NULL
"""
_ENDS = """
SELECT r.user_id, t.thread_id, r.run_id, r.status, count(e.seq) AS ends
FROM agentws.run r JOIN agentws.thread t USING (tenant_id, user_id, thread_no)
JOIN agentws.thread_head h ON h.tenant_id = r.tenant_id AND h.user_id = r.user_id AND h.thread_no = r.thread_no
LEFT JOIN agentws.event e ON e.tenant_id = r.tenant_id AND e.user_id = r.user_id AND e.thread_no = r.thread_no
    AND e.run_no = r.run_no AND e.type IN ('agent_completed', 'agent_error', 'agent_stopped')
WHERE h.first_seq = 1
GROUP BY r.tenant_id, r.user_id, r.run_no, r.run_id, t.thread_id, r.status HAVING count(e.seq) <> 1
"""


def check_world(world: World, memory: Mapping[str, int]) -> list[Finding]:
    """What the servers' logs and ends, the database's log, and the `memory` that servers held tell."""
    findings = [
        _finding("nothing fails inside the server", f"{server.name}: {line}")
        for server in world.servers
        for line in _failures(server.log)
    ]
    findings += [
        _finding("a server ends only when it is told to, and then soon", f"{server.name} {how}")
        for server in world.servers
        for how in server.unexplained
    ]
    findings += [
        _finding("memory is bounded", f"{name} holds {held} bytes")
        for name, held in memory.items()
        if held > _MOST_BYTES
    ]
    findings += [
        _finding("units of work never lock in opposite orders", line)
        for line in world.database.log_text.splitlines()
        if _POSTGRES.search(line)
    ]
    return findings


async def check_database(database: ChaosDatabase) -> list[Finding]:
    """What the tables say when all is quiet."""
    findings: list[Finding] = []
    for promise, query in (
        ("the numbers of a thread have no gaps", _HOLES),
        ("an event is written once", _TWICE),
        ("every run ends exactly once", _ENDS),
        ("no run is forgotten in the queue", _QUEUED),
        ("a quiet thread has no running and no waiting run", _HEADS),
    ):
        for row in await database.fetch(query):
            told = dict(row)
            user, thread_id = told.pop("user_id"), told.pop("thread_id")
            findings.append(Finding(promise=promise, user=user, thread_id=thread_id, detail=str(told)))
    return findings


def check_left(world: World) -> list[Finding]:
    """What is still there after the world has ended."""
    return [_finding("nothing is left behind", each) for each in world.left()]


def takeovers(world: World) -> int:
    """How many runs were taken over; a process that was killed has told its log, and nobody else."""
    return sum(len(_TAKEOVER.findall(server.log.read_text(errors="replace"))) for server in world.servers)


def _failures(log: Path) -> Iterator[str]:
    for text in log.read_text(errors="replace").splitlines():
        line = _line(text)
        if line is None:
            if text.strip() and not _STARTS.match(text):
                yield text
        elif _tells_of_a_failure(line) and not _is_explained(line):
            yield text


def _tells_of_a_failure(line: dict[str, Any]) -> bool:
    # What agents and tools raise is told at `info`.
    return line.get("level") in ("error", "critical") or ("exception" in line and line.get("level") != "info")


def _is_explained(line: dict[str, Any]) -> bool:
    event, raised = str(line.get("event")).strip(), str(line.get("exception", "")).strip()
    return any(what.search(event) and how.search(raised) for what, how in _EXPLAINED)


def _line(text: str) -> dict[str, Any] | None:
    """A line of the server's own; None for what Python or a library has written beside it."""
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _finding(promise: str, detail: str) -> Finding:
    return Finding(promise=promise, user="", thread_id="", detail=detail[:2000])


def keep_recording(recording: Recording, directory: Path) -> None:
    """Writes down all that clients sent and were told: a line for each connection, and one for each of its frames."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "recording.txt").open("w") as file:
        for log in recording.logs:
            file.write(f"{log.user} via {log.via}{' in the last reading' if log.final else ''}\n")
            file.writelines(f"  {entry}\n" for entry in log.entries)


def first(findings: Sequence[Finding], most: int) -> list[dict[str, str | None]]:
    """The first findings, as they are printed."""
    return [
        {"promise": each.promise, "user": each.user, "thread_id": each.thread_id, "detail": each.detail}
        for each in findings[:most]
    ]
