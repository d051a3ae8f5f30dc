"""The counters of section 8 of the protocol: what became of the frames that start runs. Pure: clocks are given.

Without crashes and with nothing in flight, `received` = `messages_processed` + `errors` + `duplicates`.
"""

import time
from collections.abc import Callable, Hashable
from typing import Final

__all__ = ["Statistics"]

_OF_KIND: Final = {"start_agent": "start_agent_requests", "user_message": "user_messages", "chat": "chat_messages"}
_OF_STATUS: Final = {"completed": "runs_completed", "failed": "runs_failed", "stopped": "runs_stopped"}
_OTHERS: Final = (
    "messages_processed",
    "errors",
    "received",
    "duplicates",
    "frame_errors",
    "deprecated",
    "events_sent",
    "events_replayed",
)


class Statistics:
    """
    Args:
        runs_in_flight: how many runs are at work now.
        connections: how many connections are open now.
        now: seconds since the epoch.
        clock: seconds of a clock that never goes back.
        worker: this process's number among several at one address, told beside the counters; None: it is alone.
        most_in_doubt: of how many starts in doubt it is remembered that they may still have become runs.
    """

    def __init__(
        self,
        *,
        runs_in_flight: Callable[[], int] = lambda: 0,
        connections: Callable[[], int] = lambda: 0,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
        worker: int | None = None,
        most_in_doubt: int = 10_000,
    ) -> None:
        self._runs_in_flight = runs_in_flight
        self._connections = connections
        self._now = now
        self._clock = clock
        self._worker: dict[str, int] = {} if worker is None else {"worker": worker}
        self._most_in_doubt = most_in_doubt
        self._began = clock()
        self._counts = dict.fromkeys((*_OTHERS, *_OF_KIND.values(), *_OF_STATUS.values()), 0)
        self._last_processed_time: float | None = None
        self._in_doubt: dict[Hashable, None] = {}

    # Frames that start runs

    def received(self) -> None:
        """A frame that starts a run came, whatever becomes of it."""
        self._counts["received"] += 1

    def refused(self) -> None:
        """It was answered with an error."""
        self._counts["errors"] += 1

    def duplicate(self) -> None:
        """It repeated an earlier one and was answered as a repeat."""
        self._counts["duplicates"] += 1

    def in_doubt(self, run: Hashable) -> None:
        """It was answered `database_unavailable`: an error, unless the run that it asked for turns up and ends here.

        Args:
            run: what `run_ended` will call that run, should there be one.
        """
        if len(self._in_doubt) >= self._most_in_doubt:
            # The oldest; by now nobody will find a run of it any more.
            del self._in_doubt[next(iter(self._in_doubt))]
            self._counts["errors"] += 1
        self._in_doubt[run] = None

    def run_ended(self, kind: str, status: str, run: Hashable = None) -> None:
        """The run of an accepted one ended, in this process or by it.

        Args:
            kind: `start_agent`, `user_message` or `chat`.
            status: `completed`, `failed` or `stopped`.
            run: which one, so that a start in doubt counts by what became of it.
        """
        self._in_doubt.pop(run, None)
        self._counts[_OF_STATUS[status]] += 1
        if status == "failed":
            self._counts["errors"] += 1
            return
        self._counts["messages_processed"] += 1
        if (name := _OF_KIND.get(kind)) is not None:
            self._counts[name] += 1
        self._last_processed_time = self._now()

    # All frames

    def frame_refused(self) -> None:
        """A frame that starts no run was answered with an error."""
        self._counts["frame_errors"] += 1

    def deprecated(self) -> None:
        """A frame came under a deprecated name of its type."""
        self._counts["deprecated"] += 1

    def events_sent(self, count: int, *, replayed: int = 0) -> None:
        """Run events went to a connection; `replayed` of them were read from the journal."""
        self._counts["events_sent"] += count
        self._counts["events_replayed"] += replayed

    def read(self) -> dict[str, int | float | None]:
        """All counters as they are now; a copy."""
        return {
            **self._worker,
            **self._counts,
            "errors": self._counts["errors"] + len(self._in_doubt),
            "last_processed_time": self._last_processed_time,
            "runs_in_flight": self._runs_in_flight(),
            "connections": self._connections(),
            "uptime_seconds": self._clock() - self._began,
        }
