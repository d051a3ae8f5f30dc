"""What the broker promises: it tells followers of a thread what was committed."""

from typing import Protocol

from agentws.core.replay import Batch
from agentws.ports.store import ThreadKey
from agentws.wire.ids import RunNo

__all__ = ["Broker", "Listener"]


class Listener(Protocol):
    def push(self, batch: Batch) -> None:
        """Takes a batch or a hint; returns at once and never raises."""


class Broker(Protocol):
    """Tells followers of a thread what was committed. A hint may be lost, doubled or late: the journal is the truth."""

    def subscribe(self, key: ThreadKey, listener: Listener) -> None: ...

    def unsubscribe(self, key: ThreadKey, listener: Listener) -> None: ...

    def publish(self, key: ThreadKey, batch: Batch) -> None: ...

    def stop(self, run_no: RunNo) -> None:
        """Tells other processes that a run is to stop or was ended; the one that works on it asks the database."""

    def work(self) -> None:
        """Tells other processes that there is a run which any of them may take."""
