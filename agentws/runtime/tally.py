"""What one run costs and how it goes: told to the metrics and the statistics, and kept with its terminal event."""

import time
from collections.abc import Sequence
from datetime import datetime

from agentws.core.run import Claim, Draft, Ending, RunKey
from agentws.observe.meters import RunMeter
from agentws.observe.statistics import Statistics
from agentws.wire.events import Outcome, RunTimes

__all__ = ["Tally"]


class Tally:
    """Counts a run's end once, whoever asks for it; one that gets none here counts as left."""

    def __init__(self, claim: Claim, meter: RunMeter, statistics: Statistics) -> None:
        self._claim = claim
        self._meter = meter
        self._statistics = statistics
        self._stop_asked: float | None = None
        self._ended = False
        self._told_first = claim.lost
        self._appends = 0
        self._append_s = 0.0
        self._waited_s = 0.0
        self._deliveries = 0
        self._lag_s = 0.0
        self._worst_lag_s = 0.0
        if not claim.lost:
            meter.begun((claim.started_at - claim.accepted_at).total_seconds())
            meter.committed("agent_started")

    @property
    def times(self) -> RunTimes:
        """What has been measured so far."""
        return RunTimes(
            appends=self._appends,
            append_us=_micro(self._append_s),
            waited_us=_micro(self._waited_s),
            deliveries=self._deliveries,
            lag_us=_micro(self._lag_s),
            worst_lag_us=_micro(self._worst_lag_s),
        )

    def stop_asked(self) -> None:
        """A stop reached the run."""
        if self._stop_asked is None:
            self._stop_asked = time.monotonic()

    def appended(self, drafts: Sequence[Draft], *, at: datetime, seconds: float) -> None:
        """Events were committed.

        Args:
            at: when, by the database's clock.
            seconds: how long the answer took, calls that were not answered included.
        """
        self._appends += 1
        self._append_s += seconds
        for draft in drafts:
            self._meter.committed(draft.type)
        if not self._told_first:
            self._told_first = True
            self._meter.first_event((at - self._claim.accepted_at).total_seconds())

    def retried(self) -> None:
        """An append was not answered."""
        self._meter.retried()

    def waited(self, seconds: float) -> None:
        """The agent has waited for a commit."""
        self._waited_s += seconds

    def sent(self, seconds: float) -> None:
        """Events were handed to a connection, so long after their commit was answered."""
        self._deliveries += 1
        self._lag_s += seconds
        self._worst_lag_s = max(self._worst_lag_s, seconds)

    def tool(self, outcome: Outcome, seconds: float) -> None:
        """A tool call was closed."""
        self._meter.tool(outcome, seconds)

    def ended(self, ending: Ending, *, at: datetime) -> None:
        """The run's end was committed."""
        self._ended = True
        claim = self._claim
        self._meter.ended(
            claim.agent,
            ending.status,
            code=ending.error_code,
            seconds=(at - claim.accepted_at).total_seconds(),
            stopping_s=None if self._stop_asked is None else time.monotonic() - self._stop_asked,
        )
        key = RunKey(claim.principal.tenant_id, claim.principal.user_id, claim.run_no)
        self._statistics.run_ended(claim.kind, ending.status, key)

    def left(self) -> None:
        """Nobody here works on the run any more."""
        if not self._ended:
            self._meter.left()


def _micro(seconds: float) -> int:
    return round(seconds * 1_000_000)
