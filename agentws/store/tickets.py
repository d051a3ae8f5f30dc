"""Single-use tickets: only a hash of each is stored, and whoever redeems one has removed it."""

import hashlib
import secrets
from datetime import UTC, datetime, timedelta

from agentws.core.context import Principal
from agentws.ports import IssuedTicket, RedeemedTicket
from agentws.store.pool import Database

__all__ = ["PgTickets"]

_ISSUE = "SELECT agentws.issue_ticket($1,$2,$3,$4,$5) AS expires_at"
_REDEEM = "SELECT * FROM agentws.redeem_ticket($1)"


class PgTickets:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def issue(self, principal: Principal, *, credentials_expire_at: float | None, ttl_s: float) -> IssuedTicket:
        ticket = secrets.token_urlsafe(32)
        rows = await self._database.system(
            _ISSUE,
            _hash(ticket),
            principal.tenant_id,
            principal.user_id,
            None if credentials_expire_at is None else datetime.fromtimestamp(credentials_expire_at, UTC),
            timedelta(seconds=ttl_s),
        )
        return IssuedTicket(ticket=ticket, expires_at=rows[0]["expires_at"])

    async def redeem(self, ticket: str) -> RedeemedTicket | None:
        rows = await self._database.system(_REDEEM, _hash(ticket))
        if not rows:
            return None
        expires_at = rows[0]["credentials_expire_at"]
        return RedeemedTicket(
            tenant_id=rows[0]["tenant_id"],
            user_id=rows[0]["user_id"],
            credentials_expire_at=None if expires_at is None else expires_at.timestamp(),
        )


def _hash(ticket: str) -> bytes:
    """SHA-256; a ticket has 256 random bits, so that nothing slower is needed."""
    return hashlib.sha256(ticket.encode()).digest()
