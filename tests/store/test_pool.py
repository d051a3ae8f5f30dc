"""The pool says StoreUnavailable where the database is away, and is whole again when it is back."""

import asyncio
import logging

import asyncpg
import pytest

from agentws.core.context import Principal
from agentws.core.run import Claim, Ticket
from agentws.ports import StoreUnavailable, ThreadKey
from agentws.store.pool import Database
from agentws.wire.ids import RunId, ThreadNo, new_number

from ..conftest import TestDatabase
from .conftest import ANN, LIMIT_S, NODE, POOL_SIZE, Connection, Store, T, Wire, piece, until, until_waiting

OURS = "datname = current_database() AND application_name = 'agentws'"
LOCK = 4711
HELD = "SELECT pg_backend_pid() AS pid, pg_advisory_xact_lock_shared($1)"


async def begin_held(pool: Database, owner: Connection, calls: int) -> "list[asyncio.Task[int]]":
    """Calls that stay in the database until `let_go`."""

    async def held() -> int:
        pid: int = (await pool.system(HELD, LOCK))[0]["pid"]
        return pid

    await owner.execute("SELECT pg_advisory_lock($1)", LOCK)
    tasks = [asyncio.get_running_loop().create_task(held()) for _ in range(calls)]
    await until_waiting(owner, calls)
    return tasks


async def let_go(owner: Connection) -> None:
    await owner.execute("SELECT pg_advisory_unlock_all()")


async def assert_whole(pool: Database, owner: Connection) -> set[int]:
    """The pool serves as many calls at once as it has connections; returns their backends."""
    async with asyncio.timeout(LIMIT_S):
        calls = await begin_held(pool, owner, POOL_SIZE)
        await let_go(owner)
        pids = set(await asyncio.gather(*calls))
    assert len(pids) == POOL_SIZE
    return pids


async def backends(owner: Connection) -> set[int]:
    return {row["pid"] for row in await owner.fetch(f"SELECT pid FROM pg_stat_activity WHERE {OURS}")}


async def assert_all_unavailable(store: Store, claim: Claim) -> None:
    calls = [
        store.accept(ANN, "u", new=True),
        store.starts.begin(Ticket(principal=ANN, thread_id=T, run_no=claim.run_no, fence=1, owner=NODE)),
        store.starts.remains(claim),
        store.starts.stop(ANN, run_id=RunId("x"), run_no=None, thread_id=None, reason="user"),
        store.append(claim, 2, piece("x")),
        store.journal.read_head(ANN, T),
        store.journal.read_events(ANN, T, epoch="e", after_seq=0, limit=1, most_bytes=1),
        store.journal.read_ends([(ThreadKey(ANN, T), "e")]),
        store.journal.read_messages(claim, before=None, limit=1),
        store.nodes.register(NODE, "n", ttl_s=1, agents=["demo"]),
        store.nodes.renew(NODE, ttl_s=1),
        store.nodes.remove(NODE),
        store.nodes.take_over(NODE, orphans=[], limit=1),
        store.nodes.claim_waiting(NODE, ["demo"], limit=1),
        store.nodes.schema_is_current(),
        store.nodes.find_unfollowed(limit=1),
        store.nodes.mark_followed([]),
        store.nodes.purge(older_than_s=0, limit=1),
        store.nodes.new_epochs(),
        store.threads.create(ANN, T, ThreadNo(new_number()), title=None, metadata=None),
        store.threads.read(ANN, T),
        store.threads.update(ANN, T, title="T", metadata=None),
        store.threads.list_page(ANN, frame_id=None, limit=1, before=None),
        store.threads.history(ANN, T, frame_id=None, limit=1, before=None),
        store.threads.delete(ANN, T),
        store.tickets.issue(ANN, credentials_expire_at=None, ttl_s=1),
        store.tickets.redeem("x"),
    ]
    async with asyncio.timeout(LIMIT_S):
        answers = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(answer) for answer in answers] == [StoreUnavailable] * len(calls)


async def test_every_call_on_a_database_that_is_away_is_unavailable_and_nothing_else(
    far_store: Store, wire: Wire
) -> None:
    claim = await far_store.claimed()
    await wire.cut()
    await assert_all_unavailable(far_store, claim)


async def test_every_call_before_opening_and_after_closing_is_unavailable(store: Store, database: TestDatabase) -> None:
    claim = await store.claimed()
    pool = Database(database.url, size=1, timeout_s=LIMIT_S)
    await assert_all_unavailable(Store.over(pool), claim)
    await pool.open(wait_s=LIMIT_S)
    assert await Store.over(pool).nodes.schema_is_current()
    await pool.close()
    await assert_all_unavailable(Store.over(pool), claim)


async def test_a_database_that_is_back_is_used_again(far_store: Store, wire: Wire) -> None:
    await wire.cut()
    with pytest.raises(StoreUnavailable):
        await far_store.nodes.schema_is_current()
    await wire.connect()
    assert await far_store.nodes.schema_is_current()


async def test_a_call_whose_backend_is_terminated_is_unavailable_and_the_backend_replaced(
    store: Store, owner: Connection
) -> None:
    before = await assert_whole(store.pool, owner)
    calls = await begin_held(store.pool, owner, POOL_SIZE)
    await owner.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {OURS}")
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(answer) for answer in answers] == [StoreUnavailable] * POOL_SIZE
    await let_go(owner)
    assert not before & await assert_whole(store.pool, owner)


async def test_a_call_that_an_operator_cancels_is_unavailable(store: Store, owner: Connection) -> None:
    calls = await begin_held(store.pool, owner, 1)
    await owner.execute(f"SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE {OURS}")
    assert [type(each) for each in await asyncio.gather(*calls, return_exceptions=True)] == [StoreUnavailable]
    await let_go(owner)
    await assert_whole(store.pool, owner)


async def test_a_database_that_takes_no_more_connections_is_unavailable(
    database: TestDatabase, owner: Connection
) -> None:
    await owner.execute(f"ALTER DATABASE {database.name} CONNECTION LIMIT 0")
    pool = Database(database.url, size=1, timeout_s=LIMIT_S)
    with pytest.raises(StoreUnavailable, match="too many connections"):
        await pool.open(wait_s=0)


async def test_backends_terminated_while_idle_are_replaced(store: Store, owner: Connection) -> None:
    before = await assert_whole(store.pool, owner)
    await owner.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {OURS}")
    await until(owner, f"SELECT NOT EXISTS (SELECT 1 FROM pg_stat_activity WHERE {OURS} AND pid = ANY ($1))", before)
    answers = await asyncio.gather(*(store.nodes.schema_is_current() for _ in range(20)), return_exceptions=True)
    assert all(answer is True or isinstance(answer, StoreUnavailable) for answer in answers)
    assert not before & await assert_whole(store.pool, owner)


async def test_open_waits_for_a_database_that_is_not_there_yet(wire: Wire) -> None:
    await wire.cut()
    told = asyncio.Event()

    class Told(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            told.set()

    handler = Told()
    logging.getLogger("agentws.store").addHandler(handler)
    pool = Database(wire.url, size=1, timeout_s=LIMIT_S)
    opening = asyncio.get_running_loop().create_task(pool.open(wait_s=LIMIT_S))
    try:
        await told.wait()
        await wire.connect()
        await opening
        assert await Store.over(pool).nodes.schema_is_current()
    finally:
        logging.getLogger("agentws.store").removeHandler(handler)
        await pool.close()


async def test_open_gives_up_after_its_time(wire: Wire) -> None:
    await wire.cut()
    pool = Database(wire.url, size=1, timeout_s=LIMIT_S)
    with pytest.raises(StoreUnavailable, match="no database within 0 s"):
        await pool.open(wait_s=0)


async def test_open_gives_up_on_a_database_that_takes_connections_and_says_nothing(wire: Wire) -> None:
    wire.stall()
    pool = Database(wire.url, size=1, timeout_s=LIMIT_S)
    with pytest.raises(StoreUnavailable):
        await pool.open(wait_s=0)


async def test_close_leaves_no_connection(database: TestDatabase, owner: Connection) -> None:
    pool = Database(database.url, size=POOL_SIZE, timeout_s=LIMIT_S)
    await pool.open(wait_s=LIMIT_S)
    assert len(await backends(owner)) == POOL_SIZE
    await pool.close()
    await until(owner, f"SELECT NOT EXISTS (SELECT 1 FROM pg_stat_activity WHERE {OURS})")


async def test_close_drops_a_call_that_does_not_end(database: TestDatabase, owner: Connection) -> None:
    pool = Database(database.url, size=POOL_SIZE, timeout_s=LIMIT_S)
    await pool.open(wait_s=LIMIT_S)
    calls = await begin_held(pool, owner, 1)
    async with asyncio.timeout(LIMIT_S / 2):
        await pool.close()
        answers = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(answer) for answer in answers] == [StoreUnavailable]
    await let_go(owner)
    await until(owner, f"SELECT NOT EXISTS (SELECT 1 FROM pg_stat_activity WHERE {OURS})")


async def test_a_call_leaves_no_transaction_open_and_no_principal_behind(
    database: TestDatabase, owner: Connection
) -> None:
    pool = Database(database.url, size=1, timeout_s=LIMIT_S)
    await pool.open(wait_s=LIMIT_S)
    await Store.over(pool).claimed()
    with pytest.raises(asyncpg.DivisionByZeroError):
        await pool.user(ANN, "SELECT set_config('agentws.user_id', $2, true), 1 / length($1)")
    assert await owner.fetchval(
        f"SELECT array_agg(state || coalesce(xact_start::text, '')) FROM pg_stat_activity WHERE {OURS}"
    ) == ["idle"]
    assert (await pool.system("SELECT current_setting('agentws.user_id', true) AS left"))[0]["left"] == ""
    await pool.close()


async def test_a_connection_is_given_back_without_a_query(database: TestDatabase, owner: Connection) -> None:
    pool = Database(database.url, size=1, timeout_s=LIMIT_S)
    await pool.open(wait_s=LIMIT_S)
    await pool.system("SELECT 'the last thing asked'")
    assert await owner.fetchval(f"SELECT query FROM pg_stat_activity WHERE {OURS}") == "SELECT 'the last thing asked'"
    await pool.close()


async def test_cancelled_calls_leave_the_pool_whole(store: Store, owner: Connection) -> None:
    calls = await begin_held(store.pool, owner, POOL_SIZE)
    for call in calls:
        call.cancel()
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(answer) for answer in answers] == [asyncio.CancelledError] * POOL_SIZE
    await let_go(owner)
    await assert_whole(store.pool, owner)


async def test_a_call_that_waits_for_a_connection_can_be_cancelled(store: Store, owner: Connection) -> None:
    calls = await begin_held(store.pool, owner, POOL_SIZE)
    waiting = asyncio.get_running_loop().create_task(store.nodes.schema_is_current())
    await asyncio.sleep(0)
    waiting.cancel()
    assert [type(each) for each in await asyncio.gather(waiting, return_exceptions=True)] == [asyncio.CancelledError]
    await let_go(owner)
    await asyncio.gather(*calls)
    await assert_whole(store.pool, owner)


async def test_a_call_without_an_answer_in_time_is_unavailable_and_leaves_the_pool_whole(
    database: TestDatabase, owner: Connection
) -> None:
    pool = Database(database.url, size=POOL_SIZE, timeout_s=0.5)
    await pool.open(wait_s=LIMIT_S)
    calls = await begin_held(pool, owner, 1)
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(answer) for answer in answers] == [StoreUnavailable]
    await let_go(owner)
    await assert_whole(pool, owner)
    await pool.close()


async def test_a_call_that_gets_no_connection_in_time_is_unavailable(database: TestDatabase) -> None:
    pool = Database(database.url, size=1, timeout_s=0.5)
    await pool.open(wait_s=LIMIT_S)
    async with pool._free:
        with pytest.raises(StoreUnavailable):
            await pool.system("SELECT 1")
    await pool.close()


async def test_the_principal_is_the_first_that_a_call_of_a_user_says(store: Store) -> None:
    rows = await store.pool.user(Principal("acme", "ann"), "SELECT $1::text AS t, $2::text AS u, $3::text AS x", "more")
    assert tuple(rows[0]) == ("acme", "ann", "more")


async def test_what_the_database_refuses_is_not_called_unavailable(store: Store) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await store.pool.user(ANN, "SELECT $1::text, $2::text FROM agentws.run")


async def test_a_connection_that_carries_nothing_any_more_is_unavailable_in_time(wire: Wire) -> None:
    pool = Database(wire.url, size=1, timeout_s=0.5)
    await pool.open(wait_s=LIMIT_S)
    wire.stall()
    async with asyncio.timeout(LIMIT_S / 2):
        with pytest.raises(StoreUnavailable):
            await pool.system("SELECT 1")
        wire.flow()
        assert (await pool.system("SELECT 1 AS one"))[0]["one"] == 1
    await pool.close()
