"""What is counted and timed, a class for each part that reports; a call costs a microsecond or two.

Each takes the registry to be read from; without one it counts for nobody.
No label holds what a user can choose: a value that is not known beforehand is counted under one name for all such.
"""

from collections.abc import Iterable, Sequence
from typing import Final, Generic, TypeVar

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.metrics import MetricWrapperBase

from agentws.observe.live import Live
from agentws.wire.errors import CATALOGUE
from agentws.wire.events import EventType, Outcome
from agentws.wire.messages import RESERVED

__all__ = ["CLIENT_TYPES", "EdgeMeter", "FeedMeter", "NodeMeter", "RunMeter", "StoreMeter"]

CLIENT_TYPES: Final = frozenset(
    {
        "start_agent",
        "user_message",
        "chat",
        "stop_agent",
        "subscribe",
        "unsubscribe",
        "create_thread",
        "update_thread",
        "list_threads",
        "switch_thread",
        "get_thread_history",
        "delete_thread",
        "authenticate",
        "handshake_acknowledged",
        "ping",
        "heartbeat",
    }
)
"""The types of client frames, after aliases."""
_STARTS: Final = ("start_agent", "user_message", "chat")
_START_OUTCOMES: Final = ("accepted", "duplicate", "refused", "in_doubt")
_RUN_OUTCOMES: Final = ("completed", "failed", "stopped")
UNKNOWN: Final = "unknown"

# Upper bounds in seconds.
_SHORT: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_LONG: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800)
_COUNTS: Final = (0, 1, 3, 10, 30, 100, 300, 1_000, 3_000, 10_000, 30_000, 100_000)

M = TypeVar("M", bound=MetricWrapperBase)


class _Children(Generic[M]):
    """A metric's children by the one label that it has, looked up once: prometheus_client takes longer for it."""

    def __init__(self, metric: M, known: Iterable[str], *, other: str | None = None) -> None:
        self._children = {value: metric.labels(value) for value in known}
        self._other = None if other is None else metric.labels(other)

    def __getitem__(self, value: str) -> M:
        child = self._children.get(value, self._other)
        if child is None:
            raise KeyError(value)
        return child


class EdgeMeter:
    """Connections, frames and starts."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self._opened = Counter("agentws_connections_opened", "Connections that were accepted.", registry=registry)
        refused = Counter(
            "agentws_connections_refused", "Upgrades that were refused, by error code.", ["code"], registry=registry
        )
        self._refused = _Children(refused, CATALOGUE, other=UNKNOWN)
        received = Counter(
            "agentws_frames_received",
            "Client frames, by type after aliases; unknown: of none that is served, or not to be read.",
            ["type"],
            registry=registry,
        )
        self._received = _Children(received, CLIENT_TYPES, other=UNKNOWN)
        sent = Counter(
            "agentws_frames_sent", "Frames to clients that are no run events, by type.", ["type"], registry=registry
        )
        self._sent = _Children(sent, RESERVED - set(EventType), other=UNKNOWN)
        errors = Counter("agentws_errors_sent", "Error frames to clients, by code.", ["code"], registry=registry)
        self._errors = _Children(errors, CATALOGUE, other=UNKNOWN)
        starts = Counter(
            "agentws_starts",
            "Frames that start runs, by type and by how they were answered;"
            " in_doubt: the database did not say whether it was accepted.",
            ["kind", "outcome"],
            registry=registry,
        )
        self._starts = {
            (kind, outcome): starts.labels(kind, outcome) for kind in _STARTS for outcome in _START_OUTCOMES
        }
        self._accept = Histogram(
            "agentws_accept_seconds",
            "From a decoded frame that starts a run to its request_accepted in the outgoing queue.",
            buckets=_SHORT,
            registry=registry,
        )
        self._send_failures = Counter(
            "agentws_send_failures", "Connections that were found dead when something was sent.", registry=registry
        )

    def opened(self) -> None:
        self._opened.inc()

    def refused(self, code: str) -> None:
        """An upgrade was refused."""
        self._refused[code].inc()

    def received(self, frame_type: str | None) -> None:
        """A client frame came; None: it has no type that can be told."""
        self._received[frame_type or UNKNOWN].inc()

    def sent(self, frame_type: str) -> None:
        """A frame other than a run event was queued to be sent."""
        self._sent[frame_type].inc()

    def error(self, code: str) -> None:
        """An error frame was queued to be sent."""
        self._errors[code].inc()

    def start(self, kind: str, outcome: str) -> None:
        """A start was answered: accepted, duplicate, refused, or in_doubt."""
        self._starts[kind, outcome].inc()

    def accepted(self, seconds: float) -> None:
        """A start was accepted so long after its frame was read."""
        self._accept.observe(seconds)

    def send_failed(self) -> None:
        """A connection's socket was dead; once a connection."""
        self._send_failures.inc()


class RunMeter:
    """Runs, their events and their tools. `agents`: the names that may be told apart."""

    def __init__(self, registry: CollectorRegistry | None = None, agents: Sequence[str] = ()) -> None:
        self.supervisors = Live()
        self.contexts = Live()
        ended = Counter(
            "agentws_runs_ended",
            "Runs whose end this process wrote, by agent and outcome.",
            ["agent", "outcome"],
            registry=registry,
        )
        self._agents = frozenset(agents)
        self._ended = {
            (agent, outcome): ended.labels(agent, outcome) for agent in (*agents, UNKNOWN) for outcome in _RUN_OUTCOMES
        }
        failures = Counter(
            "agentws_run_failures",
            "Runs that ended in agent_error, by code; unknown: a code of the agent's own.",
            ["code"],
            registry=registry,
        )
        self._failures = _Children(failures, CATALOGUE, other=UNKNOWN)
        self._left = Counter(
            "agentws_runs_left",
            "Runs that this process left without an end: another has them, or they were ended with their thread.",
            registry=registry,
        )
        self._add_times(registry)
        committed = Counter(
            "agentws_events_committed", "Run events that this process wrote, by type.", ["type"], registry=registry
        )
        self._committed = _Children(committed, EventType)
        self._retries = Counter(
            "agentws_append_retries", "Appends that the database did not answer and that were repeated.",
            registry=registry,
        )  # fmt: skip
        tools = Histogram(
            "agentws_tool_seconds",
            "From tool_executing to tool_completed, by outcome.",
            ["outcome"],
            buckets=_LONG,
            registry=registry,
        )
        self._tools = _Children(tools, Outcome)

    def _add_times(self, registry: CollectorRegistry | None) -> None:
        def histogram(name: str, text: str, labels: Sequence[str] = ()) -> Histogram:
            return Histogram(name, text, labels, buckets=_LONG, registry=registry)

        self._wait = histogram("agentws_run_wait_seconds", "From a run's acceptance to its agent_started.")
        self._first = histogram(
            "agentws_first_event_seconds",
            "From a run's acceptance to the commit of its first event after agent_started, its waiting included.",
        )
        run = histogram(
            "agentws_run_seconds",
            "From a run's acceptance to the commit of its terminal event, by outcome.",
            ["outcome"],
        )
        self._run = _Children(run, _RUN_OUTCOMES)
        self._stop = histogram(
            "agentws_stop_seconds", "From a stop's arrival at the run to the commit of the run's terminal event."
        )

    def begun(self, waited_s: float) -> None:
        """A run's agent begins, so long after the acceptance."""
        self._wait.observe(waited_s)

    def first_event(self, seconds: float) -> None:
        self._first.observe(seconds)

    def committed(self, event_type: str) -> None:
        """An event was committed."""
        self._committed[event_type].inc()

    def retried(self) -> None:
        """An append was not answered."""
        self._retries.inc()

    def ended(self, agent: str, outcome: str, *, code: str | None, seconds: float, stopping_s: float | None) -> None:
        """A run's end was committed.

        Args:
            agent: the agent's name.
            outcome: completed, failed or stopped.
            code: of its `agent_error`.
            seconds: since the acceptance.
            stopping_s: seconds since a stop reached it; None: none did.
        """
        self._ended[agent if agent in self._agents else UNKNOWN, outcome].inc()
        self._run[outcome].observe(seconds)
        if outcome == "failed":
            self._failures[code or UNKNOWN].inc()
        if stopping_s is not None:
            self._stop.observe(stopping_s)

    def left(self) -> None:
        """A run was left without an end."""
        self._left.inc()

    def tool(self, outcome: str, seconds: float) -> None:
        """A tool call was closed."""
        self._tools[outcome].observe(seconds)


class FeedMeter:
    """Run events on their way from the commit to those who follow them."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        sent = Counter(
            "agentws_events_sent",
            "Run events handed to connections, by where they were taken from: as they were committed (live),"
            " or the journal (replay).",
            ["source"],
            registry=registry,
        )
        self._live, self._replay = sent.labels("live"), sent.labels("replay")
        self._lag = Histogram(
            "agentws_commit_to_send_seconds",
            "From the answer to a commit in this process until its events are handed to a connection's socket;"
            " of each delivery, the oldest event.",
            buckets=_SHORT,
            registry=registry,
        )
        self._resumes = Histogram(
            "agentws_resume_events",
            "Events that a subscription with a past read from the journal until it had caught up.",
            buckets=_COUNTS,
            registry=registry,
        )
        self._reads = Counter("agentws_journal_reads", "Pages of events read for subscriptions.", registry=registry)
        self._batches = Counter(
            "agentws_broker_batches", "Commits and hints of commits told to the broker.", registry=registry
        )

    def sent(self, *, live: int, replayed: int) -> None:
        """Events were handed to a connection."""
        if live:
            self._live.inc(live)
        if replayed:
            self._replay.inc(replayed)

    def lag(self, seconds: float) -> None:
        """Events of a commit were handed to a connection, so long after it was answered."""
        self._lag.observe(seconds)

    def resumed(self, events: int) -> None:
        """A subscription has caught up, after so many events."""
        self._resumes.observe(events)

    def read(self) -> None:
        """A page was read."""
        self._reads.inc()

    def published(self) -> None:
        """The broker was told of something."""
        self._batches.inc()


class StoreMeter:
    """Calls of the database."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self._wait = Histogram(
            "agentws_pool_wait_seconds", "How long a call waited for a connection to the database.",
            buckets=_SHORT, registry=registry,
        )  # fmt: skip
        self._calls = Histogram(
            "agentws_database_call_seconds",
            "From sending a unit of work to the database to its answer, by unit of work.",
            ["unit"],
            buckets=_SHORT,
            registry=registry,
        )
        self._by_call: dict[str, Histogram] = {}
        self._unavailable = Counter(
            "agentws_database_unavailable", "Calls that the database did not answer in time.", registry=registry
        )

    def waited(self, seconds: float) -> None:
        """A call got its connection."""
        self._wait.observe(seconds)

    def answered(self, call: str, seconds: float) -> None:
        """A call was answered. `call`: its text, one of those that stand in the code."""
        child = self._by_call.get(call)
        if child is None:
            unit = call.partition("agentws.")[2].partition("(")[0]
            child = self._by_call[call] = self._calls.labels(unit or UNKNOWN)
        child.observe(seconds)

    def unavailable(self) -> None:
        self._unavailable.inc()


class NodeMeter:
    """The lease, and runs that were found without anybody at work on them."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        renewals = Counter(
            "agentws_lease_renewals",
            "Attempts to renew the lease: renewed, refused (it had run out), unanswered.",
            ["outcome"],
            registry=registry,
        )
        self._renewals = _Children(renewals, ("renewed", "refused", "unanswered"))
        self._losses = Counter(
            "agentws_lease_losses", "Leases that ended before they were given up.", registry=registry
        )
        takeovers = Counter(
            "agentws_takeovers",
            "Runs taken over: of a process that is gone (lost), of this one, which was never told of them (orphan), or"
            " of one that let them go for their next attempt (released).",
            ["why"],
            registry=registry,
        )
        self._takeovers = _Children(takeovers, ("lost", "orphan", "released"))
        self._claims = Counter(
            "agentws_waiting_claims", "Waiting runs that were claimed by searching for them.", registry=registry
        )

    def renewal(self, outcome: str) -> None:
        """An attempt to renew the lease: renewed, refused or unanswered."""
        self._renewals[outcome].inc()

    def lease_lost(self) -> None:
        self._losses.inc()

    def took_over(self, why: str) -> None:
        """A run was taken over: lost, orphan or released."""
        self._takeovers[why].inc()

    def claimed(self) -> None:
        """A waiting run was found and claimed."""
        self._claims.inc()
