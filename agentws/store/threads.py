"""Threads by name: `Threads` over PostgreSQL."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import asyncpg
import msgspec

from agentws.core.context import Principal
from agentws.core.limits import refuse
from agentws.core.run import Deleted
from agentws.ports import OpenThread
from agentws.store.pool import Database
from agentws.wire.answers import HistoryMessage, Thread, ThreadHistory, ThreadList
from agentws.wire.codec import encode_text, timestamp
from agentws.wire.errors import CATALOGUE, Fault
from agentws.wire.events import ToolError
from agentws.wire.ids import ThreadId, ThreadNo, cursor_of, numbers_of

__all__ = ["PgThreads"]

_CREATE = "SELECT outcome, (o_thread).* FROM agentws.create_thread($1,$2,$3,$4,$5,$6,$7)"
_READ = "SELECT * FROM agentws.read_thread($1,$2,$3)"
_UPDATE = "SELECT * FROM agentws.update_thread($1,$2,$3,$4,$5)"
_LIST = "SELECT * FROM agentws.list_threads($1,$2,$3,$4,$5)"
_HISTORY = "SELECT * FROM agentws.read_history($1,$2,$3,$4,$5,$6)"
_DELETE = "SELECT * FROM agentws.delete_thread($1,$2,$3,$4)"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_STOPPED: Final = encode_text(ToolError(code="tool_stopped", message=CATALOGUE["tool_stopped"].text))


class PgThreads:
    """
    Args:
        most: how many threads a user may have; 0: any number.
    """

    def __init__(self, database: Database, *, most: int = 0) -> None:
        self._database = database
        self._most = most

    async def create(
        self,
        principal: Principal,
        thread_id: ThreadId,
        thread_no: ThreadNo,
        *,
        title: str | None,
        metadata: str | None,
    ) -> Thread:
        rows = await self._database.user(principal, _CREATE, thread_id, thread_no, title, metadata, self._most)
        if rows[0]["outcome"] != "found":
            raise refuse(rows[0]["outcome"])
        return _thread(rows[0])

    async def read(self, principal: Principal, thread_id: ThreadId) -> OpenThread:
        rows = await self._database.user(principal, _READ, thread_id)
        if not rows:
            raise Fault("thread_not_found")
        return OpenThread(thread=_thread(rows[0]), first_seq=rows[0]["first_seq"], resume_after=rows[0]["resume_after"])

    async def update(
        self, principal: Principal, thread_id: ThreadId, *, title: str | None, metadata: str | None
    ) -> Thread:
        rows = await self._database.user(principal, _UPDATE, thread_id, title, metadata)
        if not rows:
            raise Fault("thread_not_found")
        return _thread(rows[0])

    async def list_page(
        self, principal: Principal, *, frame_id: str | None, limit: int, before: str | None
    ) -> ThreadList:
        rows = await self._database.user(principal, _LIST, limit + 1, *_place(before))
        return ThreadList(
            id=frame_id,
            timestamp=timestamp(),
            threads=[_thread(row) for row in rows[:limit]],
            next_before=_next(rows, limit, lambda row: (_microseconds(row["updated_at"]), row["thread_no"])),
        )

    async def history(
        self, principal: Principal, thread_id: ThreadId, *, frame_id: str | None, limit: int, before: str | None
    ) -> ThreadHistory:
        turn, role = _place(before)
        if role not in (None, 0, 1):
            # A cursor of another list: no message has this place.
            raise Fault("validation_error", "before")
        rows = await self._database.user(principal, _HISTORY, thread_id, limit + 1, turn, role)
        if not rows:
            raise Fault("thread_not_found")
        messages = [row for row in rows if row["message_no"] is not None]
        return ThreadHistory(
            id=frame_id,
            timestamp=timestamp(),
            thread_id=thread_id,
            epoch=rows[0]["epoch"],
            last_seq=rows[0]["last_seq"],
            resume_after=rows[0]["resume_after"],
            messages=[_message(row) for row in reversed(messages[:limit])],
            next_before=_next(messages, limit, lambda row: (row["turn"], row["role"])),
        )

    async def delete(self, principal: Principal, thread_id: ThreadId) -> Deleted:
        row = (await self._database.user(principal, _DELETE, thread_id, _STOPPED))[0]
        if row["outcome"] != "deleted":
            raise Fault(row["outcome"])
        return Deleted(
            epoch=row["o_epoch"],
            last_seq=row["o_last_seq"],
            running=row["o_running"],
            ended=list(zip(row["o_ended"], row["o_ended_kinds"], strict=True)),
        )


def _thread(row: asyncpg.Record) -> Thread:
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


def _message(row: asyncpg.Record) -> HistoryMessage:
    return HistoryMessage(
        message_id=f"msg-{row['message_no']:016x}",
        role="assistant" if row["role"] else "user",
        content=row["content"],
        run_id=row["run_id"],
        status=row["status"],
        seq=row["seq"],
        created_at=timestamp(row["created_at"]),
    )


def _place(before: str | None) -> tuple[int | None, int | None]:
    """The place in a list that a cursor stands for."""
    return (None, None) if before is None else (numbers_of(before) or (0, 0))


def _next(rows: Sequence[asyncpg.Record], limit: int, place: Any) -> str | None:
    """The cursor behind a full page, of which one row more than it holds was asked for."""
    return cursor_of(*place(rows[limit - 1])) if len(rows) > limit else None


def _microseconds(at: datetime) -> int:
    return (at - _EPOCH) // timedelta(microseconds=1)
