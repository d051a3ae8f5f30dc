"""Threads by name: `Threads` over PostgreSQL."""

import msgspec

from agentws.core.context import Principal
from agentws.store.pool import Database
from agentws.wire.codec import timestamp
from agentws.wire.ids import ThreadId, ThreadNo
from agentws.wire.messages import Thread

__all__ = ["PgThreads"]

_CREATE = "SELECT * FROM agentws.create_thread($1,$2,$3,$4,$5,$6)"


class PgThreads:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(
        self,
        principal: Principal,
        thread_id: ThreadId,
        thread_no: ThreadNo,
        *,
        title: str | None,
        metadata: str | None,
    ) -> Thread:
        row = (await self._database.user(principal, _CREATE, thread_id, thread_no, title, metadata))[0]
        return Thread(
            thread_id=row["thread_id"],
            title=row["title"],
            metadata=None if row["metadata"] is None else msgspec.Raw(row["metadata"]),
            created_at=timestamp(row["created_at"]),
            updated_at=timestamp(row["updated_at"]),
            epoch=row["epoch"],
            last_seq=row["last_seq"],
            running_run_id=row["running_run_id"],
        )
