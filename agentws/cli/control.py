"""What a parent and a worker say to each other, each on its end of a pair of sockets, in lines.

The parent hands over everything that the worker is to be, later tells it to make room or to hurry; the worker says
once whether it serves. That the parent's end is closed says that the parent is gone.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Final, Self

import msgspec

from agentws.settings import Settings

__all__ = ["HURRY", "MAKE_ROOM", "Answer", "Handover"]

MAKE_ROOM: Final = b"make room\n"
"""Drain, and leave the port to the others at once."""
HURRY: Final = b"hurry\n"
"""End the time that runs are given."""
_MOST_CHARACTERS = 8000  # of a failure's text, so that an answer fits a socket's buffer


@dataclass(frozen=True, kw_only=True)
class Handover:
    """All that a worker is given.

    Args:
        settings: the parent's; a worker reads none by itself.
        agents: MODULE:NAME, to be imported by the worker.
        worker: its number, from 1 on; whoever replaces it has the same.
        sockets: the descriptors to listen on.
    """

    settings: Settings
    agents: str | None
    worker: int
    sockets: Sequence[int]

    def line(self) -> bytes:
        # Not msgspec's JSON: a value that is no UTF-8 has lone surrogates, which only this one carries.
        given = {"agents": self.agents, "worker": self.worker, "sockets": self.sockets}
        return json.dumps({"settings": msgspec.structs.asdict(self.settings), **given}).encode() + b"\n"

    @classmethod
    def of(cls, line: bytes) -> Self:
        given = json.loads(line)
        return cls(**{**given, "settings": Settings(**given["settings"])})


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Whether a worker serves. `failure`: the one line that says why it cannot; None: it takes connections."""

    failure: str | None = None

    def line(self) -> bytes:
        failure = None if self.failure is None else self.failure[:_MOST_CHARACTERS]
        return json.dumps(asdict(Answer(failure=failure))).encode() + b"\n"

    @classmethod
    def of(cls, line: bytes) -> Self:
        return cls(**json.loads(line))
