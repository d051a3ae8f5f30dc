"""The threads that one connection follows: at most one subscription each, and no more than it may have."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from agentws.core.context import Principal
from agentws.feed import Feed, Follower, Subscription
from agentws.ports import ThreadKey
from agentws.wire.ids import ThreadId

__all__ = ["Following"]


class Following:
    """
    Args:
        feed: where events come from.
        follower: who they are for.
        principal: whose threads they are of.
        most: how many may be followed; 0: any number.
        postpone: takes back that a subscription is ready.
    """

    def __init__(
        self,
        feed: Feed,
        follower: Follower,
        principal: Principal,
        *,
        most: int,
        postpone: Callable[[Subscription], None],
    ) -> None:
        self._feed = feed
        self._follower = follower
        self._principal = principal
        self._most = most
        self._postpone = postpone
        self._subscriptions: dict[ThreadId, Subscription] = {}
        self._held: Subscription | None = None
        self._is_over = False

    def __len__(self) -> int:
        return len(self._subscriptions)

    @property
    def is_reading(self) -> bool:
        """Whether the journal is being read for one of them."""
        return any(subscription.is_reading for subscription in self._subscriptions.values())

    def of(self, thread_id: ThreadId, epoch: str) -> Subscription | None:
        """The subscription of a thread in an epoch; also one that is held and has ended by itself."""
        for each in (self._subscriptions.get(thread_id), self._held):
            if each is not None and each.key.thread_id == thread_id and each.epoch == epoch:
                return each
        return None

    def may_add(self, thread_id: ThreadId) -> bool:
        """Whether a thread is followed already, or one more may be."""
        return not self._most or thread_id in self._subscriptions or len(self._subscriptions) < self._most

    def add(self, thread_id: ThreadId, *, epoch: str, after_seq: int, behind: bool) -> None:
        """Follows a thread, unannounced, unless it is followed already; arguments as `Subscription`."""
        if thread_id not in self._subscriptions:
            self._subscribe(thread_id, epoch=epoch, after_seq=after_seq, behind=behind, announce=None)

    def replay(self, thread_id: ThreadId, *, frame_id: str | None, epoch: str, after_seq: int) -> None:
        """Follows a thread from a number on, and announces with `frame_id` when it has caught up."""
        self._subscribe(thread_id, epoch=epoch, after_seq=after_seq, behind=True, announce=(frame_id,))

    def remove(self, thread_id: ThreadId) -> None:
        """Follows a thread no more."""
        if subscription := self._subscriptions.pop(thread_id, None):
            subscription.close()

    def forget(self, subscription: Subscription) -> None:
        """Takes out one that has ended by itself."""
        if self._subscriptions.get(subscription.key.thread_id) is subscription:
            del self._subscriptions[subscription.key.thread_id]

    def end(self) -> None:
        """Follows nothing any more, whatever is added later: nobody would take it."""
        self._is_over = True
        for thread_id in tuple(self._subscriptions):
            self.remove(thread_id)

    @contextmanager
    def held(self, thread_id: ThreadId) -> Iterator[None]:
        """Keeps back a thread's events until the block is left."""
        self._held = held = self._subscriptions.get(thread_id)
        if held is None:
            yield
            return
        held.hold()
        try:
            yield
        finally:
            if self._held is held:
                # What was answered meanwhile goes before what it has to give, also where it was to be asked before.
                self._postpone(held)
            self._held = None
            held.release()

    def leave_older(self, thread_id: ThreadId, *, epoch: str) -> None:
        """Follows a thread no more in an epoch before this one, its newest; what was held back for that goes first."""
        # The one that is held may have ended by itself, and is not among the others then.
        for each in (self._held, self._subscriptions.get(thread_id)):
            if each is not None and each.key.thread_id == thread_id and each.epoch != epoch:
                each.end("epoch_changed")
                each.release()
                self._held = None

    def _subscribe(
        self, thread_id: ThreadId, *, epoch: str, after_seq: int, behind: bool, announce: tuple[str | None] | None
    ) -> None:
        if self._is_over:
            return
        self._subscriptions[thread_id] = self._feed.subscribe(
            self._follower,
            ThreadKey(self._principal, thread_id),
            epoch=epoch,
            cursor=after_seq,
            behind=behind,
            announce=announce,
        )
