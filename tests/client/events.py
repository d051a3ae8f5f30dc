"""Run events and answers as literals."""

from typing import Any

import msgspec

from agentws.client.frames import read
from agentws.client.reader import Event

__all__ = ["event", "event_frame", "frame"]


def event_frame(seq: int, kind: str, payload: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """The frame of an event of the thread `t` and the run `r`."""
    made = {
        "type": kind,
        "event_id": f"{fields.get('run_id', 'r')}.{fields.get('attempt', 1)}.{seq}",
        "seq": seq,
        "epoch": "e1",
        "timestamp": "2026-01-02T03:04:05.678Z",
        "user_id": "ada",
        "thread_id": "t",
        "run_id": "r",
        "request_id": "req-1",
        "agent_name": "demo",
        "attempt": 1,
        "payload": payload,
    }
    return made | fields


def event(seq: int, kind: str, payload: dict[str, Any], **fields: Any) -> Event:
    made = read(frame(event_frame(seq, kind, payload, **fields)))
    assert isinstance(made, Event)
    return made


def frame(fields: dict[str, Any]) -> str:
    return msgspec.json.encode(fields).decode()
