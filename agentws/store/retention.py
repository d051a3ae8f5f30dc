"""How much is kept of what has been written: `Retention` over PostgreSQL."""

from collections.abc import Sequence
from datetime import timedelta

from agentws.core.fold import Group
from agentws.core.framing import Origin, Record
from agentws.core.run import Foldable
from agentws.ports import Page, ThreadKey
from agentws.store.pool import Database
from agentws.wire.codec import timestamp
from agentws.wire.events import EventType

__all__ = ["PgRetention"]

_READ = "SELECT * FROM agentws.read_foldable($1,$2,$3,$4,$5,$6)"
_FOLD = "SELECT agentws.fold_run($1,$2,$3,$4,$5,$6,$7,$8,$9) AS as_read"
_REMOVE = "SELECT agentws.remove_aged($1,$2,$3,$4,$5) AS n"


class PgRetention:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def read_foldable(self, run: Foldable, *, after_seq: int, limit: int, most_bytes: int) -> Page:
        rows = await self._database.user(run.principal, _READ, run.run_no, after_seq, limit, most_bytes)
        # Nobody is sent these: the names that a frame would have are not asked for.
        origin = Origin(run.principal.user_id, run.thread_id, "", run.run_no, "", "")
        events = [
            (
                origin,
                Record(
                    seq=row["seq"],
                    from_seq=row["from_seq"],
                    type=EventType(row["type"]),
                    ordinal=row["ordinal"],
                    attempt=row["attempt"],
                    timestamp=timestamp(row["at"]),
                    body=row["body"],
                    content=None,
                ),
            )
            for row in rows
        ]
        return Page(events, more=bool(rows) and rows[-1]["more"])

    async def fold(self, run: Foldable, groups: Sequence[Group], *, last: bool) -> bool:
        rows = await self._database.user(
            run.principal,
            _FOLD,
            run.thread_id,
            run.run_no,
            [group.from_seq for group in groups],
            [group.seq for group in groups],
            [group.rows for group in groups],
            [group.body for group in groups],
            last,
        )
        return bool(rows[0]["as_read"])

    async def remove_aged(self, thread: ThreadKey, *, older_than_s: float, limit: int) -> int:
        rows = await self._database.user(
            thread.principal, _REMOVE, thread.thread_id, timedelta(seconds=older_than_s), limit
        )
        return int(rows[0]["n"])
