"""What the database holds of a run's course, for operators.

An operator says whose run it is; no request comes this way, so that no principal is made here.
"""

import msgspec

from agentws.core.timeline import RunOutline
from agentws.store.pool import Database

__all__ = ["MOST_EVENTS", "PgOutlines"]

MOST_EVENTS = 10_000
_EXPLAIN = "SELECT agentws.explain_run($1,$2,$3,$4) AS outline"

_decode = msgspec.json.Decoder(RunOutline).decode


class PgOutlines:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def read(self, *, tenant_id: str, user_id: str, run_id: str) -> RunOutline | None:
        """A run's outline, without anything that was said in it; None where this user has no such run.

        Raises:
            StoreUnavailable: if the database did not answer in time.
        """
        rows = await self._database.system(_EXPLAIN, tenant_id, user_id, run_id, MOST_EVENTS)
        told = rows[0]["outline"]
        return None if told is None else _decode(told)
