"""Writes one run's events: in order, each once, text gathered, and nothing is told before it is committed.

The agent's side adds and waits; the supervisor's side writes. One append is under way at a time, and one that was not
answered is repeated as it was: its ordinals make the journal take it once.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Sequence

from agentws.core.framing import Origin, Record, item_of
from agentws.core.replay import Batch, Item
from agentws.core.run import Appended, Claim, Draft, Ending
from agentws.ports import Broker, Journal, Stopping, StoreUnavailable, ThreadKey
from agentws.runtime.tally import Tally
from agentws.wire.codec import clean, encode_text, timestamp
from agentws.wire.events import AgentMessage, EventType

__all__ = ["Recorder", "publish_first"]

log = logging.getLogger("agentws.runtime")

PIECE_BYTES = 4096
SLOWEST_PIECE_S = 0.25
_RETRY_S = (0.05, 0.1, 0.2, 0.4, 0.8)


class _Piece:
    """Text of the answer that has not been written yet; grows until it is."""

    def __init__(self, offset: int) -> None:
        self.offset = offset
        self.parts: list[str] = []

    def draft(self) -> Draft:
        text = "".join(self.parts)
        return Draft(EventType.AGENT_MESSAGE, encode_text(AgentMessage(text=text, offset=self.offset)))


class Recorder:
    """
    Args:
        claim: the run.
        tally: told what is written and how long it takes.
        journal: where its events go.
        broker: who is told of them.
        interval_s: the least time between two pieces of text; it grows with the time that appends take.
        buffer_bytes: what may wait to be written before the agent has to.
    """

    def __init__(
        self, claim: Claim, tally: Tally, journal: Journal, broker: Broker, *, interval_s: float, buffer_bytes: int
    ) -> None:
        self.attempt = claim.attempt
        self.stop_reason: str | None = None
        self._claim = claim
        self._tally = tally
        self._origin = _origin(claim)
        self._journal = journal
        self._broker = broker
        self._least_interval_s = interval_s
        self._buffer_bytes = buffer_bytes
        self._ordinal = claim.ordinal
        self._pending: list[Draft | _Piece] = []
        self._pending_bytes = 0
        self._text: list[str] = []
        self._length = 0
        self._added = 0
        self._written = 0
        self._urgent = False
        self._not_before = 0.0
        self._closed = False
        self._wake = asyncio.Event()
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []

    # The agent's side

    @property
    def text(self) -> str:
        """All that this attempt has written of its answer."""
        return "".join(self._text)

    def add(self, draft: Draft) -> None:
        """Adds an event. Raises RuntimeError after the run has ended."""
        self._check_open()
        self._pending.append(draft)
        self._count(len(draft.body or ""))
        self._urgent = True
        self._wake.set()

    def add_text(self, text: str) -> None:
        """Adds a piece of the answer."""
        self._check_open()
        text = clean(text)
        if not text:
            return
        last = self._pending[-1] if self._pending else None
        if not isinstance(last, _Piece):
            last = _Piece(self._length)
            self._pending.append(last)
        last.parts.append(text)
        self._text.append(text)
        self._length += len(text)
        self._count(len(text))
        if self._pending_bytes >= PIECE_BYTES:
            self._urgent = True
        self._wake.set()

    async def room(self) -> None:
        """Waits while more than the buffer holds is not written."""
        if self._pending_bytes > self._buffer_bytes:
            await self.committed()

    async def committed(self) -> None:
        """Waits until everything added so far is committed."""
        if self._written >= self._added:
            return
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.append((self._added, waiter))
        self._urgent = True
        self._wake.set()
        began = time.monotonic()
        try:
            await waiter
        finally:
            self._tally.waited(time.monotonic() - began)

    @property
    def closed(self) -> bool:
        """Whether the run has ended, so that nothing can be added any more."""
        return self._closed

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("this run has ended")

    def _count(self, size: int) -> None:
        self._added += 1
        self._pending_bytes += size

    # The supervisor's side

    def wake(self) -> None:
        """Lets `changed` return."""
        self._wake.set()

    @property
    def is_due(self) -> bool:
        """Whether something is to be written now."""
        if not self._pending:
            return False
        return self._urgent or asyncio.get_running_loop().time() >= self._not_before

    async def changed(self, *, until: float | None) -> None:
        """Waits until something was added, `wake` was called, gathered text is due, or the loop's time is `until`."""
        if self._pending and not self._urgent:
            until = self._not_before if until is None else min(until, self._not_before)
        self._wake.clear()
        if until is None:
            await self._wake.wait()
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(until):
                await self._wake.wait()

    async def write(self) -> None:
        """Writes what has been added. Raises Fenced where the run is another's by now."""
        if self._pending:
            await self._append(self._take(), ending=None, next_owner=None, agents=())

    async def finish(
        self, drafts: Sequence[Draft], ending: Ending, *, next_owner: int | None, agents: Sequence[str]
    ) -> Claim | None:
        """Writes the rest and the run's last events, and ends it; nothing can be added from now on.

        Returns:
            The thread's next run, where one was waiting and `next_owner` has claimed it.

        Raises:
            Stopping: if it has to end in `agent_stopped`; the rest is still to be written, by another call.
        """
        self._closed = True
        rest = self._take()
        try:
            appended = await self._append([*rest, *drafts], ending=ending, next_owner=next_owner, agents=agents)
        except Stopping:
            self._pending[:0] = rest
            raise
        self._tally.ended(ending, at=appended.at)
        return appended.next

    def resume(self, ordinal: int) -> None:
        """Drops what could not be written, and goes on after the event that was written last."""
        self.discard()
        self._ordinal = ordinal

    def discard(self) -> None:
        """Drops what could not be written; nothing can be added from now on."""
        self._closed = True
        self._pending.clear()
        self.release()

    def release(self) -> None:
        """Lets those go who wait for a commit that will not come."""
        for _, waiter in self._waiting:
            waiter.cancel()
        self._waiting.clear()

    def _take(self) -> list[Draft]:
        drafts = [each.draft() if isinstance(each, _Piece) else each for each in self._pending]
        self._pending.clear()
        self._pending_bytes = 0
        self._urgent = False
        return drafts

    async def _append(
        self, drafts: list[Draft], *, ending: Ending | None, next_owner: int | None, agents: Sequence[str]
    ) -> Appended:
        added = self._added
        began = time.monotonic()
        appended = await self._append_until_answered(drafts, ending=ending, next_owner=next_owner, agents=agents)
        answered = time.monotonic()
        took_s = answered - began
        self._not_before = asyncio.get_running_loop().time() + min(
            SLOWEST_PIECE_S, max(self._least_interval_s, 4 * took_s)
        )
        self._tally.appended(drafts, at=appended.at, seconds=took_s)
        self._publish(drafts, appended, answered)
        self._ordinal += len(drafts)
        self._written = added
        self.stop_reason = self.stop_reason or appended.stop_reason
        self._settle()
        return appended

    async def _append_until_answered(
        self, drafts: list[Draft], *, ending: Ending | None, next_owner: int | None, agents: Sequence[str]
    ) -> Appended:
        tries = 0
        while True:
            try:
                return await self._journal.append(
                    self._claim,
                    self._ordinal + 1,
                    drafts,
                    attempt=self.attempt,
                    ending=ending,
                    next_owner=next_owner,
                    agents=agents,
                )
            except StoreUnavailable as error:
                if tries % 50 == 0:
                    log.warning("run %s waits for the database: %s", self._claim.run_id, error)
                self._tally.retried()
                await asyncio.sleep(_RETRY_S[min(tries, len(_RETRY_S) - 1)])
                tries += 1

    def _settle(self) -> None:
        while self._waiting and self._waiting[0][0] <= self._written:
            waiter = self._waiting.pop(0)[1]
            if not waiter.done():
                waiter.set_result(None)

    def _publish(self, drafts: Sequence[Draft], appended: Appended, answered: float) -> None:
        first = appended.last_seq - len(drafts) + 1
        items: list[Item] = []
        if not appended.skipped:
            at = timestamp(appended.at)
            for place, draft in enumerate(drafts):
                record = Record(
                    seq=first + place,
                    from_seq=None,
                    type=draft.type,
                    ordinal=self._ordinal + 1 + place,
                    attempt=self.attempt,
                    timestamp=at,
                    body=draft.body,
                    content=draft.content,
                )
                items.append(item_of(self._origin, record))
        batch = Batch(
            epoch=self._claim.epoch,
            after_seq=first - 1,
            last_seq=appended.last_seq,
            items=items,
            committed_at=answered,
            on_sent=self._tally.sent,
        )
        self._broker.publish(ThreadKey(self._claim.principal, self._claim.thread_id), batch)


def publish_first(claim: Claim, broker: Broker) -> None:
    """Tells of the `agent_started` that a claim has written."""
    record = Record(
        seq=claim.seq,
        from_seq=None,
        type=EventType.AGENT_STARTED,
        ordinal=claim.ordinal,
        attempt=claim.attempt,
        timestamp=timestamp(claim.started_at),
        body=None,
        content=claim.text,
    )
    item = item_of(_origin(claim), record)
    batch = Batch(
        epoch=claim.epoch,
        after_seq=claim.seq - 1,
        last_seq=claim.seq,
        items=(item,),
        committed_at=time.monotonic(),
    )
    broker.publish(ThreadKey(claim.principal, claim.thread_id), batch)


def _origin(claim: Claim) -> Origin:
    return Origin(claim.principal.user_id, claim.thread_id, claim.epoch, claim.run_no, claim.run_id, claim.agent)
