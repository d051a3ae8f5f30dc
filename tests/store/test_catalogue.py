"""What PostgreSQL's catalogue says: who owns what, who may do what, and that users are kept apart whoever logs in."""

import re
from collections.abc import Mapping
from dataclasses import replace

import asyncpg
import pytest

from agentws.core.context import Principal
from agentws.core.fold import Group
from agentws.core.run import Foldable
from agentws.ports import End, Fenced, ThreadKey
from agentws.store.pool import Database
from agentws.wire.errors import Fault
from agentws.wire.ids import RunId, ThreadId, ThreadNo, new_number

from ..conftest import LOGIN, TestDatabase
from .conftest import ANN, BOB, LIMIT_S, NODE, Connection, Store, T, contents, piece

APP, SYSTEM = "agentws_app", "agentws_system"
USER_DATA = {
    "thread_head", "thread", "run", "run_queue", "start_key", "message", "event", "deleted_thread", "fold_queue",
}  # fmt: skip
# Of users, and the system's alone: whoever brings a ticket is nobody yet.
SYSTEM_DATA = {"ticket"}
OTHERS = {"node", "schema_migration"}
PLANNING = {"enable_hashjoin", "enable_mergejoin", "enable_material", "enable_seqscan"}
ALL = "DELETE INSERT SELECT UPDATE"
# Table → role → what it may do there; whoever is not named may do nothing.
PRIVILEGES: Mapping[str, Mapping[str, str]] = {
    "thread_head": {APP: ALL, SYSTEM: "SELECT UPDATE"},
    "thread": {APP: ALL},
    "run": {APP: ALL},
    "run_queue": {APP: ALL, SYSTEM: "SELECT UPDATE"},
    "start_key": {APP: ALL, SYSTEM: "DELETE SELECT"},
    "message": {APP: ALL},
    "event": {APP: ALL},
    "fold_queue": {APP: ALL, SYSTEM: "SELECT UPDATE"},
    "deleted_thread": {APP: ALL, SYSTEM: "SELECT"},
    "ticket": {SYSTEM: "DELETE INSERT SELECT"},
    "node": {SYSTEM: ALL},
    "schema_migration": {SYSTEM: "SELECT"},
}
UNITS = {
    APP: {
        "create_thread", "accept", "append", "begin_run", "read_remains", "stop", "read_head", "read_events",
        "read_messages", "read_thread", "update_thread", "list_threads", "read_history", "delete_thread",
        "purge_deleted", "explain_run", "read_foldable", "fold_run", "remove_aged",
        "release_run",
    },
    SYSTEM: {
        "register_node", "renew_node", "remove_node", "take_over", "claim_waiting", "schema_state", "read_heads",
        "register_node_2", "take_over_2", "claim_waiting_2",
        "count_waiting", "new_epoch", "find_unfollowed", "mark_followed", "find_deleted", "issue_ticket",
        "redeem_ticket", "purge_tickets", "claim_folds", "find_aged", "purge_keys",
    },
}  # fmt: skip
INNER = {
    "queue_position", "stop_reason_of", "begin_claimed", "end_waiting", "end_running", "refusal_of", "is_full",
    "turn_before_waiting", "view_of",
}  # fmt: skip
# A unit of work of one bound role that the other's call.
SHARED = {"count_waiting": APP}
FUNCTIONS = """SELECT p.proname AS name, pg_get_userbyid(p.proowner) AS owner, p.prosecdef AS definer,
    p.proconfig AS settings, p.prosrc AS body, p.proacl::text[] AS rights, l.lanname AS language
    FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace JOIN pg_language l ON l.oid = p.prolang
    WHERE n.nspname = 'agentws'"""
GRANTS = """SELECT c.relname AS name, c.relkind::text AS kind, coalesce(r.rolname, 'PUBLIC') AS role,
    string_agg(a.privilege_type, ' ' ORDER BY a.privilege_type) AS privileges
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = 'agentws'
    CROSS JOIN aclexplode(c.relacl) a LEFT JOIN pg_roles r ON r.oid = a.grantee
    WHERE a.grantee <> c.relowner GROUP BY 1, 2, 3"""
KEYS = """SELECT c.conrelid::regclass::text AS name, c.contype::text AS kind, c.confrelid::regclass::text AS other,
    (SELECT array_agg(a.attname::text ORDER BY k.place) FROM unnest(c.conkey) WITH ORDINALITY k (number, place)
        JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = k.number) AS columns,
    (SELECT array_agg(a.attname::text ORDER BY k.place) FROM unnest(c.confkey) WITH ORDINALITY k (number, place)
        JOIN pg_attribute a ON a.attrelid = c.confrelid AND a.attnum = k.number) AS other_columns
    FROM pg_constraint c JOIN pg_namespace n ON n.oid = c.connamespace
    WHERE n.nspname = 'agentws' AND c.contype IN ('p', 'f')"""
INDEXES = """SELECT i.indexrelid::regclass::text AS index, i.indisunique AS is_unique,
    pg_get_expr(i.indpred, i.indrelid) AS condition,
    (SELECT array_agg(a.attname::text ORDER BY k.place) FROM unnest(i.indkey) WITH ORDINALITY k (number, place)
        JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number) AS columns
    FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = 'agentws' AND NOT i.indisprimary"""


# Tables


async def test_the_tables_are_these(owner: Connection) -> None:
    rows = await owner.fetch(
        "SELECT c.relname AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname = 'agentws' AND c.relkind IN ('r', 'p', 'v', 'm', 'f')"
    )
    assert {row["name"] for row in rows} == USER_DATA | SYSTEM_DATA | OTHERS


async def test_every_table_with_a_user_has_forced_row_level_security(owner: Connection) -> None:
    rows = await owner.fetch(
        "SELECT c.relname AS name, c.relrowsecurity AND c.relforcerowsecurity AS forced,"
        " EXISTS (SELECT 1 FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'user_id') AS has_user"
        " FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = 'agentws' AND c.relkind = 'r'"
    )
    assert {row["name"] for row in rows if row["has_user"]} == USER_DATA | SYSTEM_DATA
    assert {row["name"] for row in rows if row["forced"]} == USER_DATA | SYSTEM_DATA


async def test_every_policy_is_the_principals_or_the_systems_on_tables_without_content(owner: Connection) -> None:
    rows = await owner.fetch("SELECT * FROM pg_policies WHERE schemaname = 'agentws'")
    principal = {row["tablename"]: row for row in rows if row["policyname"] == "principal"}
    system = {row["tablename"]: row for row in rows if row["policyname"] == "system"}
    assert len(principal) + len(system) == len(rows)
    assert set(principal) == USER_DATA
    assert set(system) == {"thread_head", "run_queue", "deleted_thread", "ticket", "fold_queue", "start_key"}
    assert {(row["roles"][0], len(row["roles"]), row["cmd"]) for row in principal.values()} == {(APP, 1, "ALL")}
    assert {(row["roles"][0], len(row["roles"]), row["qual"]) for row in system.values()} == {(SYSTEM, 1, "true")}
    for row in principal.values():
        assert "NULLIF(current_setting('agentws.user_id'::text, true), ''::text)" in row["qual"]
        assert "tenant_id = current_setting('agentws.tenant_id'::text, true)" in row["qual"]
        assert row["with_check"] is None


async def test_primary_and_foreign_keys_of_user_data_begin_with_the_principal(owner: Connection) -> None:
    keys = await owner.fetch(KEYS)
    assert {key["name"].removeprefix("agentws.") for key in keys if key["kind"] == "p"} == (
        USER_DATA | SYSTEM_DATA | OTHERS
    )
    for key in keys:
        if key["name"].removeprefix("agentws.") in USER_DATA:
            assert key["columns"][:2] == ["tenant_id", "user_id"], key["name"]
            assert key["kind"] == "p" or key["other_columns"][:2] == ["tenant_id", "user_id"], key["name"]


async def test_other_indexes_put_a_selective_column_first_and_the_principal_after_it(owner: Connection) -> None:
    indexes = await owner.fetch(INDEXES)
    assert {index["index"].removeprefix("agentws.") for index in indexes} == {
        "run_by_name",
        "run_queue_stops_unfollowed",
        "fold_queue_by_age",
        "start_key_by_age",
    }
    for index in indexes:
        # By age alone, so that it is small: nothing that is looked up by its key could be led astray by it.
        if index["condition"] is not None or index["columns"] == ["created_at"]:
            continue
        assert index["is_unique"]
        assert index["columns"][0] not in ("tenant_id", "user_id", "status", "owner", "agent")
        assert index["columns"][1:3] == ["tenant_id", "user_id"]


async def test_a_partial_index_is_on_what_no_update_changes(owner: Connection) -> None:
    """Else each update of a row that it holds would have to write it anew."""
    partial = [index for index in await owner.fetch(INDEXES) if index["condition"] is not None]
    assert [(index["columns"], index["condition"]) for index in partial] == [
        (["tenant_id", "user_id", "thread_id"], "stops_unfollowed")
    ]
    changed = re.compile(r"\bUPDATE run_queue\b.*?\bSET\b(.*?)(?:\bWHERE\b|\bFROM\b)", re.DOTALL)
    for function in await owner.fetch(FUNCTIONS):
        for columns in changed.findall(function["body"]):
            for column in ("tenant_id", "user_id", "thread_id", "stops_unfollowed"):
                assert not re.search(rf"\b{column} =", columns), function["name"]


async def test_the_tenant_is_a_column_from_the_first_and_empty_by_default(owner: Connection) -> None:
    rows = await owner.fetch(
        "SELECT table_name, column_default, is_nullable FROM information_schema.columns"
        " WHERE table_schema = 'agentws' AND column_name = 'tenant_id'"
    )
    assert {(row["table_name"], row["column_default"], row["is_nullable"]) for row in rows} == {
        (table, "''::text", "NO") for table in USER_DATA | SYSTEM_DATA
    }


# Privileges


async def test_the_rights_on_tables_are_exactly_these(owner: Connection) -> None:
    told: dict[str, dict[str, str]] = {}
    for row in await owner.fetch(GRANTS):
        assert row["kind"] == "r"
        told.setdefault(row["name"], {})[row["role"]] = row["privileges"]
    assert told == PRIVILEGES
    columns = "SELECT count(*) FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid WHERE a.attacl IS NOT NULL AND"
    assert await owner.fetchval(f"{columns} c.relnamespace = 'agentws'::regnamespace") == 0


@pytest.mark.parametrize("role", [LOGIN, "public"])
async def test_the_login_role_and_everybody_have_no_right_on_any_table(owner: Connection, role: str) -> None:
    kinds = "SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER"
    assert await owner.fetchval(
        "SELECT bool_or(has_table_privilege($1, c.oid, $2) OR has_any_column_privilege($1, c.oid, 'SELECT'))"
        " FROM pg_class c WHERE c.relnamespace = 'agentws'::regnamespace AND c.relkind = 'r'",
        role,
        kinds,
    ) is False  # fmt: skip


async def test_the_schema_may_be_used_and_nobody_makes_things_in_it(owner: Connection) -> None:
    rows = await owner.fetch(
        "SELECT coalesce(r.rolname, 'PUBLIC') AS role, string_agg(a.privilege_type, ' ') AS privileges"
        " FROM pg_namespace n CROSS JOIN aclexplode(n.nspacl) a LEFT JOIN pg_roles r ON r.oid = a.grantee"
        " WHERE n.nspname = 'agentws' AND a.grantee <> n.nspowner GROUP BY 1"
    )
    assert {row["role"]: row["privileges"] for row in rows} == {APP: "USAGE", SYSTEM: "USAGE", LOGIN: "USAGE"}


async def test_there_is_no_sequence(owner: Connection) -> None:
    assert await owner.fetchval(
        "SELECT count(*) FROM pg_class WHERE relnamespace = 'agentws'::regnamespace AND relkind = 'S'"
    ) == 0  # fmt: skip


async def test_the_bound_roles_have_no_powers_and_no_friends(owner: Connection) -> None:
    for role in (APP, SYSTEM):
        row = await owner.fetchrow("SELECT * FROM pg_roles WHERE rolname = $1", role)
        assert row is not None
        powers = ("canlogin", "super", "bypassrls", "createrole", "createdb", "replication")
        assert [power for power in powers if row[f"rol{power}"]] == []
    assert await owner.fetchval("SELECT count(*) FROM pg_auth_members WHERE member::regrole::text LIKE 'agentws%'") == 0
    assert await owner.fetchval("SELECT NOT rolsuper AND NOT rolbypassrls FROM pg_roles WHERE rolname = $1", LOGIN)


# Functions


async def test_every_function_is_a_unit_of_work_or_within_one(owner: Connection) -> None:
    functions = await owner.fetch(FUNCTIONS)
    for role, names in UNITS.items():
        assert {each["name"] for each in functions if each["definer"] and each["owner"] == role} == names
    assert {each["name"] for each in functions if not each["definer"]} == INNER
    assert {each["owner"] for each in functions if not each["definer"]} == {APP}
    assert len(functions) == sum(map(len, UNITS.values())) + len(INNER)


async def test_every_function_names_where_it_looks_things_up(owner: Connection) -> None:
    for function in await owner.fetch(FUNCTIONS):
        assert function["settings"][0] == "search_path=agentws, pg_temp", function["name"]
        # Besides, only what keeps a plan to its keys.
        assert {each.partition("=")[0] for each in function["settings"][1:]} <= PLANNING, function["name"]


async def test_units_of_work_may_be_called_by_the_login_role_and_others_by_nobody(owner: Connection) -> None:
    for function in await owner.fetch(FUNCTIONS):
        rights = {right.partition("/")[0] for right in function["rights"]}
        callers = {function["owner"], SHARED.get(function["name"], function["owner"])}
        expected = {f"{caller}=X" for caller in callers | ({LOGIN} if function["definer"] else set())}
        assert rights == expected, function["name"]


async def test_a_users_unit_of_work_begins_with_its_principal_within_the_transaction(owner: Connection) -> None:
    first = re.compile(
        r"\s*(#\w+ \w+\s+)?(DECLARE.*?)?BEGIN\s+PERFORM set_config\('agentws\.tenant_id', p_tenant, true\),"
        r" set_config\('agentws\.user_id', p_user, true\);",
        re.DOTALL,
    )
    for function in await owner.fetch(FUNCTIONS):
        if function["name"] in UNITS[APP]:
            assert function["language"] == "plpgsql"
            assert first.match(function["body"]), function["name"]
        assert function["body"].count("set_config(") == (2 if function["name"] in UNITS[APP] else 0)


# Users kept apart, whoever logs in


async def fill(store: Store, whose: Principal) -> None:
    """A row of this user in each table."""
    claim = await store.claimed(whose, run_id="mine", key="k")
    await store.accept(whose)
    await store.append(claim, 2, *[piece("x")] * 20)
    await store.finish(claim, first=22)
    await store.claimed(whose, "gone")
    await store.threads.delete(whose, ThreadId("gone"))


@pytest.mark.parametrize("setting", [None, "", "nobody"])
async def test_without_a_principal_nothing_is_seen(store: Store, owner: Connection, setting: str | None) -> None:
    await fill(store, ANN)
    await fill(store, Principal("acme", "ann"))
    await owner.execute(f"SET ROLE {APP}")
    for table in sorted(USER_DATA):
        async with owner.transaction():
            if setting is not None:
                await owner.execute("SELECT set_config('agentws.user_id', $1, true)", setting)
                await owner.execute("SELECT set_config('agentws.tenant_id', '', true)")
            assert await owner.fetchval(f"SELECT count(*) FROM agentws.{table}") == 0, table


async def test_a_finished_transaction_leaves_nothing_that_sees_something(store: Store, owner: Connection) -> None:
    await fill(store, ANN)
    for name in ("tenant_id", "user_id"):
        assert await owner.fetchval("SELECT current_setting($1, true)", f"agentws.{name}") is None
    await owner.fetch("SELECT * FROM agentws.read_head('', 'ann', 't')")
    for name in ("tenant_id", "user_id"):
        assert await owner.fetchval("SELECT current_setting($1, true)", f"agentws.{name}") == ""
    await owner.execute(f"SET ROLE {APP}")
    for table in sorted(USER_DATA):
        assert await owner.fetchval(f"SELECT count(*) FROM agentws.{table}") == 0, table


async def test_within_one_principal_each_table_shows_its_rows_and_takes_no_others(
    store: Store, owner: Connection
) -> None:
    for whose in (ANN, BOB, Principal("acme", "ann")):
        await fill(store, whose)
    await owner.execute(f"SET ROLE {APP}")
    for table in sorted(USER_DATA):
        async with owner.transaction():
            await owner.execute("SELECT set_config('agentws.user_id', 'ann', true)")
            await owner.execute("SELECT set_config('agentws.tenant_id', '', true)")
            seen = await owner.fetch(f"SELECT DISTINCT tenant_id, user_id FROM agentws.{table}")
            assert [tuple(row) for row in seen] == [("", "ann")], table
            with pytest.raises(asyncpg.InsufficientPrivilegeError, match="row-level security"):
                columns = await owner.fetchval(
                    "SELECT string_agg(quote_ident(attname), ', ') FROM pg_attribute"
                    " WHERE attrelid = $1::text::regclass AND attnum > 2 AND NOT attisdropped",
                    f"agentws.{table}",
                )
                await owner.execute(
                    f"INSERT INTO agentws.{table} (tenant_id, user_id, {columns})"
                    f" SELECT '', 'bob', {columns} FROM agentws.{table}"
                )


@pytest.mark.parametrize("login", ["owner_url", "url"])
async def test_no_unit_of_work_for_one_user_sees_or_changes_anothers_rows(
    database: TestDatabase, owner: Connection, login: str
) -> None:
    pool = Database(getattr(database, login), size=1, timeout_s=LIMIT_S)
    await pool.open(wait_s=LIMIT_S)
    store = Store.over(pool)
    await fill(store, ANN)
    at_work = await store.claimed(ANN, "u", run_id="r")
    tables = [f"SELECT array_agg(x::text ORDER BY x::text) FROM agentws.{table} x" for table in sorted(USER_DATA)]
    before = [await owner.fetchval(table) for table in tables]
    for whose in (BOB, Principal("acme", "ann")):
        forged = replace(at_work, principal=whose)
        assert await store.journal.read_head(whose, T) is None
        assert await store.records(whose, ThreadId("u"), epoch=at_work.epoch, after_seq=0, limit=9) == []
        assert await store.journal.read_messages(replace(forged, turn=1 << 60), before=None, limit=9) == []
        assert await store.starts.remains(forged) == []
        for call in (
            store.starts.stop(whose, run_id=RunId("r"), run_no=None, thread_id=None, reason="x"),
            store.starts.stop(whose, run_id=None, run_no=at_work.run_no, thread_id=None, reason="x"),
            store.starts.stop(whose, run_id=None, run_no=None, thread_id=T, reason="x"),
            store.accept(whose),
            store.threads.read(whose, T),
            store.threads.update(whose, T, title="x", metadata=None),
            store.threads.history(whose, T, frame_id=None, limit=9, before=None),
            store.threads.delete(whose, T),
        ):
            with pytest.raises(Fault, match="not_found"):
                await call
        with pytest.raises(Fenced):
            await store.append(forged, 2, piece("x"))
        assert (await store.threads.list_page(whose, frame_id=None, limit=9, before=None)).threads == []
        gone = await owner.fetchrow("SELECT * FROM agentws.deleted_thread WHERE (tenant_id, user_id) = ('', 'ann')")
        assert gone is not None
        assert await store.records(whose, ThreadId("gone"), epoch=gone["epoch"], after_seq=0, limit=9) == []
        purged = await pool.user(whose, "SELECT agentws.purge_deleted($1,$2,'gone',$3,9) AS n", gone["epoch"])
        assert purged[0]["n"] == 0
        assert (await pool.user(whose, "SELECT agentws.begin_run($1,$2,$3,$4,1) AS c", "u", at_work.run_no))[0][
            "c"
        ] is None
    assert [await owner.fetchval(table) for table in tables] == before
    made = await store.threads.create(BOB, T, ThreadNo(new_number()), title=None, metadata=None)
    accepted = await store.accept(BOB, key="k", content="other", run_id="mine", owner=NODE)
    assert (made.last_seq, accepted.duplicate, accepted.seq) == (0, False, 0)
    bobs, anns = ((ThreadKey(whose, T), made.epoch) for whose in (BOB, ANN))
    ends = await store.journal.read_ends([bobs, anns])
    assert ends[bobs] == End(epoch=made.epoch, last_seq=1)
    assert ends[anns].epoch != made.epoch
    await pool.close()


@pytest.mark.parametrize("login", ["owner_url", "url"])
async def test_folding_and_retention_touch_no_other_users_rows(
    database: TestDatabase, owner: Connection, login: str
) -> None:
    pool = Database(getattr(database, login), size=1, timeout_s=LIMIT_S)
    await pool.open(wait_s=LIMIT_S)
    store = Store.over(pool)
    await fill(store, ANN)
    run_no = await owner.fetchval("SELECT run_no FROM agentws.fold_queue")
    # Behind its start and the run that came to wait.
    group = Group(from_seq=3, seq=22, rows=20, body="{}")
    before = await contents(owner)
    for whose in (BOB, Principal("acme", "ann")):
        forged = Foldable(principal=whose, thread_id=T, run_no=run_no)
        assert (await store.retention.read_foldable(forged, after_seq=0, limit=99, most_bytes=9999)).events == []
        assert not await store.retention.fold(forged, [group], last=True)
        assert await store.retention.remove_aged(ThreadKey(whose, T), older_than_s=0, limit=99) == 0
    assert await contents(owner) == before
    mine = Foldable(principal=ANN, thread_id=T, run_no=run_no)
    assert await store.retention.fold(mine, [group], last=True)
    assert await store.retention.remove_aged(ThreadKey(ANN, T), older_than_s=0, limit=99) == 1
    await pool.close()
