"""Within a subscription every number comes once, in order and without a gap, between the right announcements."""

from collections.abc import Iterator
from dataclasses import dataclass

from scripts.chaos.promises.evidence import STARTS, Evidence, Fields
from scripts.chaos.record import Event, Finding, Log, Sent, Told

__all__ = ["MERGED", "check_streams"]

MERGED = frozenset({"agent_message", "agent_thinking", "tool_progress"})
"""Types of which one event may stand for several."""


@dataclass
class _Subscription:
    """What is subscribed: from `start`, told until `last`; `target` is what must come before `caught_up`."""

    epoch: str
    start: int
    last: int
    target: int | None = None


def check_streams(evidence: Evidence) -> Iterator[Finding]:
    """The promises of section 5, for every connection, event stream and page."""
    ends = {(book.user, book.thread_id): (book.epoch, book.last_seq) for book, _ in evidence.alive}
    for log in evidence.recording.logs:
        reader = _Reader(log)
        for entry in log.entries:
            match entry:
                case Sent():
                    reader.asked[str(entry.fields.get("id"))] = entry.fields
                case Event():
                    reader.take_event(entry)
                case Told():
                    reader.take(entry)
        if log.open_at_end:
            reader.finish(ends)
        yield from reader.found


class _Reader:
    """Follows one connection."""

    def __init__(self, log: Log) -> None:
        self.found: list[Finding] = []
        self.asked: dict[str, Fields] = {}
        self._log = log
        self._subscriptions: dict[str, _Subscription] = {}
        self._switched: dict[str, int] = {}
        self._old: dict[str, set[str]] = {}

    def _breach(self, promise: str, thread_id: str, detail: str) -> None:
        self.found.append(Finding(promise, self._log.user, thread_id, f"{detail} ({self._log.via})"))

    def take_event(self, event: Event) -> None:
        subscription = self._subscriptions.get(event.thread_id)
        if subscription is None:
            self._breach("subscriptions", event.thread_id, f"{event.event_id} without a subscription")
            return
        if event.epoch != subscription.epoch:
            self._breach("epochs", event.thread_id, f"{event.event_id} of {event.epoch} in {subscription.epoch}")
        last = subscription.last
        if event.seq <= last:
            self._breach("once", event.thread_id, f"{event.type} {event.seq} after {last}")
            return
        if event.from_seq > last + 1:
            self._breach("dense", event.thread_id, f"{event.type} {event.from_seq} after {last}")
        elif event.from_seq <= last and not (last == subscription.start and event.type in MERGED):
            self._breach("once", event.thread_id, f"{event.type} {event.from_seq} to {event.seq} after {last}")
        subscription.last = event.seq

    def take(self, told: Told) -> None:
        fields = told.fields
        thread_id = str(fields.get("thread_id"))
        asked = self.asked.get(str(fields.get("id")))
        match told.type:
            case "request_accepted" if asked and asked.get("subscribe") is not False and self._log.via == "ws":
                seq = int(fields.get("seq") or 0)
                if thread_id not in self._subscriptions:
                    self._subscriptions[thread_id] = _Subscription(str(fields.get("epoch")), seq, seq)
            case "thread_switched":
                thread = fields.get("thread") or {}
                self._switched[str(thread.get("thread_id"))] = int(fields.get("resume_after") or 0)
            case "subscribed":
                self._subscribed(thread_id, fields, asked)
            case "caught_up":
                self._caught_up(thread_id, int(fields.get("seq") or 0))
            case "thread_deleted":
                self._old.setdefault(thread_id, set()).update(self._epoch(thread_id))
                self._subscriptions.pop(thread_id, None)
            case "unsubscribed" | "subscription_ended":
                self._subscriptions.pop(thread_id, None)
            case "thread_created":
                thread = fields.get("thread") or {}
                name, epoch = str(thread.get("thread_id")), str(thread.get("epoch"))
                if epoch in self._old.get(name, ()):
                    self._breach("epochs", name, f"made anew with the epoch {epoch} that it had")

    def _epoch(self, thread_id: str) -> set[str]:
        subscription = self._subscriptions.get(thread_id)
        return {subscription.epoch} if subscription else set()

    def _subscribed(self, thread_id: str, told: Fields, asked: Fields | None) -> None:
        first, last = int(told.get("first_seq") or 0), int(told.get("last_seq") or 0)
        after, epoch, recovered = int(told.get("after_seq") or 0), str(told.get("epoch")), told.get("recovered")
        if asked is not None and asked.get("type") not in STARTS:
            wanted = asked.get("after_seq")
            if wanted is None:
                wanted = self._switched.pop(thread_id, 0)
            lost = asked.get("epoch") not in (None, epoch) or not first - 1 <= wanted <= last
            if recovered is lost:
                self._breach("recovered", thread_id, f"{told} for {asked}")
            if after != (first - 1 if lost else wanted):
                self._breach("subscribed", thread_id, f"{told} for {asked}")
        elif recovered is not False:
            self._breach("subscribed", thread_id, f"unasked: {told}")
        elif thread_id not in self._subscriptions:
            self._breach("subscribed", thread_id, f"unasked and not subscribed: {told}")
        self._subscriptions[thread_id] = _Subscription(epoch, after, after, last)

    def _caught_up(self, thread_id: str, seq: int) -> None:
        subscription = self._subscriptions.get(thread_id)
        if subscription is None or subscription.target is None:
            self._breach("caught_up", thread_id, f"caught_up {seq} that nothing was subscribed for")
            return
        if subscription.last < subscription.target or subscription.last != seq:
            detail = f"caught_up {seq} at {subscription.last}, subscribed to {subscription.target}"
            self._breach("caught_up", thread_id, detail)
        subscription.target = None

    def finish(self, ends: dict[tuple[str, str], tuple[str, int]]) -> None:
        """A connection that lived until the end was told everything."""
        for thread_id, subscription in self._subscriptions.items():
            if subscription.target is not None:
                self._breach("caught_up", thread_id, "never came")
            epoch, last = ends.get((self._log.user, thread_id), ("", 0))
            if subscription.epoch == epoch and subscription.last < last:
                self._breach("live", thread_id, f"told to {subscription.last} while the thread is at {last}")
