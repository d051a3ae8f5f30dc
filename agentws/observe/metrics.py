"""A service's metrics in the format of Prometheus: its own registry, so that two services in a process do not mix.

What is counted is in `meters`; here is what is read when somebody asks.
"""

import asyncio
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from prometheus_client import CollectorRegistry, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import Metric

from agentws.observe.hints import HintMeter
from agentws.observe.meters import EdgeMeter, FeedMeter, NodeMeter, RunMeter, StoreMeter

__all__ = ["CONTENT_TYPE", "Metrics"]

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
_LAG_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_PROC = Path("/proc/self")


class Metrics:
    """
    Args:
        agents: the names of agents that may be told apart; any other counts as unknown.
        worker: this process's number among several at one address, a label of every sample, since each time another
            of them may be asked; None: it is alone.
    """

    def __init__(self, agents: Sequence[str] = (), *, worker: int | None = None) -> None:
        self._labels = {} if worker is None else {"worker": str(worker)}
        self._registry = CollectorRegistry()
        self._gauges: dict[str, Gauge] = {}
        self.edge = EdgeMeter(self._registry)
        self.runs = RunMeter(self._registry, agents)
        self.feed = FeedMeter(self._registry)
        self.hints = HintMeter(self._registry)
        self.store = StoreMeter(self._registry)
        self.node = NodeMeter(self._registry)
        self._loop_lag = Histogram(
            "agentws_loop_lag_seconds",
            "How much later than it should the event loop came back to a task that slept.",
            buckets=_LAG_BUCKETS,
            registry=self._registry,
        )
        self.gauge("agentws_supervisors", "Supervisors of runs that are in memory.", lambda: len(self.runs.supervisors))
        self.gauge(
            "agentws_contexts", "Execution contexts of runs that are in memory.", lambda: len(self.runs.contexts)
        )
        self.gauge("agentws_asyncio_tasks", "Tasks of the event loop that have not ended.", _count_tasks)
        if _PROC.exists():
            self.gauge("agentws_resident_memory_bytes", "Memory of this process that is in RAM.", _resident_bytes)
            self.gauge("agentws_open_files", "Files and sockets that this process holds open.", _open_files)

    def gauge(self, name: str, text: str, read: Callable[[], float], **labels: str) -> None:
        """Adds a value that is read when somebody asks, by the thread that calls `render`.

        Args:
            name, text: of the metric.
            read: how it is read; it replaces what was given before for the same name and labels.
            labels: where values of one name differ by them.
        """
        gauge = self._gauges.get(name)
        if gauge is None:
            gauge = self._gauges[name] = Gauge(name, text, tuple(labels), registry=self._registry)
        (gauge.labels(**labels) if labels else gauge).set_function(read)

    async def watch_loop(self, interval_s: float = 0.5) -> None:
        """Measures at intervals how late the event loop is, until cancelled."""
        while True:
            # Not the loop's own clock: that of uvloop stands still while a step is going on.
            due = time.monotonic() + interval_s
            await asyncio.sleep(interval_s)
            self._loop_lag.observe(max(0.0, time.monotonic() - due))

    def render(self) -> bytes:
        """All metrics as text, of the type `CONTENT_TYPE`; to be called from the event loop's thread."""
        return generate_latest(_AsTold(self._registry, self._labels))


class _AsTold:
    """A registry whose samples have some labels more, less the times at which its series were made.

    Those double what is to be read and tell nothing.
    """

    def __init__(self, registry: CollectorRegistry, labels: Mapping[str, str]) -> None:
        self._registry = registry
        self._labels = labels

    def collect(self) -> Iterable[Metric]:
        for family in self._registry.collect():
            family.samples = [
                each._replace(labels={**each.labels, **self._labels})
                for each in family.samples
                if not each.name.endswith("_created")
            ]
            yield family


def _count_tasks() -> float:
    return len(asyncio.all_tasks())


def _resident_bytes() -> float:
    pages = int((_PROC / "statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _open_files() -> float:
    return len(os.listdir(_PROC / "fd"))
