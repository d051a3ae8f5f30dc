"""How a follower of a thread joins the journal with what it hears: by number, exactly once, in order.

Pure functions over numbers and lists; the feed is their shell.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agentws.core.framing import Origin, Record

__all__ = ["Batch", "Item", "follow", "restart_at"]


class Item:
    """An event that can be sent, of the numbers `from_seq` … `seq`. Its frame is encoded once, when first asked for.

    `piece`: the event itself where others may be merged with it.
    """

    def __init__(
        self,
        from_seq: int,
        seq: int,
        encode: Callable[[], str],
        *,
        piece: "tuple[Origin, Record] | None" = None,
    ) -> None:
        self.from_seq = from_seq
        self.seq = seq
        self.piece = piece
        self._encode = encode

    @cached_property
    def frame(self) -> str:
        return self._encode()


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """What was committed at once: the numbers after `after_seq` up to `last_seq`. Without items it is only a hint.

    `deleted`: the thread was deleted with it, so that nothing comes after. `unsure`: somebody says that it was, which
    is to be made sure of.

    For measuring only: `committed_at` is when this process was told of the commit, by a clock that never goes back;
    `on_sent` is told how many seconds after that a follower took the items.
    """

    epoch: str
    after_seq: int
    last_seq: int
    items: Sequence[Item] = ()
    deleted: bool = False
    unsure: bool = False
    committed_at: float | None = None
    on_sent: Callable[[float], None] | None = None


def follow(cursor: int, batch: Batch) -> Sequence[Item] | None:
    """What a follower that holds everything up to `cursor` has to take from a batch.

    Returns:
        The items beyond the cursor, in order, none where the batch is old; None where something between is missing,
        so that the journal has to be read.
    """
    if batch.last_seq <= cursor:
        return ()
    if not batch.items or batch.after_seq > cursor:
        return None
    return [item for item in batch.items if item.seq > cursor]


def restart_at(*, after_seq: int, epoch: str | None, first_seq: int, last_seq: int, current: str) -> tuple[int, bool]:
    """From where a subscription starts, and whether it joins what the client holds (`recovered`, section 5).

    Args:
        after_seq: the last number that the client holds.
        epoch: the epoch in which it got it, where it says so.
        first_seq: the oldest number that the journal still has.
        last_seq: the newest number.
        current: the thread's epoch.
    """
    if (epoch is not None and epoch != current) or after_seq > last_seq or after_seq < first_seq - 1:
        return first_seq - 1, False
    return after_seq, True
