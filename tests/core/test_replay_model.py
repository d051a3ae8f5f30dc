"""A follower against a model: whatever is committed, lost, late, doubled, merged or begun anew, it has a number once.

The model is the list of all that was committed; the follower has `follow`, `restart_at` and a journal that it can read.
"""

from collections.abc import Sequence

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, rule

from agentws.core.replay import Batch, Item, follow, restart_at


def item(from_seq: int, seq: int) -> Item:
    return Item(from_seq, seq, lambda: f"{from_seq}-{seq}")


class Follower(RuleBasedStateMachine):
    told = Bundle("told")

    @initialize()
    def begin(self) -> None:
        self.epoch = 0
        self.first = 1
        self.last = 0
        self.held: list[int] = []
        self.base = 0
        self.cursor = 0
        self.followed = 0

    @rule(target=told, sizes=st.lists(st.integers(1, 4), min_size=1, max_size=4), is_hint=st.booleans())
    def commit(self, sizes: list[int], is_hint: bool) -> tuple[int, Batch]:
        """Some events, each standing for one number or several, told with what they are or as a hint."""
        after = self.last
        items: list[Item] = []
        for size in sizes:
            items.append(item(self.last + 1, self.last + size))
            self.last += size
        batch = Batch(epoch=str(self.epoch), after_seq=after, last_seq=self.last, items=() if is_hint else items)
        return self.epoch, batch

    @rule(heard=told)
    def hear(self, heard: tuple[int, Batch]) -> None:
        """In any order, any number of times, or never."""
        epoch, batch = heard
        if epoch != self.followed:
            return
        items = follow(self.cursor, batch)
        if items is None:
            self.read(limit=100, merge=1)
        else:
            self.take(items)

    @rule(limit=st.integers(1, 5), merge=st.integers(1, 4))
    def read(self, limit: int, merge: int) -> None:
        """A page of the journal, where events that stood alone may stand together by now."""
        if self.followed != self.epoch:
            return
        # Those that stand together may begin before what the follower holds.
        at = max(self.first - 1, self.cursor - self.cursor % merge)
        items: list[Item] = []
        while at < self.last and len(items) < limit:
            upto = min(self.last, at + merge)
            items.append(item(at + 1, upto))
            at = upto
        self.take([each for each in items if each.seq > self.cursor])

    def take(self, items: Sequence[Item]) -> None:
        for each in items:
            assert each.from_seq <= self.cursor + 1, "a hole"
            assert each.seq > self.cursor, "a number that it had"
            self.held.extend(range(self.cursor + 1, each.seq + 1))
            self.cursor = each.seq

    @rule(gone=st.integers(0, 3))
    def retain(self, gone: int) -> None:
        """The oldest events are removed; who had not read them subscribes again."""
        self.first = min(self.last + 1, self.first + gone)
        if self.followed == self.epoch and self.cursor < self.first - 1:
            self.subscribe(after_seq=self.cursor, knows=True)

    @rule(target=told)
    def begin_anew(self) -> object:
        """Deleted and made anew, or a new epoch by an operator."""
        self.epoch += 1
        self.first, self.last = 1, 0
        return multiple()

    @rule(after_seq=st.integers(0, 12), knows=st.booleans())
    def subscribe(self, after_seq: int, knows: bool) -> None:
        """From any number, also one that it never held."""
        said = str(self.followed) if knows else None
        at, recovered = restart_at(
            after_seq=after_seq, epoch=said, first_seq=self.first, last_seq=self.last, current=str(self.epoch)
        )
        assert self.first - 1 <= at <= self.last
        assert recovered or at == self.first - 1
        if recovered:
            assert at == after_seq
            assert not knows or self.followed == self.epoch
        self.followed, self.cursor, self.base, self.held = self.epoch, at, at, []

    @invariant()
    def holds_each_number_once_in_order(self) -> None:
        assert self.held == list(range(self.base + 1, self.cursor + 1))

    def teardown(self) -> None:
        if getattr(self, "followed", None) == getattr(self, "epoch", -1):
            self.read(limit=1_000, merge=1)
            assert self.cursor == self.last


Follower.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestFollower = Follower.TestCase
