"""What tests of the store are given: the store over a pool, the owner's connection, and a wire that can be cut."""

import asyncio
import hashlib
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, quote, urlsplit

import asyncpg
import pytest

from agentws.core.context import Principal
from agentws.core.framing import Origin, Record
from agentws.core.run import Accepted, Appended, Claim, Draft, Ending, Wanted
from agentws.store.journal import PgJournal
from agentws.store.nodes import PgNodes
from agentws.store.pool import Database
from agentws.store.retention import PgRetention
from agentws.store.runs import PgStarts
from agentws.store.threads import PgThreads
from agentws.store.tickets import PgTickets
from agentws.wire.errors import Fault
from agentws.wire.events import EventType
from agentws.wire.ids import RunId, RunNo, ThreadId, ThreadNo, new_number, run_id_of

from ..conftest import LOGIN, TestDatabase

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]
else:  # asyncpg's classes are generic in their stubs only
    Connection = asyncpg.Connection

LIMIT_S = 30.0
POOL_SIZE = 4
ANN, BOB = Principal("", "ann"), Principal("", "bob")
NODE, OTHER_NODE = 11, 22
T = ThreadId("t")


@dataclass(frozen=True)
class Store:
    """All of the store over one pool."""

    pool: Database
    starts: PgStarts
    journal: PgJournal
    nodes: PgNodes
    threads: PgThreads
    tickets: PgTickets
    retention: PgRetention

    @classmethod
    def over(cls, pool: Database) -> "Store":
        return cls(
            pool, PgStarts(pool), PgJournal(pool), PgNodes(pool), PgThreads(pool), PgTickets(pool), PgRetention(pool)
        )

    async def records(
        self, principal: Principal, thread_id: ThreadId, *, epoch: str, after_seq: int, limit: int
    ) -> Sequence[tuple[Origin, Record]]:
        page = await self.journal.read_events(
            principal, thread_id, epoch=epoch, after_seq=after_seq, limit=limit, most_bytes=1 << 20
        )
        assert page.more == (len(page.events) == limit)
        return page.events

    async def accept(self, whose: Principal = ANN, thread: str = T, **how: Any) -> Accepted:
        return await self.starts.accept(whose, wanted(thread, **how))

    async def claimed(self, whose: Principal = ANN, thread: str = T, **how: Any) -> Claim:
        """A run at work on NODE, in a new thread unless told otherwise."""
        accepted = await self.accept(whose, thread, **{"new": True, "owner": NODE, **how})
        assert accepted.claim is not None
        return accepted.claim

    async def append(self, claim: Claim, first: int, *drafts: Draft, attempt: int = 1) -> Appended:
        return await self.journal.append(claim, first, drafts, attempt=attempt, ending=None, next_owner=None, agents=())

    async def finish(
        self, claim: Claim, *, first: int = 2, response: str | None = "answer", owner: int | None = None,
        agents: Sequence[str] = ("demo",), stopped: bool = False,
    ) -> Appended:  # fmt: skip
        return await self.journal.append(
            claim,
            first,
            [Draft(EventType.AGENT_STOPPED if stopped else EventType.AGENT_COMPLETED, '{"duration_ms":1}', response)],
            attempt=claim.attempt,
            ending=Ending(status="stopped" if stopped else "completed", response=response),
            next_owner=owner,
            agents=agents,
        )

    async def events(self, whose: Principal = ANN, thread: str = T, *, after: int = 0) -> list[tuple[int, str, str]]:
        """Number, type and run of a thread's events."""
        head = await self.journal.read_head(whose, ThreadId(thread))
        assert head is not None
        rows = await self.records(whose, ThreadId(thread), epoch=head.epoch, after_seq=after, limit=1000)
        return [(record.seq, str(record.type), origin.run_id) for origin, record in rows]


def wanted(
    thread: str, *, new: bool = False, owner: int | None = None, run_id: str | None = None, text: str = "hello",
    agent: str = "demo", key: str | None = None, content: str = "", context: str | None = None,
    kind: str = "user_message", if_busy: str = "queue", stops_unfollowed: bool = False, refusal: str | None = None,
) -> Wanted:  # fmt: skip
    """A start; `new` makes its thread, `content` stands for all that a repeat is compared by."""
    run_no = RunNo(new_number())
    return Wanted(
        thread_id=ThreadId(thread),
        thread_no=ThreadNo(new_number()) if new else None,
        run_no=run_no,
        run_id=RunId(run_id) if run_id else run_id_of(run_no),
        named=run_id is not None,
        kind=kind,
        agent=agent,
        text=text,
        context=context,
        owner=owner,
        key=key,
        content_hash=hashlib.sha256(content.encode()).digest() if key else None,
        if_busy=if_busy,
        stops_unfollowed=stops_unfollowed,
        refusal=refusal,
    )


def piece(text: str) -> Draft:
    return Draft(EventType.AGENT_MESSAGE, f'{{"text":"{text}","offset":0}}')


def number() -> ThreadNo:
    return ThreadNo(new_number())


async def refusal_of(call: Awaitable[object]) -> str:
    """The code that a call is refused with."""
    with pytest.raises(Fault) as refused:
        await call
    return refused.value.code


async def contents(owner: Connection) -> dict[str, list[str]]:
    """All rows of all tables that hold what users have."""
    tables = (
        "thread_head", "thread", "run", "run_queue", "start_key", "message", "event", "deleted_thread", "fold_queue",
    )  # fmt: skip
    return {
        table: [str(row) for row in await owner.fetch(f"SELECT * FROM agentws.{table} x ORDER BY x::text")]
        for table in tables
    }


async def until(connection: Connection, question: str, *args: Any) -> None:
    """Asks the database until it says yes."""
    async with asyncio.timeout(LIMIT_S):
        while not await connection.fetchval(question, *args):
            pass


async def until_waiting(connection: Connection, count: int) -> None:
    """Until so many backends of this database wait for a lock."""
    waiting = (
        "SELECT count(*) = $1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    )
    await until(connection, waiting, count)


class Wire:
    """A way to a PostgreSQL's socket that can lose answers, carry nothing, or not be there; `url` goes over it."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._upstream = f"{parse_qs(parts.query)['host'][0]}/.s.PGSQL.5432"
        self._directory = Path(tempfile.mkdtemp(prefix="wire-", dir="/tmp"))
        self.url = f"postgresql://{LOGIN}@{parts.path}?host={quote(str(self._directory), safe='')}&port=5432"
        self.lose_answers = 0
        self.lost = 0
        self.on_loss: Callable[[], Awaitable[object]] | None = None
        self._carries = asyncio.Event()
        self._carries.set()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def connect(self) -> None:
        self._server = await asyncio.start_unix_server(self._accept, self._directory / ".s.PGSQL.5432")

    async def cut(self) -> None:
        """Ends all connections and takes no more."""
        if self._server is not None:
            self._server.close()
            self._server = None
            (self._directory / ".s.PGSQL.5432").unlink(missing_ok=True)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def stall(self) -> None:
        """Connections stay and new ones are taken, but nothing is carried."""
        self._carries.clear()

    def flow(self) -> None:
        self._carries.set()

    async def remove(self) -> None:
        await self.cut()
        shutil.rmtree(self._directory)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._carry(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _carry(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        server, to_server = await asyncio.open_unix_connection(self._upstream)
        up = asyncio.get_running_loop().create_task(self._up(client, to_server))
        try:
            await self._down(server, to_client)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            up.cancel()
            to_client.close()
            to_server.close()
            await asyncio.gather(up, return_exceptions=True)

    async def _up(self, client: asyncio.StreamReader, to_server: asyncio.StreamWriter) -> None:
        while data := await client.read(65536):
            await self._carries.wait()
            to_server.write(data)
        to_server.close()

    async def _down(self, server: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        """Message by message; an answer is lost when all of it is here, so that its transaction has committed."""
        losing = False
        while True:
            head = await server.readexactly(5)
            body = await server.readexactly(int.from_bytes(head[1:]) - 4)
            await self._carries.wait()
            losing = losing or (head[:1] == b"C" and self.lose_answers > 0)
            if not losing:
                to_client.write(head + body)
            elif head[:1] == b"Z":
                self.lose_answers -= 1
                self.lost += 1
                if self.on_loss is not None:
                    await self.on_loss()
                return


@pytest.fixture
async def owner(database: TestDatabase) -> AsyncIterator[Connection]:
    """A superuser's connection, which sees every row."""
    connection: Connection = await asyncpg.connect(database.owner_url)
    yield connection
    await connection.close()


@pytest.fixture
async def store(database: TestDatabase) -> AsyncIterator[Store]:
    pool = Database(database.url, size=POOL_SIZE, timeout_s=LIMIT_S)
    await pool.open(wait_s=LIMIT_S)
    yield Store.over(pool)
    await pool.close()


@pytest.fixture
async def wire(database: TestDatabase) -> AsyncIterator[Wire]:
    made = Wire(database.url)
    await made.connect()
    yield made
    await made.remove()


@pytest.fixture
async def far_store(wire: Wire) -> AsyncIterator[Store]:
    """The store over a wire; one connection, so that what it sends next goes where it was told."""
    pool = Database(wire.url, size=1, timeout_s=LIMIT_S)
    await pool.open(wait_s=LIMIT_S)
    yield Store.over(pool)
    await pool.close()
