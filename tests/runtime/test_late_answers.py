"""An answer of the database that was lost and asked for again comes late: what is told live is what the journal has."""

from ..conftest import StartService
from ..faults import Line
from ..peers import peer


async def test_a_place_in_the_queue_that_has_changed_meanwhile_is_told_as_it_was_written(
    start_service: StartService, line: Line
) -> None:
    # Of what the other one does this one hears nothing.
    here, there = await start_service(poll_interval_ms=60_000.0), await start_service()
    async with peer(here) as client, peer(there) as other:
        first = await client.ask("hi", agent="slow")
        await client.until_type("agent_message")
        before = await client.ask("a", thread_id=first["thread_id"], agent="echo")

        async def stop_the_one_before() -> None:
            other.send(type="stop_agent", run_id=before["run_id"])
            await other.until_type("stop_accepted")

        line.on_loss = stop_the_one_before
        line.lose_answers("accept")
        late = await client.ask("b", thread_id=first["thread_id"], agent="echo")
        assert (late["position"], late["duplicate"]) == (1, False)
        told = await client.until(lambda frame: frame["type"] == "agent_queued" and frame["run_id"] == late["run_id"])
        assert told["payload"] == {"position": 2}
        other.send(type="subscribe", thread_id=first["thread_id"])
        read = await other.until(lambda frame: frame.get("event_id") == told["event_id"])
        assert read == told
