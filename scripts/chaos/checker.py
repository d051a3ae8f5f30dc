"""Holds a recording to the promises of the protocol. Knows the protocol's page and nothing of the server."""

from scripts.chaos.promises.evidence import Evidence
from scripts.chaos.promises.frames import check_closes, check_errors, check_fields, check_isolation
from scripts.chaos.promises.history import check_histories, check_lists
from scripts.chaos.promises.numbers import check_ends, check_numbers, check_pages, check_times
from scripts.chaos.promises.queue import check_queues
from scripts.chaos.promises.runs import check_runs, check_stops, check_texts, check_tool_calls
from scripts.chaos.promises.starts import check_accepted, check_keys, check_once
from scripts.chaos.promises.streams import check_streams
from scripts.chaos.record import Finding, Recording

__all__ = ["CHECKS", "check"]

CHECKS = (
    check_fields,
    check_isolation,
    check_errors,
    check_closes,
    check_streams,
    check_numbers,
    check_pages,
    check_ends,
    check_times,
    check_texts,
    check_runs,
    check_tool_calls,
    check_stops,
    check_keys,
    check_once,
    check_accepted,
    check_queues,
    check_histories,
    check_lists,
)


def check(recording: Recording) -> list[Finding]:
    """Every breach that the recording shows."""
    evidence = Evidence(recording)
    return [finding for check_one in CHECKS for finding in check_one(evidence)]
