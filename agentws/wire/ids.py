"""Identifiers of the wire: each kind a type of its own, with the form that the protocol gives it."""

import re
import time
from itertools import count
from random import SystemRandom
from typing import NewType

__all__ = [
    "CLIENT_ID",
    "ConnectionId",
    "RunId",
    "RunNo",
    "ThreadId",
    "ThreadNo",
    "cursor_of",
    "is_client_id",
    "is_principal_name",
    "new_connection_id",
    "new_number",
    "new_thread_id",
    "numbers_of",
    "request_id_of",
    "run_id_of",
    "run_no_of_request",
]

ThreadId = NewType("ThreadId", str)
RunId = NewType("RunId", str)
ConnectionId = NewType("ConnectionId", str)
RunNo = NewType("RunNo", int)
"""A run's number within its principal: even; its upper bits are the time, so that rows made together lie together."""
ThreadNo = NewType("ThreadNo", int)

CLIENT_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
"""The form of an id that a client may make (section 1)."""
# Control characters, and surrogates, which are no text.
_NOT_IN_NAMES = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_REQUEST = re.compile(r"req-([0-9a-f]{16})")
_CURSOR = re.compile(r"([0-7][0-9a-f]{15})([0-7][0-9a-f]{15})")
_random = SystemRandom()
# Each process counts from a place of its own, so that two of them rarely make one number in the same millisecond;
# where they do, the database refuses the second and the store takes the next.
_counter = count(_random.getrandbits(20))


def is_client_id(value: str) -> bool:
    """Whether `value` is an id that a client may make: 1 to 128 characters from A-Z a-z 0-9 . _ : - (section 1)."""
    return CLIENT_ID.fullmatch(value) is not None


def is_principal_name(value: str) -> bool:
    """Whether `value` can name a user or a tenant: 1 to 255 characters without control characters (section 1)."""
    return 1 <= len(value) <= 255 and _NOT_IN_NAMES.search(value) is None


def new_number() -> int:
    """A fresh number for a run or a thread: 63 bits, even."""
    return (time.time_ns() // 1_000_000 << 21) & 0x7FFF_FFFF_FFFF_FFFF | (next(_counter) & 0xFFFFF) << 1


def request_id_of(run_no: RunNo) -> str:
    """The request id of a run: its number in a readable form, so that no index is needed to find it again."""
    return f"req-{run_no:016x}"


def run_no_of_request(request_id: str) -> RunNo | None:
    """The run's number in a request id; None where it is none of ours."""
    match = _REQUEST.fullmatch(request_id)
    number = int(match[1], 16) if match else -1
    return RunNo(number) if 0 <= number < 1 << 63 else None


def cursor_of(first: int, second: int) -> str:
    """The opaque cursor of a place in a list that is ordered by two numbers, each of 63 bits."""
    return f"{first:016x}{second:016x}"


def numbers_of(cursor: str) -> tuple[int, int] | None:
    """The numbers of a cursor; None where it is none of ours."""
    match = _CURSOR.fullmatch(cursor)
    return (int(match[1], 16), int(match[2], 16)) if match else None


def run_id_of(run_no: RunNo) -> RunId:
    """The id of a run whose client gave it none."""
    return RunId(f"run-{run_no:016x}")


def new_thread_id(thread_no: ThreadNo) -> ThreadId:
    """The id of a thread whose client gave it none."""
    return ThreadId(f"thr-{thread_no:016x}")


def new_connection_id() -> ConnectionId:
    """A fresh id for a connection; 96 random bits."""
    return ConnectionId(f"conn-{_random.getrandbits(96):024x}")
