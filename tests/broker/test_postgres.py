"""Processes tell each other by notifications: at once, few of them, and whatever becomes of the line, nothing is lost
that a look at the journal would not find."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import asyncpg
import pytest

from agentws.broker.hints import topic_of
from agentws.broker.line import CHANNEL, Pace
from agentws.broker.postgres import PostgresBroker, Reactions
from agentws.core.context import Principal
from agentws.core.replay import Batch
from agentws.ports import StoreUnavailable, ThreadKey
from agentws.store.pool import Database
from agentws.wire.ids import RunNo, ThreadId

from ..conftest import TestDatabase
from .lines import silenced

FAST = Pace(gather_s=0.01, echo_s=0.05, answer_s=0.5, retry_s=0.01, most_retry_s=0.1)
ADA = Principal("acme-tenant", "ada-user")
KEY = ThreadKey(ADA, ThreadId("thr-secret"))


def batch(last_seq: int, *, deleted: bool = False, epoch: str = "e") -> Batch:
    return Batch(epoch=epoch, after_seq=last_seq - 1, last_seq=last_seq, deleted=deleted)


class Process:
    """A broker as a process has one, and what it was told."""

    def __init__(self, url: str, pace: Pace) -> None:
        self._database = Database(url, size=1, timeout_s=5)
        self.broker = PostgresBroker(self._database.listen, pace=pace)
        self.batches: list[Batch] = []
        self.stops: list[RunNo] = []
        self.works = self.listened = self.losses = 0
        self._changed = asyncio.Event()

    def push(self, batch: Batch) -> None:
        self.batches.append(batch)
        self._changed.set()

    def _stop(self, run_no: RunNo) -> bool:
        self.stops.append(run_no)
        self._changed.set()
        return True

    def _count(self, name: str) -> Callable[[], None]:
        def count() -> None:
            setattr(self, name, getattr(self, name) + 1)
            self._changed.set()

        return count

    async def until(self, is_so: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not is_so():
                self._changed.clear()
                # What nothing tells of is looked at again after a moment.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.02):
                        await self._changed.wait()

    async def keep(self) -> None:
        await self.broker.keep(
            Reactions(
                listening=self._count("listened"),
                lost=self._count("losses"),
                stop=self._stop,
                work=self._count("works"),
            )
        )


@contextlib.asynccontextmanager
async def process(url: str, pace: Pace = FAST, *, waits: bool = True) -> AsyncIterator[Process]:
    """A process that hears."""
    made = Process(url, pace)
    keeping = asyncio.create_task(made.keep())
    try:
        if waits:
            await made.until(lambda: made.broker.hears)
        yield made
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)


@contextlib.asynccontextmanager
async def connected(url: str) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


@contextlib.asynccontextmanager
async def overheard(url: str) -> AsyncIterator[list[str]]:
    """All that is notified."""
    letters: list[str] = []
    async with connected(url) as connection:
        await connection.add_listener(CHANNEL, lambda *told: letters.append(str(told[3])))
        yield letters


async def test_followers_of_another_process_are_told_and_own_ones_once(database: TestDatabase) -> None:
    async with process(database.url) as here, process(database.url) as there:
        here.broker.subscribe(KEY, here)
        there.broker.subscribe(KEY, there)
        here.broker.publish(KEY, batch(4))
        assert here.batches == [batch(4)]
        await there.until(lambda: bool(there.batches))
        assert there.batches == [Batch(epoch="e", after_seq=4, last_seq=4)]
        there.broker.publish(KEY, batch(5, deleted=True))
        await here.until(lambda: len(here.batches) == 2)
        assert here.batches[1] == Batch(epoch="e", after_seq=5, last_seq=5, unsure=True)


async def test_nobody_hears_of_another_thread_user_or_tenant_nor_after_it_has_unsubscribed(
    database: TestDatabase,
) -> None:
    others = [
        ThreadKey(ADA, ThreadId("other")),
        ThreadKey(Principal(ADA.tenant_id, "bob"), KEY.thread_id),
        ThreadKey(Principal("", ADA.user_id), KEY.thread_id),
    ]
    async with process(database.url) as here, process(database.url) as there:
        for each in (KEY, *others):
            there.broker.subscribe(each, there)
        for each in others:
            there.broker.unsubscribe(each, there)
            here.broker.publish(each, batch(1))
        here.broker.publish(KEY, batch(2))
        await there.until(lambda: bool(there.batches))
        assert [each.last_seq for each in there.batches] == [2]


async def test_a_topic_is_known_as_long_as_anybody_follows_its_thread(database: TestDatabase) -> None:
    async with process(database.url) as here, process(database.url) as there, process(database.url) as deaf:
        there.broker.subscribe(KEY, there)
        there.broker.subscribe(KEY, deaf)
        there.broker.unsubscribe(KEY, deaf)
        here.broker.publish(KEY, batch(1))
        await there.until(lambda: bool(there.batches))
        there.broker.unsubscribe(KEY, there)
        assert there.broker._followed == {}


async def test_stops_and_work_reach_the_others_and_not_their_sender(database: TestDatabase) -> None:
    async with process(database.url) as here, process(database.url) as there:
        here.broker.stop(RunNo(77))
        here.broker.work()
        await there.until(lambda: bool(there.stops and there.works))
        assert there.stops == [77]
        there.broker.stop(RunNo(78))
        await here.until(lambda: bool(here.stops))
        assert (here.stops, here.works) == ([78], 0)


async def test_what_travels_names_neither_tenant_nor_user_nor_thread(database: TestDatabase) -> None:
    async with overheard(database.url) as letters, process(database.url) as here, process(database.url) as there:
        there.broker.subscribe(KEY, there)
        here.broker.publish(KEY, batch(1, deleted=True))
        here.broker.stop(RunNo(1))
        await there.until(lambda: any(topic_of(KEY) in letter for letter in letters))
        text = "\n".join(letters)
        for secret in ("ada", "acme", "thr-secret"):
            assert secret not in text


async def test_a_burst_is_few_notifications_and_its_last_number_arrives(database: TestDatabase) -> None:
    pace = Pace(gather_s=0.01, echo_s=60)
    async with (
        overheard(database.url) as letters,
        process(database.url, pace) as here,
        process(database.url) as there,
    ):
        there.broker.subscribe(KEY, there)
        loop = asyncio.get_running_loop()
        letters.clear()
        began = loop.time()
        for number in range(1, 10_001):
            here.broker.publish(KEY, batch(number))
            if number % 10 == 0:
                await asyncio.sleep(0)
        await there.until(lambda: bool(there.batches) and there.batches[-1].last_seq == 10_000)
        sent = sum(topic_of(KEY) in letter for letter in letters)
        # The first, and then at most one in each interval.
        assert 1 <= sent <= 2 + (loop.time() - began) / 0.01
        assert sent < 1000


async def test_hints_that_are_doubled_late_foreign_or_no_hints_are_ignored(
    database: TestDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    topic = topic_of(KEY)
    letters = [
        "",
        "no hint",
        "2 other\n" + f"{topic} e 5",
        f"1 other\n{topic} e five",
        f"1 other\n{topic}",
        "1 other\ns many",
        f"1 other\n{'x' * 22} e 5",
        "1 other " + "9" * 30,
        "1 other 1",
        f"1 other\n{topic} e 3\nnonsense\n{topic} e 3",
    ]
    async with process(database.url) as there, connected(database.url) as anybody:
        there.broker.subscribe(KEY, there)
        for letter in letters:
            await anybody.execute(f"NOTIFY {CHANNEL}, '{letter}'")
        await there.until(lambda: len(there.batches) == 2)
        assert [each.last_seq for each in there.batches] == [3, 3]
        assert (there.listened, there.losses) == (1, 0)
    assert not [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]


async def test_a_process_has_one_listening_connection(database: TestDatabase) -> None:
    async with process(database.url), process(database.url), connected(database.owner_url) as owner:
        listening = "SELECT count(*) FROM pg_stat_activity WHERE datname = $1 AND application_name = 'agentws listen'"
        assert await owner.fetchval(listening, database.name) == 2
        waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = $1 AND state LIKE 'idle in transaction%'"
        assert await owner.fetchval(waits, database.name) == 0


async def test_a_connection_that_is_ended_is_made_anew_and_what_was_not_sent_is_sent(database: TestDatabase) -> None:
    async with process(database.url) as here, process(database.url) as there, connected(database.owner_url) as owner:
        there.broker.subscribe(KEY, there)
        await owner.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            f" WHERE datname = '{database.name}' AND application_name = 'agentws listen'"
        )
        await here.until(lambda: (here.losses, here.listened) == (1, 2))
        await there.until(lambda: (there.losses, there.listened) == (1, 2))
        here.broker.publish(KEY, batch(9))
        await there.until(lambda: bool(there.batches))


async def test_a_line_that_dies_silently_is_noticed_by_what_does_not_come_back(database: TestDatabase) -> None:
    async with silenced(database.url) as proxy, process(proxy.url) as here, process(database.url) as there:
        there.broker.subscribe(KEY, there)
        here.broker.subscribe(KEY, here)
        proxy.passes.clear()
        # On its way when the line dies, and after that.
        here.broker.publish(KEY, batch(9, epoch="lost"))
        await here.until(lambda: here.losses == 1)
        assert not here.broker.hears
        here.broker.publish(KEY, batch(3))
        proxy.passes.set()
        await here.until(lambda: here.broker.hears)
        # Sent on the new line what was published meanwhile, and heard again.
        await there.until(lambda: len(there.batches) == 2)
        assert {(each.epoch, each.last_seq) for each in there.batches} == {("lost", 9), ("e", 3)}
        there.broker.publish(KEY, batch(4))
        await here.until(lambda: len(here.batches) == 3)
        assert proxy.connections >= 2


async def test_a_line_on_which_all_is_answered_and_nothing_comes_any_more_is_made_anew(database: TestDatabase) -> None:
    async with silenced(database.url) as proxy, process(proxy.url) as here:
        proxy.drops = b"A"
        await here.until(lambda: here.losses == 1 and here.listened >= 2)
        assert not here.broker.hears
        proxy.drops = b""
        await here.until(lambda: here.broker.hears)


async def test_a_pooler_that_swallows_notifications_is_named_once(
    database: TestDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    async with silenced(database.url) as proxy:
        proxy.drops = b"A"
        async with process(proxy.url, waits=False) as here:
            await here.until(lambda: here.listened >= 3)
            assert (here.broker.hears, here.losses) == (False, 0)
            proxy.drops = b""
            await here.until(lambda: here.broker.hears)
    errors = [record for record in caplog.records if record.levelname == "ERROR"]
    assert len(errors) == 1
    assert "pooler" in errors[0].getMessage()


async def test_a_database_that_is_not_there_is_waited_for_in_bounds() -> None:
    async with process("postgresql://nobody@127.0.0.1:1/none", waits=False) as here:
        for number in range(20_000):
            here.broker.publish(ThreadKey(ADA, ThreadId(str(number))), batch(1))
        await asyncio.sleep(0)
        assert len(here.broker._outbox) <= 10_000
        assert (here.listened, here.losses) == (0, 0)


async def test_the_door_for_listening_says_when_the_database_is_away() -> None:
    with pytest.raises(StoreUnavailable):
        await Database("postgresql://nobody@127.0.0.1:1/none", size=1, timeout_s=1).listen()


async def test_what_was_told_last_is_sent_before_a_process_goes(database: TestDatabase) -> None:
    slow = Pace(gather_s=30, echo_s=60)
    async with process(database.url) as there:
        there.broker.subscribe(KEY, there)
        async with process(database.url, slow) as here:
            # Gathered for long, so that only the end can send it.
            here.broker.publish(KEY, batch(6))
        await there.until(lambda: bool(there.batches))
