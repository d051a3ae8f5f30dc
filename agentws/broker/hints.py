"""What processes tell each other: the text of a notification, and what waits to be told. Pure: no connection, no clock.

A hint names no user, no thread and no text: a thread is known by a hash of its key to whoever knows the key already.
"""

import hashlib
import re
from base64 import urlsafe_b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from agentws.ports import ThreadKey
from agentws.wire.ids import RunNo

__all__ = ["MOST_BYTES", "Hint", "Letter", "Outbox", "read_letter", "topic_of", "write_letters"]

MOST_BYTES = 7_900
"""Of a letter; PostgreSQL takes less than 8000."""
_VERSION = "1"
_HEADER = re.compile(r"1 ([\w-]{1,32})(?: (\d{1,19}))?", re.ASCII)
_THREAD = re.compile(r"([\w-]{22}) ([\w.:-]{1,64}) (\d{1,18})( d)?", re.ASCII)
_STOP = re.compile(r"s (-?\d{1,19})", re.ASCII)
_EPOCH = re.compile(r"[\w.:-]{1,64}", re.ASCII)
_WORK = "w"


@dataclass(frozen=True, slots=True)
class Hint:
    """In a thread's epoch there are events up to `last_seq`; `deleted`: and none after it, for ever."""

    topic: str
    epoch: str
    last_seq: int
    deleted: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Letter:
    """A notification: who sent it, its echo's number where it has one, and what can be read of its entries.

    `unreadable`: how many of them cannot; another version may have written them.
    """

    sender: str
    echo: int | None
    hints: Sequence[Hint] = ()
    stops: Sequence[RunNo] = ()
    work: bool = False
    unreadable: int = 0


def topic_of(key: ThreadKey) -> str:
    """A thread's name among processes: 22 characters from which nobody can tell whose it is."""
    # None of the three holds a NUL, so that no two keys are one text.
    name = f"{key.principal.tenant_id}\0{key.principal.user_id}\0{key.thread_id}".encode()
    return urlsafe_b64encode(hashlib.blake2b(name, digest_size=16, person=b"agentws topic").digest())[:22].decode()


@dataclass(kw_only=True)
class Outbox:
    """What waits to be told, one entry a thread and epoch, a run, or of work. Of each kind at most `most` are kept, the
    newest: what is dropped is found by those who look.
    """

    most: int = 10_000
    echo: int | None = None
    _threads: dict[tuple[str, str], tuple[int, bool]] = field(default_factory=dict)
    _stops: dict[RunNo, None] = field(default_factory=dict)
    _work: bool = False

    def __bool__(self) -> bool:
        return bool(self._threads or self._stops or self._work or self.echo is not None)

    def __len__(self) -> int:
        """How many hints there are."""
        return len(self._threads) + len(self._stops) + self._work

    def add(self, hint: Hint) -> None:
        """Adds a hint; with what is there of the thread it becomes one."""
        if not _EPOCH.fullmatch(hint.epoch):
            return
        place = hint.topic, hint.epoch
        last_seq, deleted = self._threads.get(place, (0, False))
        self._threads[place] = max(last_seq, hint.last_seq), deleted or hint.deleted
        if len(self._threads) > self.most:
            del self._threads[next(iter(self._threads))]

    def add_stop(self, run_no: RunNo) -> None:
        self._stops[run_no] = None
        if len(self._stops) > self.most:
            del self._stops[next(iter(self._stops))]

    def add_work(self) -> None:
        self._work = True

    def put_back(self, taken: "Outbox") -> None:
        """Puts back what was taken out and not told, as the oldest; an echo is not: it would be late."""
        newer = self.take()
        self._threads, self._stops = taken._threads, taken._stops
        self._work, self.echo = taken._work or newer._work, newer.echo
        for (topic, epoch), (last_seq, deleted) in newer._threads.items():
            self.add(Hint(topic, epoch, last_seq, deleted))
        for run_no in newer._stops:
            self.add_stop(run_no)

    def take(self) -> "Outbox":
        """All that is there, of which nothing is kept here."""
        taken = Outbox(most=self.most, echo=self.echo, _threads=self._threads, _stops=self._stops, _work=self._work)
        self._threads, self._stops, self._work, self.echo = {}, {}, False, None
        return taken

    def lines(self) -> Iterator[str]:
        """Its entries as they travel; what is urgent first."""
        for run_no in self._stops:
            yield f"s {run_no}"
        if self._work:
            yield _WORK
        for (topic, epoch), (last_seq, deleted) in self._threads.items():
            yield f"{topic} {epoch} {last_seq} d" if deleted else f"{topic} {epoch} {last_seq}"


def write_letters(sender: str, outbox: Outbox) -> list[str]:
    """What an outbox holds, as few texts of at most MOST_BYTES; none of them holds a quote or a backslash."""
    echo = "" if outbox.echo is None else f" {outbox.echo}"
    letters: list[list[str]] = [[f"{_VERSION} {sender}{echo}"]]
    size = len(letters[0][0])
    for line in outbox.lines():
        if size + 1 + len(line) > MOST_BYTES:
            letters.append([f"{_VERSION} {sender}"])
            size = len(letters[-1][0])
        letters[-1].append(line)
        size += 1 + len(line)
    return ["\n".join(lines) for lines in letters]


def read_letter(text: str) -> Letter | None:
    """Reads a notification; None where it is none of this version's."""
    header, *lines = text.split("\n")
    if not (found := _HEADER.fullmatch(header)):
        return None
    hints: list[Hint] = []
    stops: list[RunNo] = []
    work, unreadable = False, 0
    for line in lines:
        if of_thread := _THREAD.fullmatch(line):
            topic, epoch, last_seq, deleted = of_thread.groups()
            hints.append(Hint(topic, epoch, int(last_seq), deleted is not None))
        elif of_stop := _STOP.fullmatch(line):
            stops.append(RunNo(int(of_stop[1])))
        elif line == _WORK:
            work = True
        else:
            unreadable += 1
    echo = None if found[2] is None else int(found[2])
    return Letter(sender=found[1], echo=echo, hints=hints, stops=stops, work=work, unreadable=unreadable)
