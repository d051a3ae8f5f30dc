"""A thread's events for one follower: the journal and what is heard of it, joined by number; each once, in order.

What is held for a follower is bounded, over all its subscriptions. What does not fit, what was missed, and what another
process wrote is read from the journal, when the follower has taken what was there.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple, Protocol

from agentws.core.fold import beyond
from agentws.core.framing import Origin, Record, item_of
from agentws.core.replay import Batch, Item, follow
from agentws.feed.budget import Budget
from agentws.observe.delivery import Commit, Delivery
from agentws.ports import End, ThreadKey
from agentws.wire.answers import CaughtUp, SubscriptionEnded, ThreadDeleted
from agentws.wire.codec import encode_text, size_of, timestamp

if TYPE_CHECKING:
    from agentws.feed.feed import Feed

__all__ = ["Follower", "Frame", "Subscription"]


class _State(Enum):
    """LIVE: what is heard is taken. BEHIND: the journal has more. READING: it is being read. CLOSED: over."""

    LIVE = "live"
    BEHIND = "behind"
    READING = "reading"
    CLOSED = "closed"


class Frame(NamedTuple):
    """A frame to be sent, and how many bytes it is in UTF-8."""

    text: str
    size: int


class _Waiting(NamedTuple):
    """A frame that waits; `commit`: the one that an event was heard of with."""

    frame: Frame
    is_event: bool
    commit: Commit | None


class _Shelf:
    """The frames that wait, which count in a follower's budget; those that were taken go on counting there."""

    def __init__(self, budget: Budget) -> None:
        self.bytes = 0
        self._budget = budget
        self._frames: deque[_Waiting] = deque()

    def __bool__(self) -> bool:
        return bool(self._frames)

    def put(self, text: str, *, is_event: bool = False, commit: Commit | None = None) -> None:
        frame = Frame(text, size_of(text))
        self._frames.append(_Waiting(frame, is_event, commit))
        self.bytes += frame.size
        self._budget.add(frame.size)

    def take(self, most_bytes: int) -> list[_Waiting]:
        """The first ones: so many bytes and the frame that passes them."""
        taken: list[_Waiting] = []
        size = 0
        while self._frames and size < most_bytes:
            taken.append(self._frames.popleft())
            size += taken[-1].frame.size
        self.bytes -= size
        return taken

    def drop_last(self) -> None:
        size = self._frames.pop().frame.size
        self.bytes -= size
        self._budget.remove(size)

    def drop(self) -> None:
        self._frames.clear()
        self._budget.remove(self.bytes)
        self.bytes = 0


class Follower(Protocol):
    """Who subscriptions are for; its calls return at once and never raise.

    `budget`: what is held for it. Who takes a frame removes it from there when it has been sent.
    """

    @property
    def budget(self) -> Budget: ...

    def ready(self, subscription: "Subscription") -> None:
        """There is something to take; it may be told again before anything is taken."""

    def tell(self, text: str) -> None:
        """A frame that is no event."""

    def ended(self, subscription: "Subscription", *, deleted: bool) -> None:
        """The server has ended a subscription, `deleted`: with its thread. Its last frames can still be taken."""


class Subscription:
    """
    Args:
        follower: for whom.
        key: the thread.
        epoch: the thread's epoch; with another one the subscription ends.
        cursor: the last number that the follower holds.
        behind: the journal has events after it.
        announce: the id of the frame to answer with `caught_up`, wrapped; None: nothing is announced.
    """

    def __init__(
        self,
        feed: "Feed",
        follower: Follower,
        key: ThreadKey,
        *,
        epoch: str,
        cursor: int,
        behind: bool,
        announce: tuple[str | None] | None,
    ) -> None:
        self.follower = follower
        self.key = key
        self.epoch = epoch
        self._feed = feed
        self._cursor = cursor
        self._state = _State.BEHIND if behind else _State.LIVE
        self._announce = announce
        self._budget = follower.budget
        self._frames = _Shelf(follower.budget)
        self.heard = cursor
        """The last number that it has heard of."""
        self._piece: tuple[Origin, Record] | None = None
        self.in_doubt = False
        """Whether it has heard of another epoch, or of an end, since it was last made sure of that."""
        self._held = False
        self._last: tuple[int, str] | None = None
        self._has_finished = False
        self._closed = asyncio.Event()
        self._delivery = Delivery(feed.meter, feed.statistics, behind=behind)

    @property
    def cursor(self) -> int:
        """The last number that is in the follower's hands or on its way there."""
        return self._cursor

    @property
    def buffered(self) -> int:
        """How many bytes are here to be taken."""
        return self._frames.bytes

    def hold(self) -> None:
        """Gives nothing more until `release`."""
        self._held = True

    def release(self) -> None:
        """Gives again what there is."""
        self._held = False
        self._tell()

    def push(self, batch: Batch) -> None:
        """Takes what was committed, or a hint of it."""
        if self._state is _State.CLOSED:
            return
        if batch.epoch != self.epoch or batch.unsure:
            # One of two epochs is old, or it is over with this one. The journal knows which, and what there is of it.
            self.in_doubt = True
            self._fall_behind()
        else:
            self.heard = max(self.heard, batch.last_seq)
            items = follow(self._cursor, batch) if self._state is _State.LIVE else ()
            if items is None or self._add(items, batch) < len(items):
                self._fall_behind()
            if batch.deleted:
                self.finish(batch.last_seq, _deleted(self.key))
        self._tell()

    def _fall_behind(self) -> None:
        if self._state is _State.LIVE:
            self._state = _State.BEHIND

    def take(self, most_bytes: int) -> list[Frame]:
        """The next frames, in order: so many bytes and the frame that passes them; all, where it has ended.

        Where there are more, `ready` has been called again. Where there are none and the journal has more, it is read,
        and `ready` called then.
        """
        if self._held:
            return []
        # Its end goes before whatever is told after it, so that no more turns are waited for.
        taken = self._frames.take(self._frames.bytes if self._state is _State.CLOSED else most_bytes)
        self._delivery.taken([each.commit for each in taken if each.is_event])
        if self._frames:
            self.follower.ready(self)
        elif self._state is _State.BEHIND:
            self._state = _State.READING
            self._feed.read(self)
        return [each.frame for each in taken]

    def end(self, reason: str) -> None:
        """Ends the subscription from the server's side, and says so."""
        if self._state is _State.CLOSED:
            return
        ended = SubscriptionEnded(timestamp=timestamp(), thread_id=self.key.thread_id, reason=reason)
        self._frames.drop()
        self._end(encode_text(ended), deleted=False)

    def finish(self, last_seq: int, text: str) -> None:
        """Ends the subscription with a frame, after the event `last_seq`: there are none after it."""
        if self._state is _State.CLOSED or self._last is not None:
            return
        self._finish(last_seq, text)

    def answer(self, last_seq: int, text: str) -> bool:
        """Ends the subscription as `finish` does, and with this frame also where another was about to end it, because
        the same end was heard of from elsewhere; False where it has ended and the frame comes too late for that.
        """
        if self._has_finished and self._held and self._frames:
            # It ended while it was held: the other frame is still here.
            self._frames.drop_last()
            self._frames.put(text)
            return True
        if self._state is _State.CLOSED:
            return False
        self._finish(last_seq, text)
        return True

    def _finish(self, last_seq: int, text: str) -> None:
        self._last = (last_seq, text)
        self.heard = max(self.heard, last_seq)
        if self._cursor < last_seq:
            self._fall_behind()
        self._end_if_finished()
        self._tell()

    async def closed(self) -> None:
        """Waits until it has ended, from either side."""
        await self._closed.wait()

    def close(self) -> None:
        """Takes nothing more; what was not taken is dropped."""
        self._state = _State.CLOSED
        self._frames.drop()
        self._feed.forget(self)
        self._closed.set()

    def _end_if_finished(self) -> None:
        if self._last is not None and self._state is not _State.CLOSED and self._cursor >= self._last[0]:
            self._has_finished = True
            self._end(self._last[1], deleted=True)

    def _end(self, text: str, *, deleted: bool) -> None:
        self._state = _State.CLOSED
        self._feed.forget(self)
        self._frames.put(text)
        self.follower.ended(self, deleted=deleted)
        self.follower.ready(self)
        self._closed.set()

    @property
    def is_reading(self) -> bool:
        return self._state is _State.READING

    @property
    def has_heard_more(self) -> bool:
        """Whether there should be more in the journal than it has; not asked of one that is about to end."""
        return self.heard > self._cursor and self._last is None

    @property
    def is_closed(self) -> bool:
        return self._state is _State.CLOSED

    def add_page(self, items: Sequence[Item], *, more: bool, heard: int) -> None:
        """Takes what was read from the journal.

        Args:
            more: there may be more to read.
            heard: what it had heard of before it was read: what it has heard of since may be missing in it.
        """
        if self._state is not _State.READING:
            return
        if items and items[0].from_seq > self._cursor + 1:
            # What lies between is gone, with its thread or by age: nothing after it may be told.
            if self._last is None:
                self.end("epoch_changed")
                return
            items, more = (), False
        if not items and self.heard <= heard:
            # What was heard of is not there, or not any more: the journal is right, and asked again at the next hint.
            self.heard = self._cursor
            if self._last is not None and not more:
                self._cursor = max(self._cursor, self._last[0])
        if self._piece is not None and items and items[0].from_seq <= self._cursor:
            items = _without(self._piece, items)
        if self._add(items, None) < len(items) or more or self.in_doubt or self.heard > self._cursor:
            self._state = _State.BEHIND
        else:
            self._state = _State.LIVE
            self._delivery.caught_up()
            self._announce_caught_up()
            self._end_if_finished()
        self._tell()

    def _announce_caught_up(self) -> None:
        if self._announce is None:
            return
        (frame_id,) = self._announce
        self._announce = None
        caught_up = CaughtUp(id=frame_id, timestamp=timestamp(), thread_id=self.key.thread_id, seq=self._cursor)
        self._frames.put(encode_text(caught_up))

    def catch_up(self, end: End | None) -> None:
        """Takes note of where its thread ends, as it is in the database; None: it is not there any more."""
        if end is None:
            self.finish(self._cursor, _deleted(self.key))
        elif end.epoch != self.epoch:
            self.end("epoch_changed")
        else:
            self.push(Batch(epoch=end.epoch, after_seq=end.last_seq, last_seq=end.last_seq, deleted=end.deleted))

    def _add(self, items: Sequence[Item], batch: Batch | None) -> int:
        """Takes items as long as there is room; returns how many. `batch`: what they came with; None: the journal."""
        commit = None if batch is None else Commit(batch.committed_at, batch.on_sent)
        for taken, item in enumerate(items):
            if self._budget.is_full:
                return taken
            self._frames.put(item.frame, is_event=True, commit=commit)
            self._cursor = item.seq
            self._piece = item.piece
            if batch is None:
                self._delivery.read()
        return len(items)

    def _tell(self) -> None:
        if not self._held and (self._frames or self._state is _State.BEHIND):
            self.follower.ready(self)


def _without(told: tuple[Origin, Record], items: Sequence[Item]) -> Sequence[Item]:
    """Leaves out what the first item begins with, which was told before it became one event with others."""
    first, *others = items
    return items if first.piece is None else [item_of(*beyond(first.piece, told)), *others]


def _deleted(key: ThreadKey) -> str:
    return encode_text(ThreadDeleted(id=None, timestamp=timestamp(), thread_id=key.thread_id))
