"""Tells followers in this process, at once and in order."""

import logging

from agentws.core.replay import Batch
from agentws.observe.meters import FeedMeter
from agentws.ports import Listener, ThreadKey
from agentws.wire.ids import RunNo

__all__ = ["LocalBroker"]

log = logging.getLogger("agentws.broker")


class LocalBroker:
    """Followers by thread; a thread without any has no entry. `meter`: told of what is published."""

    def __init__(self, meter: FeedMeter | None = None) -> None:
        self._meter = meter or FeedMeter()
        self._listeners: dict[ThreadKey, set[Listener]] = {}

    def subscribe(self, key: ThreadKey, listener: Listener) -> None:
        self._listeners.setdefault(key, set()).add(listener)

    def unsubscribe(self, key: ThreadKey, listener: Listener) -> None:
        listeners = self._listeners.get(key, set())
        listeners.discard(listener)
        if not listeners:
            self._listeners.pop(key, None)

    def follows(self, key: ThreadKey) -> bool:
        """Whether a thread has a follower here."""
        return key in self._listeners

    def publish(self, key: ThreadKey, batch: Batch) -> None:
        self._meter.published()
        self.tell(key, batch)

    def tell(self, key: ThreadKey, batch: Batch) -> None:
        """Tells the followers here."""
        for listener in tuple(self._listeners.get(key, ())):
            try:
                listener.push(batch)
            except Exception:
                # What goes wrong with one follower is not the run's fault, nor the other followers'.
                log.exception("a follower could not take a batch")

    def stop(self, run_no: RunNo) -> None:
        """Other processes find the mark when they renew their lease."""

    def work(self) -> None:
        """Other processes find the run when they look for some."""
