"""A feed against a model: whatever is told, lost, late or doubled, and however slowly it is taken, a follower has all.

The model is the list of what was committed to each of two threads, which one follower shares its bytes for.
"""

import asyncio
import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import cast

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from agentws.broker.local import LocalBroker
from agentws.core.context import Principal
from agentws.core.framing import Origin, Record, frame
from agentws.core.replay import Batch, Item
from agentws.feed import Budget, Feed, Subscription
from agentws.observe.meters import FeedMeter
from agentws.observe.statistics import Statistics
from agentws.ports import End, Head, Journal, Page, ThreadKey
from agentws.wire.events import EventType
from agentws.wire.ids import RunNo, ThreadId

BUDGET = 2_000
LARGEST = 5_000
ADA = Principal("", "ada")
KEYS = (ThreadKey(ADA, ThreadId("t0")), ThreadKey(ADA, ThreadId("t1")))
RARELY = st.sampled_from([False] * 3 + [True])
SIZES = st.lists(st.sampled_from([1, 40, 400, 2_000]), min_size=1, max_size=4)
PLACES = st.sampled_from(KEYS)


class Thread:
    """What was committed to a thread since it was last begun anew."""

    def __init__(self, epoch: int) -> None:
        self.epoch = str(epoch)
        self.events: list[tuple[Origin, Record]] = []
        self.text = ""
        self.is_deleted = False

    @property
    def end(self) -> End:
        return End(epoch=self.epoch, last_seq=len(self.events), deleted=self.is_deleted)

    def add(self, key: ThreadKey, size: int) -> None:
        seq = len(self.events) + 1
        text = f"{seq}".ljust(size, "ä")
        body = json.dumps({"text": text, "offset": len(self.text)}, ensure_ascii=False)
        origin = Origin("ada", key.thread_id, self.epoch, RunNo(1), "r1", "agent")
        record = Record(
            seq=seq,
            from_seq=None,
            type=EventType.AGENT_MESSAGE,
            ordinal=seq,
            attempt=1,
            timestamp="2026-01-01T00:00:00.000Z",
            body=body,
            content=None,
        )
        self.events.append((origin, record))
        self.text += text


class Truth:
    """The journal: it answers when it is let, with what was there when it was asked, or is by then."""

    def __init__(self) -> None:
        self.threads = {key: Thread(0) for key in KEYS}
        self.asked: list[asyncio.Event] = []
        self.reads_at_once = True

    async def read_events(
        self, principal: Principal, thread_id: ThreadId, *, epoch: str, after_seq: int, limit: int, most_bytes: int
    ) -> Page:
        answered = asyncio.Event()
        self.asked.append(answered)
        page = self._page(ThreadKey(principal, thread_id), epoch, after_seq, limit, most_bytes)
        await answered.wait()
        if self.reads_at_once:
            return page
        return self._page(ThreadKey(principal, thread_id), epoch, after_seq, limit, most_bytes)

    def _page(self, key: ThreadKey, epoch: str, after_seq: int, limit: int, most_bytes: int) -> Page:
        thread = self.threads[key]
        there = thread.events[after_seq:] if thread.epoch == epoch else []
        page: list[tuple[Origin, Record]] = []
        for each in there[:limit]:
            page.append(each)
            most_bytes -= len((each[1].body or "").encode())
            if most_bytes <= 0:
                break
        return Page(page, more=len(page) < len(there))

    async def read_head(self, principal: Principal, thread_id: ThreadId) -> Head:
        end = self.threads[ThreadKey(principal, thread_id)].end
        return Head(epoch=end.epoch, first_seq=1, last_seq=end.last_seq)

    async def read_ends(self, followed: Sequence[tuple[ThreadKey, str]]) -> Mapping[tuple[ThreadKey, str], End]:
        return {(key, epoch): self.threads[key].end for key, epoch in followed}


class Taker:
    """The follower of one subscription a thread: what it has taken is checked as it comes."""

    def __init__(self) -> None:
        self.budget = Budget(BUDGET)
        self.ready_ones: list[Subscription] = []
        self.texts: dict[Subscription, str] = {}
        self.cursors: dict[Subscription, int] = {}
        self.ended_ones: set[Subscription] = set()
        self.held_back: set[Subscription] = set()

    def ready(self, subscription: Subscription) -> None:
        if subscription not in self.ready_ones:
            self.ready_ones.append(subscription)

    def tell(self, text: str) -> None:
        raise AssertionError(text)

    def ended(self, subscription: Subscription, *, deleted: bool) -> None:
        self.ended_ones.add(subscription)

    def take(self, subscription: Subscription, most_bytes: int) -> None:
        for text, size in subscription.take(most_bytes):
            assert subscription not in self.held_back
            self.budget.remove(size)
            told = json.loads(text)
            if "event_id" not in told:
                assert told["type"] in ("caught_up", "subscription_ended", "thread_deleted")
                continue
            held, cursor = self.texts[subscription], self.cursors[subscription]
            assert told["epoch"] == subscription.epoch
            assert told.get("from_seq", told["seq"]) <= cursor + 1, "a hole"
            assert told["seq"] > cursor, "a number that it had"
            new = told["payload"]["text"][len(held) - told["payload"]["offset"] :]
            assert new
            self.texts[subscription] = held + new
            self.cursors[subscription] = told["seq"]


class Following(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.runner = asyncio.Runner()
        self.loop = self.runner.get_loop()
        self.truth = Truth()
        self.broker = LocalBroker()
        self.told: list[tuple[ThreadKey, Batch]] = []
        self.restart()

    def restart(self) -> None:
        """A new process: all subscriptions are gone."""
        statistics = Statistics(runs_in_flight=lambda: 0, connections=lambda: 0)
        journal = cast(Journal, self.truth)
        self.feed = Feed(journal, self.broker, poll_interval_s=lambda: 1, meter=FeedMeter(), statistics=statistics)
        self.taker = Taker()
        self.followed: dict[ThreadKey, Subscription] = {}
        for key in KEYS:
            self.subscribe(key, share=0.0, knows_end=key == KEYS[0], anew=True)

    def go_on(self, steps: int = 8) -> None:
        async def some() -> None:
            for _ in range(steps):
                await asyncio.sleep(0)

        self.runner.run(some())

    @rule(key=PLACES, sizes=SIZES, is_told=st.sampled_from([True, True, True, False]))
    def commit(self, key: ThreadKey, sizes: list[int], is_told: bool) -> None:
        thread = self.truth.threads[key]
        if thread.is_deleted:
            self.begin_anew(key)
            thread = self.truth.threads[key]
        after = len(thread.events)
        for size in sizes:
            thread.add(key, size)
        items = [
            Item(record.seq, record.seq, partial(frame, *each)) for each in thread.events[after:] for record in each[1:]
        ]
        self.told.append((key, Batch(epoch=thread.epoch, after_seq=after, last_seq=len(thread.events), items=items)))
        if is_told:
            self.publish(place=0, is_hint=False)

    @precondition(lambda self: self.told)
    @rule(place=st.integers(-3, 0), is_hint=st.booleans())
    def publish(self, place: int, is_hint: bool) -> None:
        """What was committed lately or long ago, once more or for the first time; what is never drawn is lost."""
        key, batch = self.told[max(place - 1, -len(self.told))]
        if is_hint:
            batch = Batch(epoch=batch.epoch, after_seq=batch.last_seq, last_seq=batch.last_seq, deleted=batch.deleted)
        self.runner.run(self._publish(key, batch))

    async def _publish(self, key: ThreadKey, batch: Batch) -> None:
        self.broker.publish(key, batch)

    @rule(key=PLACES, share=st.floats(0, 1), knows_end=st.booleans(), anew=RARELY)
    def subscribe(self, key: ThreadKey, share: float, knows_end: bool, anew: bool) -> None:
        """From any number; one subscription a thread."""
        thread = self.truth.threads[key]
        if thread.is_deleted or (key in self.followed and not self.followed[key].is_closed and not anew):
            return
        self.drop(key)
        cursor = len(thread.events) if knows_end else int(share * len(thread.events))
        text = "".join(json.loads(record.body or "")["text"] for _, record in thread.events[:cursor])

        async def begin() -> Subscription:
            return self.feed.subscribe(
                self.taker, key, epoch=thread.epoch, cursor=cursor, behind=not knows_end, announce=None
            )

        made = self.runner.run(begin())
        self.taker.texts[made], self.taker.cursors[made] = text, cursor
        self.followed[key] = made

    @rule(key=PLACES, is_meant=RARELY)
    def unsubscribe(self, key: ThreadKey, is_meant: bool) -> None:
        if is_meant:
            self.drop(key)

    def drop(self, key: ThreadKey) -> None:
        if subscription := self.followed.pop(key, None):
            subscription.close()
            self.go_on()

    @rule(most_bytes=st.sampled_from([1, 500, 100_000]))
    def take(self, most_bytes: int) -> None:
        async def one() -> None:
            if self.taker.ready_ones:
                self.taker.take(self.taker.ready_ones.pop(0), most_bytes)

        self.runner.run(one())
        self.go_on()

    @rule(key=PLACES, hold=st.booleans())
    def hold(self, key: ThreadKey, hold: bool) -> None:
        if subscription := self.followed.get(key):
            (subscription.hold if hold else subscription.release)()
            (self.taker.held_back.add if hold else self.taker.held_back.discard)(subscription)

    @precondition(lambda self: self.truth.asked)
    @rule(reads_at_once=st.booleans())
    def answer(self, reads_at_once: bool = False) -> None:
        """The journal answers what it was asked first."""
        if self.truth.asked:
            self.truth.reads_at_once = reads_at_once
            self.truth.asked.pop(0).set()
            self.go_on()

    @rule(key=PLACES)
    def look(self, key: ThreadKey) -> None:
        """What the poll does."""
        if subscription := self.followed.get(key):
            subscription.catch_up(self.truth.threads[key].end)

    @rule(key=PLACES, is_meant=RARELY)
    def delete(self, key: ThreadKey, is_meant: bool) -> None:
        thread = self.truth.threads[key]
        if is_meant and not thread.is_deleted:
            self.commit(key, [1], is_told=False)
            thread.is_deleted = True
            key, batch = self.told.pop()
            self.told.append(
                (
                    key,
                    Batch(
                        epoch=batch.epoch,
                        after_seq=batch.after_seq,
                        last_seq=batch.last_seq,
                        items=batch.items,
                        deleted=True,
                    ),
                )
            )

    @rule(key=PLACES, is_meant=RARELY)
    def disturb(self, key: ThreadKey, is_meant: bool) -> None:
        if is_meant:
            self.begin_anew(key)

    def begin_anew(self, key: ThreadKey) -> None:
        """Deleted and made anew, or a new epoch by an operator."""
        self.truth.threads[key] = Thread(int(self.truth.threads[key].epoch) + 1)

    @rule(is_meant=RARELY)
    def restart_process(self, is_meant: bool) -> None:
        if is_meant:
            self.crash()

    def crash(self, *, for_good: bool = False) -> None:
        for subscription in tuple(self.followed.values()):
            subscription.close()
        self.taker.budget.close()
        self.runner.run(self.feed.close())
        self.truth.asked.clear()
        if not for_good:
            self.restart()

    @invariant()
    def holds_what_was_committed(self) -> None:
        for key, subscription in getattr(self, "followed", {}).items():
            thread = self.truth.threads[key]
            if subscription.epoch == thread.epoch:
                assert thread.text.startswith(self.taker.texts[subscription])

    @invariant()
    def holds_no_more_than_it_may(self) -> None:
        if not hasattr(self, "taker"):
            return
        assert self.taker.budget.held <= BUDGET + LARGEST
        assert len(self.truth.asked) <= 1, "pages are read one after the other"
        assert self.taker.budget.held == sum(each.buffered for each in self._all())

    def _all(self) -> set[Subscription]:
        return set(self.taker.texts)

    def teardown(self) -> None:
        if not hasattr(self, "runner"):
            return
        for key in self.followed:
            self.hold(key, hold=False)
        for _ in range(500):
            for key in KEYS:
                self.look(key)
            self.answer()
            self.take(100_000)
            if not self.taker.ready_ones and not self.truth.asked and self._has_all():
                break
        assert self._has_all()
        assert self.taker.budget.held == 0
        self.crash(for_good=True)
        self.runner.close()

    def _has_all(self) -> bool:
        return all(
            (
                self.taker.texts[each] == self.truth.threads[key].text
                and self.truth.threads[key].is_deleted == (each in self.taker.ended_ones)
            )
            if each.epoch == self.truth.threads[key].epoch
            else each in self.taker.ended_ones
            for key, each in self.followed.items()
        )


Following.TestCase.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
TestFollowing = Following.TestCase
