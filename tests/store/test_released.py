"""A run whose attempt was closed is given back once, waits for its time, and is claimed by one node only."""

import asyncio

import asyncpg
import pytest

from agentws.core.run import Claim, Ticket
from agentws.ports import Fenced, Stopping

from .conftest import ANN, BOB, NODE, OTHER_NODE, Connection, Store, T, piece, until_waiting


async def row(owner: Connection) -> tuple[int | None, int, int]:
    """Owner, fence and attempt of the one run that has not ended."""
    found = await owner.fetchrow("SELECT owner, fence, attempt FROM agentws.run_queue")
    assert found is not None
    return found["owner"], found["fence"], found["attempt"]


async def stop(store: Store, claim: Claim) -> None:
    stopped = await store.starts.stop(ANN, run_id=claim.run_id, run_no=None, thread_id=None, reason="enough")
    assert stopped.run_ids == [claim.run_id]
    assert stopped.running == [claim.run_no]


async def test_a_released_run_is_nobodys_and_waits_for_its_time(store: Store, owner: Connection) -> None:
    claim = await store.claimed()
    assert await store.starts.release(claim, delay_s=3600)
    assert await row(owner) == (0, 2, 1)
    assert await store.nodes.take_over(OTHER_NODE, orphans=[], limit=9) == []
    assert await store.nodes.claim_waiting(OTHER_NODE, ["demo"], limit=9) == []
    await owner.execute("UPDATE agentws.run_queue SET available_at = now()")
    [ticket] = await store.nodes.claim_waiting(OTHER_NODE, ["demo"], limit=9)
    assert ticket == Ticket(principal=ANN, thread_id=T, run_no=claim.run_no, fence=3, owner=OTHER_NODE, released=True)
    begun = await store.starts.begin(ticket)
    assert begun is not None
    assert (begun.lost, begun.released, begun.attempt, begun.ordinal, begun.fence) == (True, True, 1, 1, 3)


async def test_who_has_released_a_run_writes_nothing_more(store: Store) -> None:
    claim = await store.claimed()
    await store.starts.release(claim, delay_s=0)
    with pytest.raises(Fenced):
        await store.append(claim, 2, piece("late"))
    with pytest.raises(Fenced):
        await store.finish(claim)
    assert [kind for _, kind, _ in await store.events()] == ["agent_started"]


async def test_a_release_whose_answer_was_lost_may_be_repeated(store: Store, owner: Connection) -> None:
    claim = await store.claimed()
    assert await store.starts.release(claim, delay_s=0)
    assert await store.starts.release(claim, delay_s=3600)
    assert await row(owner) == (0, 2, 1)
    # The first call's time counts; once another has it, a late repeat changes nothing.
    [ticket] = await store.nodes.claim_waiting(OTHER_NODE, ["demo"], limit=9)
    assert not await store.starts.release(claim, delay_s=0)
    assert await row(owner) == (OTHER_NODE, ticket.fence, 1)


async def test_a_run_that_was_taken_over_or_has_ended_is_not_released(store: Store, owner: Connection) -> None:
    claim = await store.claimed()
    [ticket] = await store.nodes.take_over(OTHER_NODE, orphans=[], limit=9)
    assert not await store.starts.release(claim, delay_s=0)
    assert await row(owner) == (OTHER_NODE, 2, 1)
    held = await store.starts.begin(ticket)
    assert held is not None
    await store.finish(held)
    assert not await store.starts.release(held, delay_s=0)


async def test_a_run_that_is_to_stop_is_not_released(store: Store, owner: Connection) -> None:
    claim = await store.claimed()
    await stop(store, claim)
    with pytest.raises(Stopping, match="enough"):
        await store.starts.release(claim, delay_s=0)
    assert await row(owner) == (NODE, 1, 1)


async def test_a_released_run_that_is_to_stop_is_taken_at_once(store: Store) -> None:
    claim = await store.claimed()
    await store.starts.release(claim, delay_s=3600)
    await stop(store, claim)
    [ticket] = await store.nodes.take_over(OTHER_NODE, orphans=[], limit=9)
    begun = await store.starts.begin(ticket)
    assert begun is not None
    assert (begun.lost, begun.stop_reason) == (True, "enough")
    await store.finish(begun, stopped=True)
    assert [kind for _, kind, _ in await store.events()] == ["agent_started", "agent_stopped"]


async def test_a_released_run_keeps_its_thread_and_goes_before_what_waits(store: Store) -> None:
    waiting = await store.accept(BOB, new=True)
    claim = await store.claimed()
    await store.starts.release(claim, delay_s=0)
    behind = await store.accept(owner=NODE)
    assert (behind.status, behind.position, behind.claim) == ("queued", 1, None)
    tickets = await store.nodes.claim_waiting(OTHER_NODE, ["demo"], limit=1)
    assert [ticket.run_no for ticket in tickets] == [claim.run_no]
    tickets = await store.nodes.claim_waiting(OTHER_NODE, ["demo"], limit=9)
    assert [(ticket.run_no, ticket.released) for ticket in tickets] == [(waiting.run_no, False)]


async def known(store: Store, owner: Connection, node: int, *agents: str, for_s: int = 61, gone_s: int = 0) -> None:
    """A node that has known these agents for so long, and left so long ago."""
    await store.nodes.register(node, "host", ttl_s=60, agents=agents)
    await owner.execute(f"UPDATE agentws.node SET started_at = now() - interval '{for_s} s' WHERE node_id = {node}")
    if gone_s:
        await owner.execute(
            f"UPDATE agentws.node SET expires_at = now() - interval '{gone_s} s' WHERE node_id = {node}"
        )


async def age(owner: Connection, seconds: int) -> None:
    """All runs could have been claimed for so long."""
    await owner.execute(f"UPDATE agentws.run_queue SET available_at = now() - interval '{seconds} s'")


async def test_a_lost_run_is_left_to_who_can_restart_it_where_there_is_one(store: Store, owner: Connection) -> None:
    claim = await store.claimed()
    await known(store, owner, OTHER_NODE, "other")
    await known(store, owner, 33, "other", "demo")
    assert await store.nodes.take_over(OTHER_NODE, orphans=[], limit=9) == []
    [ticket] = await store.nodes.take_over(33, orphans=[], limit=9)
    assert ticket.run_no == claim.run_no
    await store.nodes.remove(33)
    [ticket] = await store.nodes.take_over(OTHER_NODE, orphans=[], limit=9)
    assert ticket.run_no == claim.run_no


async def test_a_lost_run_that_is_to_stop_is_anybodys(store: Store, owner: Connection) -> None:
    claim = await store.claimed()
    await known(store, owner, OTHER_NODE, "other")
    await known(store, owner, 33, "demo")
    await stop(store, claim)
    assert len(await store.nodes.take_over(OTHER_NODE, orphans=[], limit=9)) == 1


@pytest.mark.parametrize("released", [True, False])
async def test_a_run_whose_agent_nobody_has_known_for_a_minute_is_anybodys(
    store: Store, owner: Connection, released: bool
) -> None:
    if released:
        run_no = (claim := await store.claimed()).run_no
        await store.starts.release(claim, delay_s=0)
    else:
        run_no = (await store.accept(new=True)).run_no
    await known(store, owner, OTHER_NODE, "other")
    assert await store.nodes.claim_waiting(OTHER_NODE, ["other"], limit=9) == []
    await age(owner, 61)
    [ticket] = await store.nodes.claim_waiting(OTHER_NODE, ["other"], limit=9)
    assert (ticket.run_no, ticket.released) == (run_no, released)
    assert await store.starts.begin(ticket) is not None


async def test_a_run_is_left_to_who_knows_its_agent_however_long_it_waits(store: Store, owner: Connection) -> None:
    await store.accept(new=True)
    await age(owner, 3600)

    async def nobody_may() -> None:
        assert await store.nodes.claim_waiting(OTHER_NODE, ["other"], limit=9) == []

    # Who has just come leaves the others a minute to come too.
    await known(store, owner, OTHER_NODE, "other", for_s=59)
    await nobody_may()
    await owner.execute("UPDATE agentws.node SET started_at = now() - interval '61 s'")
    # It has no slot.
    await known(store, owner, 33, "demo")
    await nobody_may()
    # It is replaced.
    await store.nodes.remove(33)
    await nobody_may()
    await owner.execute("UPDATE agentws.node SET expires_at = now() - interval '61 s' WHERE node_id = 33")
    # Code of before does not tell what it knows.
    await owner.execute("SELECT agentws.register_node(44, 'host', interval '1 minute')")
    await nobody_may()
    await store.nodes.remove(44)
    await nobody_may()
    await owner.execute("UPDATE agentws.node SET expires_at = now() - interval '61 s' WHERE node_id = 44")
    assert len(await store.nodes.claim_waiting(OTHER_NODE, ["other"], limit=9)) == 1


async def test_two_who_claim_at_once_never_both_get_a_released_run(store: Store, owner: Connection) -> None:
    claims = [await store.claimed(thread=f"t{number}") for number in range(10)]
    for claim in claims:
        await store.starts.release(claim, delay_s=0)
    async with owner.transaction():
        await owner.execute("LOCK TABLE agentws.thread_head IN EXCLUSIVE MODE")
        claiming = [
            asyncio.ensure_future(store.nodes.claim_waiting(node, ["demo"], limit=99)) for node in (OTHER_NODE, 33)
        ]
        await until_waiting(owner, 2)
    one, two = await asyncio.gather(*claiming)
    assert sorted(ticket.run_no for ticket in (*one, *two)) == [claim.run_no for claim in claims]


async def test_a_thread_with_a_released_run_can_be_deleted(store: Store, owner: Connection) -> None:
    claim = await store.claimed()
    await store.starts.release(claim, delay_s=0)
    deleted = await store.threads.delete(ANN, T)
    assert deleted.ended == [(claim.run_no, "user_message")]
    assert not await store.starts.release(claim, delay_s=0)
    assert await store.nodes.claim_waiting(OTHER_NODE, ["demo"], limit=9) == []
    assert await owner.fetchval("SELECT status FROM agentws.run") == "stopped"


async def test_code_of_before_finds_a_released_run(store: Store, owner: Connection) -> None:
    """Two releases work on one database during an update, and the older may be the last that is left."""
    claim = await store.claimed()
    await store.starts.release(claim, delay_s=3600)
    taken = await owner.fetch("SELECT * FROM agentws.take_over(33, '{}', '{}', '{}', 9)")
    assert [each["run_no"] for each in taken] == [claim.run_no]


async def test_a_release_is_its_own_users(store: Store, owner: Connection) -> None:
    claim = await store.claimed()
    sql = "SELECT outcome FROM agentws.release_run('', 'bob', $1, $2, 1, interval '0')"
    assert await owner.fetchval(sql, T, claim.run_no) == "fenced"
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await store.pool.system("SELECT FROM agentws.run_queue")
    assert await row(owner) == (NODE, 1, 1)
