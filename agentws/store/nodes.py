"""Leases of processes, and claims across principals: `Nodes` over PostgreSQL.

A ticket's principal is made here, from the row that the claim locked; besides the authentication of requests this is
the only place where one is made.
"""

from collections.abc import Sequence
from datetime import timedelta

import asyncpg

from agentws.core.context import Principal
from agentws.core.run import Foldable, RunKey, Ticket, Unfollowed
from agentws.ports import Renewal, ThreadKey
from agentws.store.migrate import NEWEST
from agentws.store.pool import Database

__all__ = ["PgNodes"]

_BATCH = 500


class PgNodes:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def register(self, node_id: int, name: str, *, ttl_s: float, agents: Sequence[str]) -> None:
        await self._database.system(
            "SELECT agentws.register_node_2($1,$2,$3,$4)", node_id, name, timedelta(seconds=ttl_s), agents
        )

    async def renew(self, node_id: int, *, ttl_s: float) -> Renewal:
        rows = await self._database.system("SELECT * FROM agentws.renew_node($1,$2)", node_id, timedelta(seconds=ttl_s))
        row = rows[0]
        held = {
            RunKey(tenant_id, user_id, run_no): stopping
            for tenant_id, user_id, run_no, stopping in zip(
                row["tenants"], row["users"], row["runs"], row["stopping"], strict=True
            )
        }
        return Renewal(
            alive=row["alive"],
            owned=frozenset(held),
            stops=frozenset(key for key, stopping in held.items() if stopping),
        )

    async def remove(self, node_id: int) -> None:
        await self._database.system("SELECT agentws.remove_node($1)", node_id)

    async def take_over(self, node_id: int, *, orphans: Sequence[RunKey], limit: int) -> Sequence[Ticket]:
        rows = await self._database.system(
            "SELECT * FROM agentws.take_over_2($1,$2,$3,$4,$5)",
            node_id,
            [key.tenant_id for key in orphans],
            [key.user_id for key in orphans],
            [key.run_no for key in orphans],
            limit,
        )
        return [_ticket(row, node_id) for row in rows]

    async def claim_waiting(self, node_id: int, agents: Sequence[str], *, limit: int) -> Sequence[Ticket]:
        rows = await self._database.system("SELECT * FROM agentws.claim_waiting_2($1,$2,$3)", node_id, agents, limit)
        return [_ticket(row, node_id) for row in rows]

    async def find_unfollowed(self, *, limit: int) -> Sequence[Unfollowed]:
        rows = await self._database.system("SELECT * FROM agentws.find_unfollowed($1)", limit)
        return [
            Unfollowed(
                principal=Principal(row["tenant_id"], row["user_id"]),
                thread_id=row["thread_id"],
                run_no=row["run_no"],
                idle_s=row["idle"].total_seconds(),
            )
            for row in rows
        ]

    async def mark_followed(self, runs: Sequence[Unfollowed]) -> None:
        await self._database.system(
            "SELECT agentws.mark_followed($1,$2,$3)",
            [run.principal.tenant_id for run in runs],
            [run.principal.user_id for run in runs],
            [run.run_no for run in runs],
        )

    async def purge(self, *, older_than_s: float, limit: int) -> int:
        """Removes expired tickets, and rows of threads that were deleted so long ago; how many rows of those."""
        await self._database.system("SELECT agentws.purge_tickets()")
        removed = 0
        for row in await self._database.system(
            "SELECT * FROM agentws.find_deleted($1,$2)", timedelta(seconds=older_than_s), limit
        ):
            principal = Principal(row["tenant_id"], row["user_id"])
            rows = await self._database.user(
                principal, "SELECT agentws.purge_deleted($1,$2,$3,$4,$5) AS n", row["thread_id"], row["epoch"], limit
            )
            removed += rows[0]["n"]
        return removed

    async def purge_keys(self, *, older_than_s: float, limit: int) -> int:
        rows = await self._database.system(
            "SELECT agentws.purge_keys($1,$2) AS n", timedelta(seconds=older_than_s), limit
        )
        return int(rows[0]["n"])

    async def claim_folds(self, *, older_than_s: float, limit: int) -> Sequence[Foldable]:
        rows = await self._database.system(
            "SELECT * FROM agentws.claim_folds($1,$2)", timedelta(seconds=older_than_s), limit
        )
        return [
            Foldable(
                principal=Principal(row["tenant_id"], row["user_id"]), thread_id=row["thread_id"], run_no=row["run_no"]
            )
            for row in rows
        ]

    async def find_aged(
        self, after: ThreadKey | None, *, older_than_s: float, limit: int
    ) -> tuple[Sequence[ThreadKey], ThreadKey | None]:
        rows = await self._database.system(
            "SELECT * FROM agentws.find_aged($1,$2,$3,$4,$5)",
            after and after.principal.tenant_id,
            after and after.principal.user_id,
            after and after.thread_id,
            timedelta(seconds=older_than_s),
            limit,
        )
        keys = [ThreadKey(Principal(row["tenant_id"], row["user_id"]), row["thread_id"]) for row in rows]
        aged = [key for key, row in zip(keys, rows, strict=True) if row["aged"]]
        return aged, keys[-1] if keys else None

    async def new_epochs(self) -> int:
        """Gives every thread a new epoch; how many there were."""
        count, after = 0, (None, None, None)
        while True:
            row = (await self._database.system("SELECT * FROM agentws.new_epoch($1,$2,$3,$4)", *after, _BATCH))[0]
            if not row["o_count"]:
                return count
            count += row["o_count"]
            after = (row["o_tenant"], row["o_user"], row["o_thread"])

    async def schema_is_current(self) -> bool:
        """Whether the schema has all that this code needs, and this code is new enough to read it."""
        try:
            rows = await self._database.system("SELECT * FROM agentws.schema_state()")
        except (asyncpg.InvalidSchemaNameError, asyncpg.UndefinedFunctionError, asyncpg.InsufficientPrivilegeError):
            return False
        return bool(rows) and rows[0]["readable_from"] <= NEWEST <= rows[0]["newest"]


def _ticket(row: asyncpg.Record, node_id: int) -> Ticket:
    return Ticket(
        principal=Principal(row["tenant_id"], row["user_id"]),
        thread_id=row["thread_id"],
        run_no=row["run_no"],
        fence=row["fence"],
        owner=node_id,
        orphan=row["orphan"],
        released=row["released"],
    )
