"""Runs from acceptance to claim, and their stop: `Starts` over PostgreSQL."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import asyncpg
import msgspec

from agentws.core.context import Principal
from agentws.core.limits import RETRY_AFTER_MS, StartLimits, refuse
from agentws.core.run import Accepted, Claim, Stopped, Ticket, Wanted
from agentws.ports import Stopping, StoreUnavailable
from agentws.store.pool import Database
from agentws.wire.errors import Fault
from agentws.wire.ids import RunId, RunNo, ThreadId, ThreadNo, new_number, run_id_of

__all__ = ["PgStarts", "claim_of"]

_ATTEMPTS = 3
_UNLIMITED = StartLimits()
_ACCEPT = "SELECT * FROM agentws.accept($1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11,$12,$13,$14,$15,$16,$17,$18,$19,$20,$21)"
_BEGIN = "SELECT agentws.begin_run($1,$2,$3,$4,$5) AS claim"
_REMAINS = "SELECT type, body FROM agentws.read_remains($1,$2,$3,$4)"
_RELEASE = "SELECT * FROM agentws.release_run($1,$2,$3,$4,$5,$6)"
_STOP = "SELECT * FROM agentws.stop($1,$2,$3,$4,$5,$6)"


class _Begun(msgspec.Struct, frozen=True, kw_only=True):
    """A claim as `begin_claimed` tells it."""

    run_no: int
    run_id: str
    thread_id: str
    thread_no: int
    epoch: str
    turn: int
    kind: str
    agent: str
    fence: int
    attempt: int
    ordinal: int
    was_begun: bool
    untouched: bool
    seq: int
    accepted_at: datetime
    started_at: datetime
    stop_reason: str | None
    context: msgspec.Raw
    text: str
    elapsed_ms: int


_decode_begun = msgspec.json.Decoder(_Begun).decode


def claim_of(principal: Principal, told: str, *, owner: int | None, orphan: bool = False) -> Claim:
    """The claim that a unit of work returned as JSON, for the principal that it was called for.

    `orphan`: nobody here has begun on it, so that it is not lost, unless something was written all the same.
    """
    begun = _decode_begun(told)
    return Claim(
        principal=principal,
        run_no=RunNo(begun.run_no),
        run_id=RunId(begun.run_id),
        thread_id=ThreadId(begun.thread_id),
        thread_no=ThreadNo(begun.thread_no),
        epoch=begun.epoch,
        turn=begun.turn,
        agent=begun.agent,
        kind=begun.kind,
        text=begun.text,
        context=None if bytes(begun.context) == b"null" else bytes(begun.context).decode(),
        fence=begun.fence,
        attempt=begun.attempt,
        ordinal=begun.ordinal,
        seq=begun.seq,
        accepted_at=begun.accepted_at,
        started_at=begun.started_at,
        owner=owner,
        lost=begun.was_begun and not (orphan and begun.untouched),
        elapsed_ms=begun.elapsed_ms,
        stop_reason=begun.stop_reason,
    )


class PgStarts:
    """
    Args:
        limits: what a start is refused beyond.
    """

    def __init__(self, database: Database, limits: StartLimits = _UNLIMITED) -> None:
        self._database = database
        self._limits = limits

    async def accept(self, principal: Principal, wanted: Wanted) -> Accepted:
        again, unanswered = False, 0
        for _ in range(2 * _ATTEMPTS):
            try:
                row = (await self._database.user(principal, _ACCEPT, *self._arguments(wanted, again)))[0]
            except StoreUnavailable:
                # It may have committed: the same call sees that, and is accepted only once.
                unanswered += 1
                if unanswered == _ATTEMPTS:
                    raise
                again = True
            except asyncpg.UniqueViolationError as error:
                if error.constraint_name == "thread_pkey":
                    # The thread that this one would make was made with this number before, and has been deleted.
                    raise Fault("thread_not_found") from error
                # Another with the same key or run id has committed at the same instant, or an earlier call of this one.
                if not again and error.constraint_name == "run_pkey":
                    wanted = _renumbered(wanted)
                else:
                    again = True
            else:
                return _accepted(principal, wanted, row, again=again)
        raise StoreUnavailable("copies of this start were accepted again and again")

    def _arguments(self, wanted: Wanted, again: bool) -> tuple[Any, ...]:
        return (
            wanted.thread_id,
            wanted.thread_no,
            wanted.run_no,
            wanted.run_id,
            wanted.named,
            wanted.kind,
            wanted.agent,
            wanted.text,
            wanted.context,
            wanted.owner,
            wanted.key,
            wanted.content_hash,
            again,
            wanted.if_busy,
            wanted.stops_unfollowed,
            wanted.refusal,
            self._limits.threads,
            self._limits.runs,
            self._limits.waiting,
        )

    async def begin(self, ticket: Ticket) -> Claim | None:
        for left in reversed(range(_ATTEMPTS)):
            try:
                rows = await self._database.user(
                    ticket.principal, _BEGIN, ticket.thread_id, ticket.run_no, ticket.fence
                )
            except StoreUnavailable:
                if not left:
                    raise
            else:
                told = rows[0]["claim"]
                if told is None:
                    return None
                claim = claim_of(ticket.principal, told, owner=ticket.owner, orphan=ticket.orphan)
                return replace(claim, released=ticket.released)
        raise AssertionError("unreachable")

    async def remains(self, claim: Claim) -> Sequence[tuple[str, str]]:
        rows = await self._database.user(claim.principal, _REMAINS, claim.run_no, claim.attempt)
        return [(row["type"], row["body"]) for row in rows]

    async def release(self, claim: Claim, *, delay_s: float) -> bool:
        delay = timedelta(seconds=delay_s)
        row = (await self._database.user(claim.principal, _RELEASE, claim.thread_id, claim.run_no, claim.fence, delay))[
            0
        ]
        if row["outcome"] == "stopping":
            raise Stopping(row["o_stop_reason"])
        return bool(row["outcome"] == "released")

    async def stop(
        self,
        principal: Principal,
        *,
        run_id: RunId | None,
        run_no: RunNo | None,
        thread_id: ThreadId | None,
        reason: str,
    ) -> Stopped:
        row = (await self._database.user(principal, _STOP, run_id, run_no, thread_id, reason))[0]
        if row["outcome"] != "stopping":
            raise Fault(row["outcome"])
        return Stopped(
            thread_id=row["o_thread_id"],
            epoch=row["o_epoch"],
            last_seq=row["o_last_seq"],
            run_ids=row["o_run_ids"],
            already_ended=row["o_already_ended"],
            running=row["o_running"],
            ended=list(zip(row["o_ended"], row["o_ended_kinds"], strict=True)),
        )


def _renumbered(wanted: Wanted) -> Wanted:
    """The same with another number: two processes may make one in the same millisecond."""
    run_no = RunNo(new_number())
    return replace(wanted, run_no=run_no, run_id=wanted.run_id if wanted.named else run_id_of(run_no))


def _accepted(principal: Principal, wanted: Wanted, row: asyncpg.Record, *, again: bool) -> Accepted:
    outcome = row["outcome"]
    if outcome not in ("accepted", "duplicate"):
        raise refuse(outcome) if outcome in RETRY_AFTER_MS else Fault(outcome)
    return Accepted(
        thread_id=row["o_thread_id"],
        epoch=row["o_epoch"],
        run_no=row["o_run_no"],
        run_id=row["o_run_id"],
        status=row["o_status"],
        seq=row["o_seq"],
        position=row["o_position"],
        duplicate=outcome == "duplicate",
        thread_exists=row["o_thread_no"] is not None,
        at=row["o_at"],
        claim=_first_claim(principal, wanted, row) if row["o_claimed"] else None,
        repeated=again,
        interrupted=row["o_interrupted"],
    )


def _first_claim(principal: Principal, wanted: Wanted, row: asyncpg.Record) -> Claim:
    return Claim(
        principal=principal,
        run_no=wanted.run_no,
        run_id=wanted.run_id,
        thread_id=wanted.thread_id,
        thread_no=row["o_thread_no"],
        epoch=row["o_epoch"],
        turn=row["o_turn"],
        agent=wanted.agent,
        kind=wanted.kind,
        text=wanted.text,
        context=wanted.context,
        fence=1,
        attempt=1,
        ordinal=1,
        seq=row["o_seq"] + 1,
        accepted_at=row["o_at"],
        started_at=row["o_at"],
        owner=wanted.owner,
    )
