"""The numbered events and messages of threads: `Journal` over PostgreSQL."""

from collections.abc import Mapping, Sequence

from agentws.core.context import Principal
from agentws.core.framing import Origin, Record
from agentws.core.run import Appended, Claim, Draft, Ending, Message
from agentws.ports import End, Fenced, Head, Page, Stopping, ThreadKey
from agentws.store.pool import Database
from agentws.store.runs import claim_of
from agentws.wire.codec import timestamp
from agentws.wire.events import EventType
from agentws.wire.ids import RunId, ThreadId

__all__ = ["PgJournal"]

_APPEND = "SELECT * FROM agentws.append($1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11,$12,$13,$14)"
_HEAD = "SELECT * FROM agentws.read_head($1,$2,$3)"
_EVENTS = "SELECT * FROM agentws.read_events($1,$2,$3,$4,$5,$6,$7)"
_HEADS = "SELECT * FROM agentws.read_heads($1,$2,$3,$4)"
_MESSAGES = "SELECT * FROM agentws.read_messages($1,$2,$3,$4,$5,$6,$7)"


class PgJournal:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def append(
        self,
        claim: Claim,
        first_ordinal: int,
        drafts: Sequence[Draft],
        *,
        attempt: int,
        ending: Ending | None,
        next_owner: int | None,
        agents: Sequence[str],
    ) -> Appended:
        rows = await self._database.user(
            claim.principal,
            _APPEND,
            claim.thread_id,
            claim.run_no,
            claim.fence,
            attempt,
            first_ordinal,
            [draft.type for draft in drafts],
            [draft.body for draft in drafts],
            ending and ending.status,
            ending and ending.response,
            ending and ending.error_code,
            next_owner,
            agents,
        )
        row = rows[0]
        if row["outcome"] == "stopping":
            raise Stopping(row["o_stop_reason"])
        if row["outcome"] != "written":
            raise Fenced(claim.run_id)
        told = row["o_next"]
        return Appended(
            last_seq=row["o_last_seq"],
            at=row["o_at"],
            skipped=row["o_skipped"],
            stop_reason=row["o_stop_reason"],
            next=None if told is None else claim_of(claim.principal, told, owner=next_owner),
        )

    async def read_head(self, principal: Principal, thread_id: ThreadId) -> Head | None:
        rows = await self._database.user(principal, _HEAD, thread_id)
        if not rows:
            return None
        return Head(epoch=rows[0]["epoch"], first_seq=rows[0]["first_seq"], last_seq=rows[0]["last_seq"])

    async def read_events(
        self, principal: Principal, thread_id: ThreadId, *, epoch: str, after_seq: int, limit: int, most_bytes: int
    ) -> Page:
        rows = await self._database.user(principal, _EVENTS, thread_id, epoch, after_seq, limit, most_bytes)
        events = [
            (
                Origin(principal.user_id, thread_id, epoch, row["run_no"], row["run_id"], row["agent"]),
                Record(
                    seq=row["seq"],
                    from_seq=row["from_seq"],
                    type=EventType(row["type"]),
                    ordinal=row["ordinal"],
                    attempt=row["attempt"],
                    timestamp=timestamp(row["at"]),
                    body=row["body"],
                    content=row["content"],
                ),
            )
            for row in rows
        ]
        return Page(events, more=bool(rows) and rows[-1]["more"])

    async def read_ends(self, followed: Sequence[tuple[ThreadKey, str]]) -> Mapping[tuple[ThreadKey, str], End]:
        rows = await self._database.system(
            _HEADS,
            [key.principal.tenant_id for key, _ in followed],
            [key.principal.user_id for key, _ in followed],
            [key.thread_id for key, _ in followed],
            [epoch for _, epoch in followed],
        )
        return {
            followed[row["place"] - 1]: End(epoch=row["epoch"], last_seq=row["last_seq"], deleted=row["deleted"])
            for row in rows
        }

    async def read_messages(self, claim: Claim, *, before: Message | None, limit: int) -> Sequence[Message]:
        turn, role = before.place if before else (None, None)
        rows = await self._database.user(claim.principal, _MESSAGES, claim.thread_no, claim.turn, turn, role, limit)
        return [
            Message(
                role="assistant" if row["role"] else "user",
                content=row["content"],
                run_id=RunId(row["run_id"]),
                created_at=row["created_at"],
                place=(row["turn"], row["role"]),
            )
            for row in reversed(rows)
        ]
