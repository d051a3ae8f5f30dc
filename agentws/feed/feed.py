"""All subscriptions of a process: who hears of what, reads of the journal, and the look for what was not heard of."""

import asyncio
import logging
from collections import Counter
from collections.abc import Iterable
from functools import partial

from agentws.core.framing import frame
from agentws.core.replay import Item
from agentws.core.session import error_frame
from agentws.feed.subscription import Follower, Subscription
from agentws.observe.meters import FeedMeter
from agentws.observe.statistics import Statistics
from agentws.ports import Broker, Journal, StoreUnavailable, ThreadKey
from agentws.wire.codec import encode_text
from agentws.wire.errors import Fault

__all__ = ["Feed"]

log = logging.getLogger("agentws.feed")

PAGE = 200
_RETRY_S = 0.5


class Feed:
    """All subscriptions of a process.

    Args:
        poll_interval_s: how often the journal is asked for what was not heard, in seconds.
        buffer_bytes: what a subscription holds at most, but for one event.
    """

    def __init__(
        self,
        journal: Journal,
        broker: Broker,
        *,
        poll_interval_s: float,
        buffer_bytes: int,
        meter: FeedMeter,
        statistics: Statistics,
    ) -> None:
        self.buffer_bytes = buffer_bytes
        self.meter = meter
        self.statistics = statistics
        self._journal = journal
        self._broker = broker
        self._poll_interval_s = poll_interval_s
        self._subscriptions: set[Subscription] = set()
        self._followed: Counter[ThreadKey] = Counter()
        self._reads: set[asyncio.Task[None]] = set()
        self._away = False

    def subscribe(
        self,
        follower: Follower,
        key: ThreadKey,
        *,
        epoch: str,
        cursor: int,
        behind: bool,
        announce: tuple[str | None] | None,
    ) -> Subscription:
        """A new subscription; arguments as `Subscription`. It hears of everything committed from now on."""
        subscription = Subscription(self, follower, key, epoch=epoch, cursor=cursor, behind=behind, announce=announce)
        self._subscriptions.add(subscription)
        self._followed[key] += 1
        self._broker.subscribe(key, subscription)
        if behind:
            follower.ready(subscription)
        return subscription

    def forget(self, subscription: Subscription) -> None:
        """Takes a closed subscription out."""
        if subscription not in self._subscriptions:
            return
        self._subscriptions.discard(subscription)
        self._followed[subscription.key] -= 1
        if not self._followed[subscription.key]:
            del self._followed[subscription.key]
        self._broker.unsubscribe(subscription.key, subscription)

    def read(self, subscription: Subscription) -> None:
        """Reads a page for a subscription, in a task of its own."""
        task = asyncio.get_running_loop().create_task(self._read(subscription))
        self._reads.add(task)
        task.add_done_callback(self._on_read)

    async def poll(self) -> None:
        """Asks at intervals for what was written and not heard of, until cancelled."""
        while True:
            await asyncio.sleep(self._poll_interval_s)
            asked = tuple(self._subscriptions)
            if not asked and not self._away:
                continue
            followed = list({(each.key, each.epoch) for each in asked})
            try:
                ends = await self._journal.read_ends(followed)
            except StoreUnavailable as error:
                self._tell_away(error)
                continue
            except Exception:
                log.exception("cannot read the ends of %d threads", len(followed))
                continue
            self._away = False
            for subscription in asked:
                subscription.catch_up(ends.get((subscription.key, subscription.epoch)))

    def follows(self, key: ThreadKey) -> bool:
        """Whether anybody follows a thread here."""
        return key in self._followed

    @property
    def subscriptions(self) -> int:
        """How many subscriptions there are."""
        return len(self._subscriptions)

    def buffered(self) -> Iterable[int]:
        """How many bytes each subscription holds."""
        return [subscription.buffered for subscription in self._subscriptions]

    async def close(self) -> None:
        """Ends reads under way."""
        for task in tuple(self._reads):
            task.cancel()
        await asyncio.gather(*self._reads, return_exceptions=True)

    async def _read(self, subscription: Subscription) -> None:
        while subscription.is_reading:
            self.meter.read()
            try:
                page = await self._journal.read_events(
                    subscription.key.principal,
                    subscription.key.thread_id,
                    epoch=subscription.epoch,
                    after_seq=subscription.cursor,
                    limit=PAGE,
                    most_bytes=self.buffer_bytes,
                )
                items = [
                    Item(record.from_seq or record.seq, record.seq, partial(frame, origin, record))
                    for origin, record in page.events
                ]
                subscription.add_page(items, more=page.more)
                return
            except StoreUnavailable as error:
                self._tell_away(error)
                await asyncio.sleep(_RETRY_S)
                continue
            except Exception:
                log.exception("cannot read the journal of a thread")
                await asyncio.sleep(_RETRY_S)
                continue

    def _on_read(self, task: "asyncio.Task[None]") -> None:
        self._reads.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.error("reading the journal for a subscription failed", exc_info=error)

    def _tell_away(self, error: StoreUnavailable) -> None:
        """Tells each follower once that the database is away."""
        if self._away:
            return
        self._away = True
        log.warning("the database is away: %s", error)
        text = encode_text(error_frame(Fault("database_unavailable"), frame_id=None))
        for follower in {subscription.follower for subscription in self._subscriptions}:
            follower.tell(text)
