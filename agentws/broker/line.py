"""One connection that listens for notifications and sends them, made anew whenever it is lost, also where it dies
silently: what it sends it has to hear itself.

It sends outside of any transaction that writes, what has gathered meanwhile at once, and one statement at a time.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import asyncpg

from agentws.broker.hints import Outbox, write_letters
from agentws.observe.hints import HintMeter

__all__ = ["Line", "Open", "Pace"]

log = logging.getLogger("agentws.broker")

CHANNEL = "agentws"
_LAST_S = 1.0
_MISSES = 2

# asyncpg's classes are generic in their stubs only.
Open = Callable[[], Awaitable["asyncpg.Connection[asyncpg.Record]"]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Pace:
    """All in seconds.

    Args:
        gather_s: between two sendings; the first after a pause goes at once.
        echo_s: between two echoes; a line on which nothing is heard for two of them is dead.
        answer_s: how long the database may take to answer a statement.
        retry_s, most_retry_s: before a lost connection is made anew; from the one on it grows to the other.
    """

    gather_s: float = 0.01
    echo_s: float = 2.0
    answer_s: float = 5.0
    retry_s: float = 0.1
    most_retry_s: float = 5.0


class _Lost(Exception):
    """The connection is no good any more."""


class _Deaf(_Lost):
    """What is sent is answered and does not come back."""


class Line:
    """
    Args:
        open_connection: gives a connection; whatever it raises is taken for a database that is away.
        sender: the name of this process in what it sends.
        outbox: what is to be sent.
        on_letter: told the text of each notification; raises nothing.
    """

    def __init__(
        self,
        open_connection: Open,
        *,
        sender: str,
        outbox: Outbox,
        on_letter: Callable[[str], None],
        pace: Pace,
        meter: HintMeter,
    ) -> None:
        self._open = open_connection
        self._sender = sender
        self._outbox = outbox
        self._on_letter = on_letter
        self._pace = pace
        self._meter = meter
        self._filled = asyncio.Event()
        self._answers = 0
        self._echo = 0
        self._echo_sent = 0.0
        self._has_heard = False
        self._was_deaf = False
        self.hears = False
        """Whether notifications reach this process now."""

    def wake(self) -> None:
        """There is something in the outbox."""
        self._filled.set()

    def heard_echo(self, echo: int) -> None:
        """A letter of this process came back."""
        if echo == self._echo:
            self._meter.echoed(asyncio.get_running_loop().time() - self._echo_sent)

    async def keep(self, *, on_listening: Callable[[], None], on_lost: Callable[[], None]) -> None:
        """Listens and sends until cancelled, whatever becomes of the database.

        Args:
            on_listening: called when it listens, anew too: what was missed before can be read now.
            on_lost: called when it heard and no longer does.
        """
        wait_s, told = self._pace.retry_s, False
        while True:
            try:
                await self._serve(on_listening)
            except Exception as error:
                heard = self.hears
                if heard:
                    wait_s, told = self._pace.retry_s, False
                self._lose(error, told=told)
                told = True
                if heard:
                    on_lost()
            # Not all processes at the same time.
            await asyncio.sleep(wait_s * random.uniform(0.5, 1.0))
            wait_s = min(wait_s * 2, self._pace.most_retry_s)

    def _lose(self, error: Exception, *, told: bool) -> None:
        why = f"{type(error).__name__}: {error}"
        if isinstance(error, _Deaf) and not self._was_deaf:
            self._was_deaf = True
            log.error(
                "notifications of the database do not reach this process, as behind a pooler in transaction mode;"
                " what other processes write is asked for instead"
            )
        elif not told:
            log.warning("hints of other processes cannot be heard: %s", why)
        else:
            log.debug("hints of other processes cannot be heard: %s", why)
        self._set_hears(False)

    async def _serve(self, on_listening: Callable[[], None]) -> None:
        """Serves one connection until it is lost."""
        async with asyncio.timeout(self._pace.answer_s):
            connection = await self._open()
        try:
            lost = asyncio.Event()
            connection.add_termination_listener(lambda _: lost.set())
            async with asyncio.timeout(self._pace.answer_s):
                await connection.add_listener(CHANNEL, self._hear)
            self._meter.connected()
            self._answers, self._has_heard = 0, False
            # Listening first, reading then: what is committed from now on is heard of, and the rest is there.
            on_listening()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._send_all(connection))
                tasks.create_task(self._watch())
                await lost.wait()
                raise _Lost("the connection was closed")
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        except asyncio.CancelledError:
            # This process goes away; others wait for what it wrote last.
            with suppress(Exception):
                async with asyncio.timeout(_LAST_S):
                    await self._send(connection)
            raise
        finally:
            connection.terminate()

    async def _send_all(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._filled.wait()
            self._filled.clear()
            due = loop.time() + self._pace.gather_s
            await self._send(connection)
            await asyncio.sleep(max(0.0, due - loop.time()))

    async def _send(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        """Sends what is in the outbox; what was not answered is put back."""
        if not self._outbox:
            return
        taken = self._outbox.take()
        letters = write_letters(self._sender, taken)
        # Nobody needs a hint to survive a crash, and all that notify wait for one another until they have committed.
        statements = ["SET LOCAL synchronous_commit = off", *(f"NOTIFY {CHANNEL}, '{letter}'" for letter in letters)]
        if taken.echo is not None:
            self._echo_sent = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(self._pace.answer_s):
                await connection.execute("; ".join(statements))
        except BaseException:
            self._outbox.put_back(taken)
            raise
        self._answers += 1
        self._meter.sent(len(taken), notifications=len(letters))

    async def _watch(self) -> None:
        """Sends echoes, until nothing is heard any more."""
        misses = 0
        while misses < _MISSES:
            # Counted in turns of this task, not in time: a process that was stopped for long has heard nothing either.
            self._has_heard = False
            self._echo += 1
            self._outbox.echo = self._echo
            self.wake()
            await asyncio.sleep(self._pace.echo_s)
            misses = 0 if self._has_heard else misses + 1
        if self._answers:
            raise _Deaf("what is sent does not come back")
        raise _Lost("the database does not answer")

    def _hear(self, _connection: Any, _pid: int, _channel: str, payload: object) -> None:
        self._has_heard = True
        self._set_hears(True)
        self._on_letter(str(payload))

    def _set_hears(self, is_so: bool) -> None:
        if is_so and not self.hears:
            log.info("hints of other processes are heard")
        self.hears = is_so
        self._meter.hears(is_so)
