"""Tells followers in this process at once, and other processes by the database's notifications.

What is told to others is queued, and sent by a task of its own: who publishes waits for nothing. What comes from others
is a hint, whoever sent it and whatever it says: it makes a follower read the journal, and nothing else.
"""

import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass

from agentws.broker.hints import Hint, Letter, Outbox, read_letter, topic_of
from agentws.broker.line import Line, Open, Pace
from agentws.broker.local import LocalBroker
from agentws.core.replay import Batch
from agentws.observe.hints import HintMeter
from agentws.observe.meters import FeedMeter
from agentws.ports import Listener, ThreadKey
from agentws.wire.ids import RunNo

__all__ = ["PostgresBroker", "Reactions"]

log = logging.getLogger("agentws.broker")


@dataclass(frozen=True, kw_only=True, slots=True)
class Reactions:
    """What is called; all return at once.

    Args:
        listening: hints are listened for, anew too; what was missed before can be read now.
        lost: hints were heard and no longer are.
        stop: another process has stopped or ended a run; says whether it is at work here.
        work: another process has accepted a run which any may take.
    """

    listening: Callable[[], None]
    lost: Callable[[], None]
    stop: Callable[[RunNo], bool]
    work: Callable[[], None]


class PostgresBroker:
    """
    Args:
        open_connection: gives a connection of this broker's own.
        feed_meter: told of what is published here.
        meter: told of what goes between processes.
    """

    def __init__(
        self,
        open_connection: Open,
        *,
        feed_meter: FeedMeter | None = None,
        meter: HintMeter | None = None,
        pace: Pace | None = None,
    ) -> None:
        self._reactions: Reactions | None = None
        self._meter = meter or HintMeter()
        self._local = LocalBroker(feed_meter)
        self._followed: dict[str, ThreadKey] = {}
        self._sender = secrets.token_urlsafe(9)
        self._outbox = Outbox()
        self._line = Line(
            open_connection,
            sender=self._sender,
            outbox=self._outbox,
            on_letter=self._take,
            pace=pace or Pace(),
            meter=self._meter,
        )

    @property
    def hears(self) -> bool:
        """Whether hints of other processes reach this one now, so that there is no need to look for what they wrote."""
        return self._line.hears

    async def keep(self, reactions: Reactions) -> None:
        """Listens and sends until cancelled; while the database is away, what is to be sent waits, in bounds."""
        self._reactions = reactions
        await self._line.keep(on_listening=reactions.listening, on_lost=reactions.lost)

    def subscribe(self, key: ThreadKey, listener: Listener) -> None:
        self._local.subscribe(key, listener)
        self._followed[topic_of(key)] = key

    def unsubscribe(self, key: ThreadKey, listener: Listener) -> None:
        self._local.unsubscribe(key, listener)
        if not self._local.follows(key):
            self._followed.pop(topic_of(key), None)

    def publish(self, key: ThreadKey, batch: Batch) -> None:
        self._local.publish(key, batch)
        self._outbox.add(Hint(topic_of(key), batch.epoch, batch.last_seq, batch.deleted))
        self._line.wake()

    def stop(self, run_no: RunNo) -> None:
        self._outbox.add_stop(run_no)
        self._line.wake()

    def work(self) -> None:
        self._outbox.add_work()
        self._line.wake()

    def _take(self, text: str) -> None:
        try:
            letter = read_letter(text)
            if letter is None:
                self._meter.received(0, ignored=1)
                log.debug("a notification cannot be read: %.100r", text)
            elif letter.sender != self._sender and self._reactions is not None:
                self._heed(letter, self._reactions)
            elif letter.echo is not None:
                self._line.heard_echo(letter.echo)
        except Exception:
            log.exception("a hint of another process could not be followed")

    def _heed(self, letter: Letter, reactions: "Reactions") -> None:
        heeded = int(letter.work)
        if letter.work:
            reactions.work()
        for run_no in letter.stops:
            heeded += reactions.stop(run_no)
        for hint in letter.hints:
            if key := self._followed.get(hint.topic):
                heeded += 1
                self._local.tell(
                    key,
                    Batch(epoch=hint.epoch, after_seq=hint.last_seq, last_seq=hint.last_seq, unsure=hint.deleted),
                )
        came = len(letter.hints) + len(letter.stops) + letter.work + letter.unreadable
        self._meter.received(heeded, ignored=came - heeded)
        if letter.unreadable:
            log.debug("%d hints of process %s cannot be read", letter.unreadable, letter.sender)
