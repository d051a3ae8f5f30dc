"""What the broker promises: it tells followers of a thread what was committed."""

from typing import Protocol

from agentws.core.replay import Batch
from agentws.ports.store import ThreadKey

__all__ = ["Broker", "Listener"]


class Listener(Protocol):
    def push(self, batch: Batch) -> None:
        """Takes a batch or a hint; returns at once and never raises."""


class Broker(Protocol):
    """Tells followers of a thread what was committed. A hint may be lost, doubled or late: the journal is the truth."""

    def subscribe(self, key: ThreadKey, listener: Listener) -> None: ...

    def unsubscribe(self, key: ThreadKey, listener: Listener) -> None: ...

    def publish(self, key: ThreadKey, batch: Batch) -> None: ...
