"""All subscriptions of a process: who hears of what, reads of the journal, and the look for what was not heard of."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress

from agentws.core.fold import merge
from agentws.core.framing import item_of
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
THREADS_A_CALL = 500
_RETRY_S = 0.5

_Followed = tuple[ThreadKey, str]


class Feed:
    """All subscriptions of a process.

    Args:
        poll_interval_s: how often the journal is asked for what was not heard, in seconds; asked before each pause.
    """

    def __init__(
        self,
        journal: Journal,
        broker: Broker,
        *,
        poll_interval_s: Callable[[], float],
        meter: FeedMeter,
        statistics: Statistics,
    ) -> None:
        self.meter = meter
        self.statistics = statistics
        self._journal = journal
        self._broker = broker
        self._poll_interval_s = poll_interval_s
        self._subscriptions: set[Subscription] = set()
        self._followed: Counter[ThreadKey] = Counter()
        self._reads: set[asyncio.Task[None]] = set()
        self._away = False
        self._reconcile = asyncio.Event()

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
        pause_s = self._poll_interval_s()
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._reconcile.wait()
            # What is to be found from now on is looked for once more.
            self._reconcile.clear()
            pause_s = self._poll_interval_s()
            if not await self._look():
                pause_s = min(pause_s, _RETRY_S)

    def reconcile(self) -> None:
        """Asks now for what was written: something may not have been heard of."""
        self._reconcile.set()

    async def _look(self) -> bool:
        """Asks where all threads end that are followed, so many in a call; False where a call was not answered."""
        asked: dict[_Followed, list[Subscription]] = {}
        for subscription in self._subscriptions:
            asked.setdefault((subscription.key, subscription.epoch), []).append(subscription)
        threads = list(asked)
        # Where nobody follows anything, the database is asked whether it is back all the same.
        starts = range(0, len(threads), THREADS_A_CALL) if threads else range(1 if self._away else 0)
        answers = [await self._look_at(threads[at : at + THREADS_A_CALL], asked) for at in starts]
        if all(answers):
            self._away = False
        return all(answers)

    async def _look_at(self, threads: Sequence[_Followed], asked: Mapping[_Followed, Sequence[Subscription]]) -> bool:
        try:
            ends = await self._journal.read_ends(threads)
        except StoreUnavailable as error:
            self._tell_away(error)
            return False
        except Exception:
            log.exception("cannot read the ends of %d threads", len(threads))
            return False
        for thread in threads:
            for subscription in asked[thread]:
                subscription.catch_up(ends.get(thread))
        return True

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
        budget = subscription.follower.budget
        while subscription.is_reading:
            try:
                # Many subscriptions of one follower are behind at once: no more than one page is in memory for it.
                async with budget.turn():
                    await self._read_page(subscription, budget.free)
                return
            except StoreUnavailable as error:
                self._tell_away(error)
                await asyncio.sleep(_RETRY_S)
                continue
            except Exception:
                log.exception("cannot read the journal of a thread")
                await asyncio.sleep(_RETRY_S)
                continue

    async def _read_page(self, subscription: Subscription, most_bytes: int) -> None:
        if not subscription.is_reading:
            return
        self.meter.read()
        heard = subscription.heard
        page = await self._journal.read_events(
            subscription.key.principal,
            subscription.key.thread_id,
            epoch=subscription.epoch,
            after_seq=subscription.cursor,
            limit=PAGE,
            most_bytes=most_bytes,
        )
        items = [item_of(origin, record) for origin, record in merge(page.events)]
        if subscription.in_doubt:
            await self._make_sure(subscription)
        if not items and subscription.has_heard_more and await self._is_removed(subscription):
            subscription.end("epoch_changed")
        else:
            subscription.add_page(items, more=page.more, heard=heard)

    async def _make_sure(self, subscription: Subscription) -> None:
        """Looks where a thread ends, for one that has heard of another epoch or of its end."""
        thread = subscription.key, subscription.epoch
        subscription.in_doubt = False
        try:
            ends = await self._journal.read_ends([thread])
        except BaseException:
            subscription.in_doubt = True
            raise
        subscription.catch_up(ends.get(thread))

    async def _is_removed(self, subscription: Subscription) -> bool:
        """Whether what comes next in a thread was removed by age, and nothing has come since."""
        key = subscription.key
        head = await self._journal.read_head(key.principal, key.thread_id)
        return head is not None and head.epoch == subscription.epoch and head.first_seq > subscription.cursor + 1

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
