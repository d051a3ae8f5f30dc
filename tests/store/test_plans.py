"""What runs all the time finds its rows by a key, on filled tables, also with plans that were made on empty ones."""

import json
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any

import asyncpg
import pytest

from agentws.wire.ids import new_number

from ..conftest import TestDatabase
from .conftest import Connection

RUNS, RUNS_OF_A_THREAD, EVENTS_OF_A_RUN = 20_000, 20, 5
TABLES = {
    "thread_head", "thread", "run", "run_queue", "start_key", "message", "event", "deleted_thread", "ticket",
    "fold_queue",
}  # fmt: skip
KEYS = {f"{table}_pkey" for table in TABLES}
KEYS |= {"run_by_name", "run_queue_stops_unfollowed", "fold_queue_by_age", "start_key_by_age"}
# Statements that are meant to read a table from end to end, which is bounded otherwise. How many runs wait is counted
# only for a start that has to wait, up to the limit.
WHOLE = {
    "SELECT 1 FROM run_queue WHERE owner IS NULL LIMIT p_limit": "run_queue",
    # A user's threads, which a limit bounds, are sorted by their times: an index would cost each change of a head.
    "ORDER BY t.updated_at DESC, t.thread_no DESC LIMIT p_limit": "thread_head",
    # Now and then, of what is there for a minute or an hour.
    "FROM deleted_thread d\n        WHERE d.deleted_at <": "deleted_thread",
    "DELETE FROM ticket WHERE expires_at <": "ticket",
}
# A user's rows lie together: a scan that has only the user's part of a key reads all of them.
TOO_MANY = 100

# All runs are of one user, so that a key's first two columns say nothing; each thread's last run is at work.
FILL = f"""
SET search_path = agentws;
SET synchronous_commit = off;
CREATE TEMPORARY TABLE r AS SELECT n AS run_no, n / {RUNS_OF_A_THREAD} AS thread_no, n % {RUNS_OF_A_THREAD} AS place
    FROM generate_series(0, {RUNS} - 1) n;
INSERT INTO thread_head (user_id, thread_id, thread_no, epoch, last_seq, last_turn, running_run_no)
    SELECT 'ann', 't' || thread_no, thread_no, 'e', {RUNS_OF_A_THREAD * EVENTS_OF_A_RUN}, {RUNS_OF_A_THREAD} * 65536,
        max(run_no)
    FROM r GROUP BY thread_no;
INSERT INTO thread_head (user_id, thread_id, thread_no, epoch)
    SELECT 'ann', 'quiet' || n, {RUNS} + n, 'e' FROM generate_series(1, {RUNS}) n;
INSERT INTO thread (user_id, thread_id, thread_no) SELECT 'ann', thread_id, thread_no FROM thread_head;
INSERT INTO run (user_id, run_no, run_id, thread_no, turn, kind, agent, status, fence, first_seq, started_seq,
        started_at)
    SELECT 'ann', run_no, 'r' || run_no, thread_no, (place + 1) * 65536, 'chat', 'demo',
        CASE WHEN place = {RUNS_OF_A_THREAD} - 1 THEN 'running' ELSE 'completed' END, 1,
        place * {EVENTS_OF_A_RUN} + 1, place * {EVENTS_OF_A_RUN} + 1, now() FROM r;
INSERT INTO run_queue (user_id, run_no, thread_id, thread_no, turn, agent, owner, fence, begun_fence, ordinal)
    SELECT CASE WHEN thread_no < 5 THEN 'ann' ELSE 'u' || thread_no END, run_no, 't' || thread_no, thread_no,
        (place + 1) * 65536, 'demo', 1, 1, 1, {EVENTS_OF_A_RUN} FROM r WHERE place = {RUNS_OF_A_THREAD} - 1;
INSERT INTO run_queue (user_id, run_no, thread_id, thread_no, turn, agent)
    SELECT 'w' || n, {2 * RUNS} + n, 't', {RUNS} + n, 65536, 'demo' FROM generate_series(1, 10000) n;
UPDATE run_queue SET stops_unfollowed = true, followed_at = now() WHERE owner = 1 AND thread_no % 20 = 7;
INSERT INTO run (user_id, run_no, run_id, thread_no, turn, kind, agent, status, first_seq)
    SELECT 'ann', {RUNS} + n, 'waits' || n, 4, {RUNS_OF_A_THREAD} * 65536 + n, 'chat', 'demo', 'queued', 100
    FROM generate_series(1, 3) n;
INSERT INTO run_queue (user_id, run_no, thread_id, thread_no, turn, agent)
    SELECT 'ann', run_no, 't4', 4, turn, 'demo' FROM run WHERE status = 'queued';
UPDATE thread_head SET waiting = 3 WHERE thread_id = 't4';
INSERT INTO message (user_id, thread_no, turn, role, message_no, run_no, content)
    SELECT 'ann', 4, turn, 0, run_no, run_no, 'hello' FROM run WHERE status = 'queued';
INSERT INTO message (user_id, thread_no, turn, role, message_no, run_no, content)
    SELECT 'ann', {RUNS} + 1, n * 65536, 0, n, 17, 'hello' FROM generate_series(1, 1000) n;
INSERT INTO ticket (hash, user_id, expires_at)
    SELECT sha256(n::text::bytea), 'ann', now() + interval '1 hour' FROM generate_series(1, {RUNS}) n;
INSERT INTO deleted_thread (user_id, thread_id, epoch, thread_no, last_seq)
    SELECT 'ann', 't' || n, 'old', {2 * RUNS} + n, 9 FROM generate_series(1, {RUNS}) n;
INSERT INTO start_key (user_id, idempotency_key, content_hash, run_no, run_id, thread_id, thread_no, epoch, seq,
        created_at)
    SELECT 'ann', 'k' || run_no, 'x', run_no, 'r' || run_no, 't' || thread_no, thread_no, 'e', 0,
        now() - run_no * interval '10 s' FROM r;
INSERT INTO fold_queue (user_id, run_no, thread_id, waiting_since)
    SELECT 'ann', run_no, 't' || thread_no, now() - run_no * interval '1 ms' FROM r;
UPDATE run SET ended_seq = started_seq + {EVENTS_OF_A_RUN} - 1 WHERE run_no = 17;
INSERT INTO message (user_id, thread_no, turn, role, message_no, run_no, content)
    SELECT 'ann', thread_no, (place + 1) * 65536, role, run_no * 2 + role, run_no, 'hello'
    FROM r, generate_series(0, 1) role
    WHERE role = 0 OR place < {RUNS_OF_A_THREAD} - 1;
INSERT INTO event (user_id, thread_no, seq, run_no, ordinal, attempt, type, body)
    SELECT 'ann', thread_no, place * {EVENTS_OF_A_RUN} + o, run_no, o, 1, 'agent_message', '{{}}'
    FROM r, generate_series(1, {EVENTS_OF_A_RUN}) o;
DROP TABLE r;
RESET synchronous_commit; RESET search_path;
"""

ACCEPT = (
    "SELECT * FROM agentws.accept('', 'ann', $1, $2, $3, $4, true, 'chat', 'demo', 'x', NULL, 1, $5, 'x', $6, 'queue',"
    " false, NULL, 0, 50, 50)"
)
ACCEPT_BUSY = (
    "SELECT * FROM agentws.accept('', 'ann', $1, NULL, $2, $3, false, 'chat', 'demo', 'x', NULL, 1, NULL, NULL, false,"
    " $4, true, NULL, 0, 0, 0)"
)
PURGE = "SELECT agentws.purge_deleted('', 'ann', 't2', 'e', 60)"
APPEND = (
    "SELECT * FROM agentws.append('', 'ann', 't1', $1, 1, 1::smallint, $2, $3, $4, $5, 'answer', NULL, 1, '{demo}')"
)
STOP = "SELECT * FROM agentws.stop('', 'ann', $1, $2, $3, 'user')"
AT_WORK, FIRST = 2 * RUNS_OF_A_THREAD - 1, EVENTS_OF_A_RUN + 1
CALLS: dict[str, tuple[str, list[Any]]] = {
    "accept in a new thread": (ACCEPT, ["new", 1 << 50, 1 << 50, "new", "new", False]),
    "accept in a thread": (ACCEPT, ["t1", None, 1 << 51, "next", "next", False]),
    "accept a repeat": (ACCEPT, ["t1", None, 1 << 52, "other", "k17", False]),
    "accept again": (ACCEPT, ["t1", None, 1 << 51, "next", "next", True]),
    "accept a run id that is taken": (ACCEPT, ["t1", None, 1 << 53, "r17", "fresh", False]),
    "append": (APPEND, [AT_WORK, FIRST, ["agent_message"] * 3, ["{}"] * 3, None]),
    "append, repeated": (APPEND, [AT_WORK, FIRST, ["agent_message"] * 3, ["{}"] * 3, None]),
    "read what an attempt left": ("SELECT * FROM agentws.read_remains('', 'ann', $1, 1::smallint)", [AT_WORK]),
    "stop by run id": (STOP, ["r17", None, None]),
    "stop by number": (STOP, [None, AT_WORK, None]),
    "stop a thread": (STOP, [None, None, "t0"]),
    "end, and claim the next": (APPEND, [AT_WORK, FIRST + 3, ["agent_completed"], ["{}"], "completed"]),
    "end, repeated": (APPEND, [AT_WORK, FIRST + 3, ["agent_completed"], ["{}"], "completed"]),
    "begin": ("SELECT agentws.begin_run('', 'ann', 't2', $1, 1)", [3 * RUNS_OF_A_THREAD - 1]),
    "release": (
        "SELECT * FROM agentws.release_run('', 'ann', 't3', $1, 1, interval '1 hour')", [4 * RUNS_OF_A_THREAD - 1],
    ),
    "read a head": ("SELECT * FROM agentws.read_head('', 'ann', 't3')", []),
    "read events": ("SELECT * FROM agentws.read_events('', 'ann', 't3', 'e', $1, 50, 1000000)", [20]),
    "read messages": ("SELECT * FROM agentws.read_messages('', 'ann', 3, $1, NULL, NULL, 10)", [20 * 65536]),
    "read earlier messages": (
        "SELECT * FROM agentws.read_messages('', 'ann', 3, $1, $2, 0::smallint, 10)", [20 * 65536, 9 * 65536],
    ),
    "read the heads of many": (
        "SELECT * FROM agentws.read_heads($1, $2, $3, $4)",
        [[""] * 100, ["ann"] * 100, [f"t{n}" for n in range(100)], ["e"] * 100],
    ),
    "make a thread": ("SELECT * FROM agentws.create_thread('', 'ann', 'made', $1, NULL, NULL, 0)", [new_number()]),
    "find a thread": ("SELECT * FROM agentws.create_thread('', 'ann', 't5', $1, NULL, NULL, 0)", [new_number()]),
    "make one thread too many": (
        "SELECT * FROM agentws.create_thread('', 'ann', 'more', $1, NULL, NULL, 50)", [new_number()],
    ),
    "reject": (ACCEPT_BUSY, ["t4", 1 << 54, "b1", "reject"]),
    "interrupt what runs": (ACCEPT_BUSY, ["t1", 1 << 55, "b2", "interrupt"]),
    "interrupt before one that waits": (ACCEPT_BUSY, ["t1", 1 << 56, "b3", "interrupt"]),
    "interrupt where no gap is left": (ACCEPT_BUSY, ["t4", 1 << 57, "b4", "interrupt"]),
    "read a thread": ("SELECT * FROM agentws.read_thread('', 'ann', 't4')", []),
    "change a thread": ("SELECT * FROM agentws.update_thread('', 'ann', 't4', 'T', NULL)", []),
    "list threads": ("SELECT * FROM agentws.list_threads('', 'ann', 50, NULL, NULL)", []),
    "list earlier threads": ("SELECT * FROM agentws.list_threads('', 'ann', 50, $1, $2)", [1 << 60, 1]),
    "read a history": ("SELECT * FROM agentws.read_history('', 'ann', 'quiet1', 50, NULL, NULL)", []),
    "read a long history back": (
        "SELECT * FROM agentws.read_messages('', 'ann', $1, $2, $3, 0::smallint, 50)", [RUNS + 1, 1 << 60, 500 * 65536],
    ),
    "read earlier history": (
        "SELECT * FROM agentws.read_history('', 'ann', 'quiet1', 50, $1, $2)", [500 * 65536, 0],
    ),
    "delete a thread": ("SELECT * FROM agentws.delete_thread('', 'ann', 't4', '{}')", []),
    "delete another": ("SELECT * FROM agentws.delete_thread('', 'ann', 't2', '{}')", []),
    "stop a run of a deleted thread": (STOP, ["waits1", None, None]),
    "read events of a deleted thread": ("SELECT * FROM agentws.read_events('', 'ann', 't2', 'e', 20, 50, 10000)", []),
    "read the ends of deleted threads": (
        "SELECT * FROM agentws.read_heads($1, $2, $3, $4)",
        [[""] * 100, ["ann"] * 100, [f"t{n}" for n in range(900, 1000)], ["old"] * 100],
    ),
    "purge events": (PURGE, []),
    "purge more events": (PURGE, []),
    "purge messages and runs": (PURGE, []),
    "purge a thread": (PURGE, []),
    "give new epochs": ("SELECT * FROM agentws.new_epoch(NULL, NULL, NULL, 50)", []),
    "give more new epochs": ("SELECT * FROM agentws.new_epoch('', 'ann', 't5', 50)", []),
    "find unfollowed runs": ("SELECT * FROM agentws.find_unfollowed(40)", []),
    "note followed runs": (
        "SELECT agentws.mark_followed($1, $2, $3)",
        [[""] * 40, [f"u{n}" for n in range(7, 807, 20)], [20 * n + 19 for n in range(7, 807, 20)]],
    ),
    "find deleted threads": ("SELECT * FROM agentws.find_deleted('1 hour', 10)", []),
    "claim runs to be folded": ("SELECT * FROM agentws.claim_folds('10 s', 40)", []),
    "read what can be folded": ("SELECT * FROM agentws.read_foldable('', 'ann', 17, $1, 40, 10000)", [0]),
    "fold": ("SELECT agentws.fold_run('', 'ann', 't0', 17, $1, $2, $3, $4, true)", [[86], [89], [4], ["{}"]]),
    "fold again": ("SELECT agentws.fold_run('', 'ann', 't0', 17, $1, $2, $3, $4, true)", [[86], [89], [4], ["{}"]]),
    "find threads with old events": ("SELECT * FROM agentws.find_aged(NULL, NULL, NULL, '1 hour', 50)", []),
    "find more threads with old events": ("SELECT * FROM agentws.find_aged('', 'ann', 't5', '1 hour', 50)", []),
    "remove old events": ("SELECT agentws.remove_aged('', 'ann', 't3', '0 s', 40)", []),
    "remove more old events": ("SELECT agentws.remove_aged('', 'ann', 't3', '0 s', 40)", []),
    "purge keys": ("SELECT agentws.purge_keys('48 hours', 40)", []),
    "redeem a ticket": ("SELECT * FROM agentws.redeem_ticket(sha256('7'))", []),
    "purge tickets": ("SELECT agentws.purge_tickets()", []),
}  # fmt: skip


def scans(plan: Any) -> Iterator[Any]:
    """The nodes of a plan that read a table of ours."""
    if "Scan" in plan["Node Type"] and (plan.get("Relation Name") in TABLES or plan.get("Index Name") in KEYS):
        yield plan
    for inner in plan.get("Plans", []):
        yield from scans(inner)


def faults(plan: Any, query: str) -> Iterator[str]:
    whole = {table for part, table in WHOLE.items() if part in query}
    for scan in scans(plan):
        if scan.get("Relation Name") in whole:
            continue
        what = f"{scan['Node Type']} on {scan.get('Relation Name')} by {scan.get('Index Name')}"
        if scan["Node Type"] not in ("Index Scan", "Index Only Scan", "Bitmap Heap Scan", "Bitmap Index Scan"):
            yield what
        elif scan["Actual Rows"] + scan.get("Rows Removed by Filter", 0) > TOO_MANY:
            yield f"{what} reads {scan['Actual Rows']} and {scan.get('Rows Removed by Filter')} rows"


class Explained:
    """A connection that tells the plan of each statement, also of those within functions."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._told: list[str] = []
        connection.add_log_listener(self._listen)

    def _listen(self, _: object, message: asyncpg.PostgresLogMessage) -> None:
        text = str(message)
        if "plan:" in text:
            self._told.append(text)

    async def plans(self, sql: str, arguments: list[Any]) -> list[Any]:
        self._told.clear()
        await self.connection.fetch(sql, *arguments)
        # What was told is handed on in the loop's next steps, before the answer to this.
        await self.connection.execute("SELECT")
        return [json.loads(text[text.index("{") : text.rindex("}") + 1]) for text in self._told]


@pytest.fixture
async def explained(database: TestDatabase) -> AsyncIterator[Explained]:
    settings = {
        "plan_cache_mode": "force_generic_plan", "client_min_messages": "notice", "jit": "off",
        "auto_explain.log_min_duration": "0", "auto_explain.log_nested_statements": "on",
        "auto_explain.log_analyze": "on", "auto_explain.log_timing": "off", "auto_explain.log_format": "json",
        "auto_explain.log_level": "notice",
    }  # fmt: skip
    connection: Connection = await asyncpg.connect(database.owner_url)
    await connection.execute("LOAD 'auto_explain'")
    for name, value in settings.items():
        await connection.execute("SELECT set_config($1, $2, false)", name, value)
    yield Explained(connection)
    await connection.close()


async def plan_on_empty_tables(explained: Explained) -> None:
    """The plans are kept by the connection, as by one that was opened when the service was new.

    All is rolled back: to empty the tables otherwise would have the plans made anew.
    """
    transaction = explained.connection.transaction()
    await transaction.start()
    for sql, arguments in CALLS.values():
        await explained.connection.fetch(sql, *arguments)
    await transaction.rollback()


async def assert_keyed(explained: Explained, names: Iterable[str]) -> None:
    found: dict[str, list[str]] = {}
    for name in names:
        plans = await explained.plans(*CALLS[name])
        assert any(True for plan in plans for _ in scans(plan["Plan"])), name
        found[name] = [
            f"{fault} in {plan['Query Text']}" for plan in plans for fault in faults(plan["Plan"], plan["Query Text"])
        ]
    assert {name: each for name, each in found.items() if each} == {}


async def test_hot_statements_find_their_rows_by_a_key(owner: Connection, explained: Explained) -> None:
    await owner.execute(FILL)
    await owner.execute("ANALYZE")
    await assert_keyed(explained, CALLS)


@pytest.mark.parametrize("planned", [False, True])
async def test_they_do_so_also_before_there_are_statistics(
    owner: Connection, explained: Explained, planned: bool
) -> None:
    if planned:
        await plan_on_empty_tables(explained)
    await owner.execute(FILL)
    await assert_keyed(explained, CALLS)
