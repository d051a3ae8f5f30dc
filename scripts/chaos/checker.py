"""Holds a recording to the promises of the protocol. Knows the protocol's page and nothing of the server."""

from scripts.chaos.record import ENDS, Event, Fault, Finding, Recording

__all__ = ["check"]


def check(recording: Recording) -> list[Finding]:
    """Every breach that the recording shows."""
    found: list[Finding] = []
    for log in recording.logs:
        last: dict[str, int] = {}
        for entry in log.entries:
            match entry:
                case Fault():
                    found.append(Finding(entry.promise, log.user, None, entry.detail))
                case Event() if entry.thread_id in last and entry.from_seq > last[entry.thread_id] + 1:
                    found.append(
                        Finding("dense", log.user, entry.thread_id, f"{entry.from_seq} after {last[entry.thread_id]}")
                    )
            if isinstance(entry, Event):
                last[entry.thread_id] = entry.seq
    ends: dict[tuple[str, str], set[str]] = {}
    for log in recording.logs:
        for entry in log.entries:
            if isinstance(entry, Event) and entry.type in ENDS:
                ends.setdefault((log.user, entry.run_id), set()).add(entry.event_id)
    found += [
        Finding("one_end", user, None, f"run {run} ended {len(ids)} times")
        for (user, run), ids in ends.items()
        if len(ids) > 1
    ]
    return found
