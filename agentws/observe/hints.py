"""What is counted and timed of the hints between processes; a call costs a microsecond or two."""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

__all__ = ["HintMeter"]

# Upper bounds in seconds.
_ECHO: Final = (0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)


class HintMeter:
    """Hints from and to other processes. Without a registry it counts for nobody."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self._sent = Counter("agentws_hints_sent", "Hints told to other processes.", registry=registry)
        self._notifications = Counter(
            "agentws_notifications_sent", "Notifications that hints and echoes were sent in.", registry=registry
        )
        self._received = Counter(
            "agentws_hints_received", "Hints of other processes that something here waited for.", registry=registry
        )
        self._ignored = Counter(
            "agentws_hints_ignored",
            "Hints of other processes that concern nothing here, or cannot be read.",
            registry=registry,
        )
        self._echo = Histogram(
            "agentws_echo_seconds",
            "From a notification of this process to itself until it came back.",
            buckets=_ECHO,
            registry=registry,
        )
        self._connections = Counter(
            "agentws_listening_connections", "Connections made to listen for hints, the first one too.",
            registry=registry,
        )  # fmt: skip
        self._hears = Gauge("agentws_hears_hints", "Whether notifications reach this process.", registry=registry)

    def sent(self, hints: int, *, notifications: int) -> None:
        """Hints were told to the others, in so many notifications."""
        self._sent.inc(hints)
        self._notifications.inc(notifications)

    def received(self, hints: int, *, ignored: int) -> None:
        """Hints came, and further ones that concern nothing here or cannot be read."""
        self._received.inc(hints)
        self._ignored.inc(ignored)

    def echoed(self, seconds: float) -> None:
        """An echo came back after so long."""
        self._echo.observe(seconds)

    def connected(self) -> None:
        """A connection listens."""
        self._connections.inc()

    def hears(self, is_so: bool) -> None:
        """Whether notifications come."""
        self._hears.set(is_so)
