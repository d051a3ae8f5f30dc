"""A ticket stands for its principal once and for a time, and cannot be read from the database."""

import asyncio
import hashlib
from datetime import UTC, timedelta

import pytest

from agentws.core.context import Principal
from agentws.ports import RedeemedTicket, StoreUnavailable

from .conftest import ANN, Connection, Store, Wire, until_waiting

WHOSE = Principal("acme", "Zoë 🎈")


async def issue(store: Store, whose: Principal = ANN, *, until: float | None = None, ttl_s: float = 60) -> str:
    return (await store.tickets.issue(whose, credentials_expire_at=until, ttl_s=ttl_s)).ticket


@pytest.mark.parametrize("until", [None, 4_000_000_000.25])
async def test_a_ticket_stands_for_its_principal_and_the_end_of_its_token(store: Store, until: float | None) -> None:
    ticket = await issue(store, WHOSE, until=until)
    assert await store.tickets.redeem(ticket) == RedeemedTicket(
        tenant_id="acme", user_id="Zoë 🎈", credentials_expire_at=until
    )


async def test_it_says_until_when_it_may_be_redeemed_by_the_databases_clock(store: Store, owner: Connection) -> None:
    before = await owner.fetchval("SELECT clock_timestamp()")
    issued = await store.tickets.issue(ANN, credentials_expire_at=None, ttl_s=45)
    after = await owner.fetchval("SELECT clock_timestamp()")
    assert before <= issued.expires_at - timedelta(seconds=45) <= after
    assert issued.expires_at.tzinfo == UTC


async def test_only_its_hash_is_stored(store: Store, owner: Connection) -> None:
    ticket = await issue(store)
    [row] = await owner.fetch("SELECT *, x::text AS all FROM agentws.ticket x")
    assert row["hash"] == hashlib.sha256(ticket.encode()).digest()
    assert ticket not in row["all"]
    assert ticket.encode().hex() not in row["all"]
    # 256 random bits, in characters that a query string takes.
    assert len(ticket) == 43
    assert len({await issue(store) for _ in range(5)}) == 5


async def test_it_is_redeemed_once(store: Store, owner: Connection) -> None:
    ticket, other = await issue(store), await issue(store)
    assert await store.tickets.redeem(ticket) is not None
    assert await store.tickets.redeem(ticket) is None
    assert await owner.fetchval("SELECT count(*) FROM agentws.ticket") == 1
    assert await store.tickets.redeem(other) is not None


async def test_of_many_who_bring_one_at_once_one_gets_it(store: Store, owner: Connection) -> None:
    ticket = await issue(store)
    async with owner.transaction():
        await owner.execute("SELECT FROM agentws.ticket FOR UPDATE")
        four = [asyncio.ensure_future(store.tickets.redeem(ticket)) for _ in range(4)]
        await until_waiting(owner, 4)
    assert [answer is None for answer in await asyncio.gather(*four)].count(False) == 1


async def test_one_whose_answer_is_lost_stays_used(far_store: Store, wire: Wire) -> None:
    ticket = await issue(far_store)
    wire.lose_answers = 1
    with pytest.raises(StoreUnavailable):
        await far_store.tickets.redeem(ticket)
    assert await far_store.tickets.redeem(ticket) is None


async def test_an_expired_one_is_none_and_goes(store: Store, owner: Connection) -> None:
    expired, kept = await issue(store), await issue(store)
    await owner.execute(
        "UPDATE agentws.ticket SET expires_at = clock_timestamp() WHERE hash = $1",
        hashlib.sha256(expired.encode()).digest(),
    )
    assert await store.tickets.redeem(expired) is None
    assert await store.nodes.purge(older_than_s=0, limit=9) == 0
    assert await owner.fetchval("SELECT count(*) FROM agentws.ticket") == 1
    assert await store.tickets.redeem(kept) is not None


@pytest.mark.parametrize("text", ["", "x", "\0", "é", "x" * 10_000])
async def test_another_text_is_no_ticket(store: Store, text: str) -> None:
    await issue(store)
    assert await store.tickets.redeem(text) is None
