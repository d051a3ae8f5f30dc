"""A run is worked on by one node at a time: one that holds its lease, or the one that took over from a lost one."""

import asyncio
from collections.abc import Sequence
from typing import Any

import asyncpg
import pytest

from agentws.core.run import Claim, RunKey, Ticket
from agentws.ports import Fenced
from agentws.store.migrate import NEWEST

from .conftest import ANN, BOB, NODE, OTHER_NODE, Connection, Store, T, piece, until_waiting

TTL_S = 3600.0


def key(claim: Claim) -> RunKey:
    return RunKey(claim.principal.tenant_id, claim.principal.user_id, claim.run_no)


async def expire(owner: Connection, node: int, *, since: str = "1 second") -> None:
    """Its lease has run out by the clock of the database."""
    sql = f"UPDATE agentws.node SET expires_at = clock_timestamp() - interval '{since}' WHERE node_id = $1"
    assert await owner.execute(sql, node) == "UPDATE 1"


async def holders(owner: Connection) -> list[tuple[Any, ...]]:
    """Run, owner and fence of what waits or runs, in the order of acceptance."""
    rows = await owner.fetch("SELECT run_no, owner, fence FROM agentws.run_queue ORDER BY run_no")
    return [tuple(row) for row in rows]


async def claim_waiting(store: Store, node: int = NODE, agents: Sequence[str] = ("demo",), limit: int = 9) -> Any:
    return [ticket.run_no for ticket in await store.nodes.claim_waiting(node, agents, limit=limit)]


# Leases


async def test_a_lease_is_renewed_by_the_clock_of_the_database(store: Store, owner: Connection) -> None:
    await store.nodes.register(NODE, "host:1", ttl_s=TTL_S, agents=["demo"])
    row = await owner.fetchrow("SELECT name, expires_at - started_at AS lasts FROM agentws.node")
    assert row is not None
    assert row["name"] == "host:1"
    assert TTL_S <= row["lasts"].total_seconds() < TTL_S + 1
    assert (await store.nodes.renew(NODE, ttl_s=2 * TTL_S)).alive
    left = await owner.fetchval("SELECT expires_at - clock_timestamp() FROM agentws.node")
    assert 2 * TTL_S - 60 < left.total_seconds() <= 2 * TTL_S


async def test_a_lease_that_has_run_out_or_never_was_cannot_be_renewed(store: Store, owner: Connection) -> None:
    assert not (await store.nodes.renew(NODE, ttl_s=TTL_S)).alive
    await store.nodes.register(NODE, "host:1", ttl_s=TTL_S, agents=["demo"])
    await expire(owner, NODE)
    assert not (await store.nodes.renew(NODE, ttl_s=TTL_S)).alive
    assert await owner.fetchval("SELECT expires_at < clock_timestamp() FROM agentws.node")
    await store.nodes.remove(NODE)
    assert not (await store.nodes.renew(NODE, ttl_s=TTL_S)).alive


async def test_a_node_is_registered_once(store: Store) -> None:
    await store.nodes.register(NODE, "host:1", ttl_s=TTL_S, agents=["demo"])
    with pytest.raises(asyncpg.UniqueViolationError):
        await store.nodes.register(NODE, "host:2", ttl_s=TTL_S, agents=["demo"])


async def test_a_renewal_brings_the_runs_of_this_node_and_the_marks_to_stop(store: Store) -> None:
    await store.nodes.register(NODE, "host:1", ttl_s=TTL_S, agents=["demo"])
    anns, bobs = await store.claimed(ANN), await store.claimed(BOB)
    await store.accept(ANN)
    elsewhere = await store.claimed(BOB, "u", owner=OTHER_NODE)
    for claim in (bobs, elsewhere):
        await store.starts.stop(BOB, run_id=claim.run_id, run_no=None, thread_id=None, reason="enough")
    renewal = await store.nodes.renew(NODE, ttl_s=TTL_S)
    assert renewal.alive
    assert renewal.owned == {key(anns), key(bobs)}
    assert renewal.stops == {key(bobs)}
    await store.finish(bobs, stopped=True)
    renewal = await store.nodes.renew(NODE, ttl_s=TTL_S)
    assert renewal.owned == {key(anns)}
    assert not renewal.stops


# Taking over


async def test_only_runs_of_dead_nodes_are_taken_over_and_their_fences_raised(store: Store, owner: Connection) -> None:
    await store.nodes.register(NODE, "dead", ttl_s=TTL_S, agents=["demo"])
    await store.nodes.register(OTHER_NODE, "alive", ttl_s=TTL_S, agents=["demo"])
    lost = await store.claimed(ANN)
    waits = await store.accept(ANN)
    never_registered = await store.claimed(BOB, owner=33)
    kept = await store.claimed(BOB, "u", owner=OTHER_NODE)
    await expire(owner, NODE)
    tickets = await store.nodes.take_over(44, orphans=[], limit=9)
    assert sorted(tickets, key=lambda ticket: ticket.run_no) == [
        Ticket(principal=ANN, thread_id=T, run_no=lost.run_no, fence=2, owner=44),
        Ticket(principal=BOB, thread_id=T, run_no=never_registered.run_no, fence=2, owner=44),
    ]
    assert await holders(owner) == [
        (lost.run_no, 44, 2), (waits.run_no, None, 0), (never_registered.run_no, 44, 2), (kept.run_no, OTHER_NODE, 1),
    ]  # fmt: skip


async def test_a_node_that_gave_up_its_lease_is_dead_at_once(store: Store) -> None:
    await store.nodes.register(NODE, "host:1", ttl_s=TTL_S, agents=["demo"])
    claim = await store.claimed()
    assert await store.nodes.take_over(OTHER_NODE, orphans=[], limit=9) == []
    await store.nodes.remove(NODE)
    [ticket] = await store.nodes.take_over(OTHER_NODE, orphans=[], limit=9)
    assert ticket.run_no == claim.run_no


async def test_orphans_are_taken_anew_by_their_own_node_only(store: Store, owner: Connection) -> None:
    for node in (NODE, OTHER_NODE):
        await store.nodes.register(node, "alive", ttl_s=TTL_S, agents=["demo"])
    orphan, known = await store.claimed(ANN), await store.claimed(BOB)
    assert await store.nodes.take_over(OTHER_NODE, orphans=[key(orphan)], limit=9) == []
    [ticket] = await store.nodes.take_over(NODE, orphans=[key(orphan)], limit=9)
    assert (ticket.run_no, ticket.fence) == (orphan.run_no, 2)
    assert await holders(owner) == [(orphan.run_no, NODE, 2), (known.run_no, NODE, 1)]
    with pytest.raises(Fenced):
        await store.append(orphan, 2, piece("late"))
    assert (await store.append(known, 2, piece("x"))).last_seq == 2


async def test_an_orphan_is_lost_only_where_something_was_written_for_it(store: Store) -> None:
    await store.nodes.register(NODE, "host:1", ttl_s=TTL_S, agents=["demo"])
    untouched, touched = await store.claimed(ANN), await store.claimed(BOB)
    await store.append(touched, 2, piece("x"))
    for claim, lost in ((untouched, False), (touched, True)):
        [ticket] = await store.nodes.take_over(NODE, orphans=[key(claim)], limit=9)
        begun = await store.starts.begin(ticket)
        assert begun is not None
        assert (ticket.orphan, begun.lost, begun.fence, begun.seq) == (True, lost, 2, 1)


async def test_the_next_run_of_an_ending_whose_answer_was_lost_is_an_orphan_that_nobody_began(store: Store) -> None:
    await store.nodes.register(NODE, "host:1", ttl_s=TTL_S, agents=["demo"])
    claim = await store.claimed()
    await store.accept()
    following = (await store.finish(claim, owner=NODE)).next
    assert following is not None
    [ticket] = await store.nodes.take_over(NODE, orphans=[key(following)], limit=9)
    begun = await store.starts.begin(ticket)
    assert begun is not None
    assert (begun.lost, begun.fence, begun.ordinal) == (False, 2, 2)


async def test_a_run_of_a_dead_node_is_lost_also_where_nothing_was_written_for_it(store: Store) -> None:
    await store.claimed()
    [ticket] = await store.nodes.take_over(OTHER_NODE, orphans=[], limit=9)
    begun = await store.starts.begin(ticket)
    assert begun is not None
    assert (ticket.orphan, begun.lost) == (False, True)


async def test_no_more_are_taken_over_than_were_asked_for_the_oldest_first(store: Store) -> None:
    claims = [await store.claimed(thread=name) for name in "abc"]
    taken = await store.nodes.take_over(OTHER_NODE, orphans=[], limit=2)
    assert [ticket.run_no for ticket in taken] == [claim.run_no for claim in claims[:2]]


async def test_a_stop_mark_stays_on_a_run_that_is_taken_over(store: Store) -> None:
    claim = await store.claimed()
    await store.starts.stop(ANN, run_id=claim.run_id, run_no=None, thread_id=None, reason="enough")
    [ticket] = await store.nodes.take_over(OTHER_NODE, orphans=[], limit=9)
    begun = await store.starts.begin(ticket)
    assert begun is not None
    assert begun.stop_reason == "enough"
    assert (await store.append(begun, 2, piece("x"))).stop_reason == "enough"


async def test_two_who_take_over_at_once_never_both_get_a_run(store: Store, owner: Connection) -> None:
    claims = [await store.claimed(thread=f"t{number}") for number in range(10)]
    async with owner.transaction():
        await owner.execute("LOCK TABLE agentws.thread_head IN EXCLUSIVE MODE")
        taking = [asyncio.ensure_future(store.nodes.take_over(node, orphans=[], limit=99)) for node in (22, 33)]
        await until_waiting(owner, 2)
    one, two = await asyncio.gather(*taking)
    assert sorted(ticket.run_no for ticket in (*one, *two)) == [claim.run_no for claim in claims]
    assert {ticket.fence for ticket in (*one, *two)} == {2}
    assert await holders(owner) == sorted(
        (ticket.run_no, node, 2) for node, tickets in ((22, one), (33, two)) for ticket in tickets
    )


async def test_who_saw_a_lost_run_before_another_took_it_over_does_not_get_it(store: Store, owner: Connection) -> None:
    claim = await store.claimed()
    async with owner.transaction():
        await owner.execute("LOCK TABLE agentws.thread_head IN EXCLUSIVE MODE")
        late = asyncio.ensure_future(store.nodes.take_over(OTHER_NODE, orphans=[], limit=9))
        await until_waiting(owner, 1)
        assert len(await owner.fetch("SELECT * FROM agentws.take_over(33, '{}', '{}', '{}', 9)")) == 1
    assert await late == []
    assert await holders(owner) == [(claim.run_no, 33, 2)]


async def test_a_run_whose_thread_is_being_written_is_left_for_the_next_look(store: Store, owner: Connection) -> None:
    await store.claimed()
    async with owner.transaction():
        await owner.execute("SELECT FROM agentws.thread_head FOR UPDATE")
        assert await store.nodes.take_over(OTHER_NODE, orphans=[], limit=9) == []
    assert len(await store.nodes.take_over(OTHER_NODE, orphans=[], limit=9)) == 1


async def test_rows_of_long_dead_nodes_go_when_nothing_is_theirs_any_more(store: Store, owner: Connection) -> None:
    for node in (NODE, OTHER_NODE, 33):
        await store.nodes.register(node, "host", ttl_s=TTL_S, agents=["demo"])
    claim = await store.claimed()
    await expire(owner, NODE, since="2 hours")
    await expire(owner, 33, since="1 minute")
    async with owner.transaction():
        await owner.execute("SELECT FROM agentws.thread_head FOR UPDATE")
        await store.nodes.take_over(OTHER_NODE, orphans=[], limit=9)
    assert await owner.fetchval("SELECT count(*) FROM agentws.node") == 3
    [ticket] = await store.nodes.take_over(OTHER_NODE, orphans=[], limit=9)
    assert ticket.run_no == claim.run_no
    assert await owner.fetchval("SELECT array_agg(node_id ORDER BY node_id) FROM agentws.node") == [OTHER_NODE, 33]


# Claiming what waits


async def test_the_longest_waiting_run_is_claimed_first(store: Store, owner: Connection) -> None:
    waiting = [(await store.accept(whose, name, new=True)).run_no for whose in (BOB, ANN) for name in ("u", "t")]
    assert await claim_waiting(store, limit=3) == waiting[:3]
    assert await claim_waiting(store) == waiting[3:]
    assert await claim_waiting(store) == []
    assert await holders(owner) == [(run_no, NODE, 1) for run_no in waiting]


async def test_a_ticket_holds_the_principal_of_the_row(store: Store) -> None:
    waiting = {ANN: await store.accept(ANN, new=True), BOB: await store.accept(BOB, new=True)}
    assert list(await store.nodes.claim_waiting(NODE, ["demo"], limit=9)) == [
        Ticket(principal=whose, thread_id=T, run_no=accepted.run_no, fence=1, owner=NODE)
        for whose, accepted in waiting.items()
    ]


async def test_in_a_thread_only_the_first_in_turn_is_claimed_and_only_when_it_is_idle(store: Store) -> None:
    claim = await store.claimed()
    second, third = await store.accept(), await store.accept()
    assert await claim_waiting(store) == []
    await store.finish(claim)
    assert await claim_waiting(store) == [second.run_no]
    assert await claim_waiting(store) == []
    await store.starts.stop(ANN, run_id=third.run_id, run_no=None, thread_id=None, reason="user")
    assert await claim_waiting(store) == []


async def test_runs_of_agents_that_a_node_has_not_are_left_and_not_overtaken(store: Store) -> None:
    other = await store.accept(agent="other", new=True)
    await store.accept(agent="demo")
    elsewhere = await store.accept(thread="u", agent="demo", new=True)
    assert await claim_waiting(store, agents=[]) == []
    assert await claim_waiting(store, agents=["demo"]) == [elsewhere.run_no]
    assert await claim_waiting(store, agents=["demo", "other"]) == [other.run_no]


async def test_a_run_is_not_claimed_before_its_time(store: Store, owner: Connection) -> None:
    accepted = await store.accept(new=True)
    await owner.execute("UPDATE agentws.run_queue SET available_at = now() + interval '1 hour'")
    assert await claim_waiting(store) == []
    await owner.execute("UPDATE agentws.run_queue SET available_at = now()")
    assert await claim_waiting(store) == [accepted.run_no]


async def test_a_claimed_thread_is_busy_and_counts_its_waiting_runs(store: Store, owner: Connection) -> None:
    accepted = await store.accept(new=True)
    await claim_waiting(store)
    row = await owner.fetchrow("SELECT running_run_no, waiting FROM agentws.thread_head")
    assert row is not None
    assert tuple(row) == (accepted.run_no, 0)
    assert (await store.accept(owner=NODE)).position == 1


async def test_two_who_claim_at_once_never_both_get_a_run(store: Store, owner: Connection) -> None:
    waiting = [(await store.accept(thread=f"t{number}", new=True)).run_no for number in range(10)]
    async with owner.transaction():
        await owner.execute("LOCK TABLE agentws.thread_head IN EXCLUSIVE MODE")
        claiming = [asyncio.ensure_future(claim_waiting(store, node)) for node in (NODE, OTHER_NODE, 33)]
        await until_waiting(owner, 3)
    claimed = await asyncio.gather(*claiming)
    got = [run_no for each in claimed for run_no in each]
    assert len(got) == len(set(got))
    assert sorted([*got, *await claim_waiting(store)]) == waiting
    assert {fence for _, _, fence in await holders(owner)} == {1}


async def test_who_saw_a_waiting_run_before_another_claimed_it_does_not_get_it(store: Store, owner: Connection) -> None:
    accepted = await store.accept(new=True)
    async with owner.transaction():
        await owner.execute("LOCK TABLE agentws.thread_head IN EXCLUSIVE MODE")
        late = asyncio.ensure_future(claim_waiting(store))
        await until_waiting(owner, 1)
        assert len(await owner.fetch("SELECT * FROM agentws.claim_waiting(33, '{demo}', 9)")) == 1
    assert await late == []
    assert await holders(owner) == [(accepted.run_no, 33, 1)]


async def test_nothing_is_claimed_in_a_thread_that_has_become_busy_meanwhile(store: Store, owner: Connection) -> None:
    await store.accept(new=True)
    async with owner.transaction():
        await owner.execute("LOCK TABLE agentws.thread_head IN EXCLUSIVE MODE")
        late = asyncio.ensure_future(claim_waiting(store))
        await until_waiting(owner, 1)
        await owner.execute("UPDATE agentws.thread_head SET running_run_no = 4")
    assert await late == []


async def test_a_run_accepted_while_its_thread_is_claimed_waits(store: Store, owner: Connection) -> None:
    first = await store.accept(new=True)
    async with owner.transaction():
        await owner.execute("LOCK TABLE agentws.thread_head IN EXCLUSIVE MODE")
        both = [asyncio.ensure_future(claim_waiting(store)), asyncio.ensure_future(store.accept(owner=NODE))]
        await until_waiting(owner, 2)
    await asyncio.gather(*both)
    row = await owner.fetchrow("SELECT running_run_no, waiting, last_seq FROM agentws.thread_head")
    assert row is not None
    assert tuple(row) in ((first.run_no, 1, 2), (None, 2, 2))
    await claim_waiting(store)
    assert (await holders(owner))[0] == (first.run_no, NODE, 1)
    assert (await holders(owner))[1][1] is None


async def test_the_schema_is_current_while_this_code_can_read_it(store: Store, owner: Connection) -> None:
    assert await store.nodes.schema_is_current()
    newer = "INSERT INTO agentws.schema_migration (number, name, readable_from) VALUES ($1, 'newer', $2)"
    await owner.execute(newer, NEWEST + 1, NEWEST)
    assert await store.nodes.schema_is_current()
    await owner.execute(newer, NEWEST + 2, NEWEST + 1)
    assert not await store.nodes.schema_is_current()
    await owner.execute("DELETE FROM agentws.schema_migration WHERE number >= $1", NEWEST + 1)
    await owner.execute("UPDATE agentws.schema_migration SET number = 0 WHERE number = $1", NEWEST)
    assert not await store.nodes.schema_is_current()
    await owner.execute("DROP SCHEMA agentws CASCADE")
    assert not await store.nodes.schema_is_current()
