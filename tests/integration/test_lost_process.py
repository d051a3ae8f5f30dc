"""A server that dies loses nothing: what was told stays, every run ends once, and what waited goes on."""

import asyncio
import signal
from pathlib import Path

from ..conformance.client import Client, connect
from ..conformance.shapes import TERMINAL, Frame
from ..processes import running
from .conftest import LEASE_TTL_S, Serve, answered_again


async def told(client: Client, run_id: str, *, until: str) -> list[Frame]:
    """The run's events up to the first of a type."""
    events = [await client.event(run_id)]
    while events[-1]["type"] != until:
        events.append(await client.event(run_id))
    return events


async def whole_thread(client: Client, thread_id: str, run_ids: list[str]) -> list[Frame]:
    """All events of a thread from its first, once these runs have ended; the reader holds them to the dense rule."""
    subscribed, _ = await client.replay(thread_id, after_seq=0)
    for run_id in run_ids:
        await client.ended(run_id)
    client.reader(thread_id, after_seq=0, since=subscribed)
    return client.events(thread_id, since=subscribed)


async def test_a_killed_server_on_its_embedded_database_goes_on_where_it_was(data_dir: Path) -> None:
    env = {"AGENTWS_DATA_DIR": str(data_dir), "AGENTWS_LEASE_TTL_S": LEASE_TTL_S}
    with running(env) as server:
        async with connect(server, "ada") as client:
            finished = await client.run("what is 12 * (3 + 4)?")
            thread_id = finished[0]["thread_id"]
            lost = await client.start("hi", agent="timeout", thread_id=thread_id, run_id="lost")
            before = await told(client, "lost", until="tool_executing")
            waiting = await client.start("behind it", agent="echo", thread_id=thread_id)
            queued = await client.event(waiting["run_id"], "agent_queued")
            server.kill()
        server.start()
        async with connect(server, "ada") as client:
            events = await whole_thread(client, thread_id, ["lost", waiting["run_id"]])
    assert events[: len(finished)] == finished
    assert [event for event in events if event in [*before, queued]] == [*before, queued]
    of_lost = [event for event in events if event["run_id"] == lost["run_id"]]
    assert [event["type"] for event in of_lost[-2:]] == ["tool_completed", "agent_error"]
    assert of_lost[-2]["payload"]["outcome"] == "unknown"
    assert of_lost[-1]["payload"]["code"] == "worker_lost"
    assert sum(event["type"] in TERMINAL for event in events) == 3
    assert events[-1]["payload"]["response"] == "behind it"


async def test_what_a_lost_run_had_written_is_its_response(serve: Serve) -> None:
    server = serve()
    async with connect(server, "ada") as client:
        accepted = await client.start("hi", agent="slow")
        await client.event(accepted["run_id"], "agent_message")
        server.kill()
    server.start()
    async with connect(server, "ada") as client:
        await client.replay(accepted["thread_id"])
        ended = await client.ended(accepted["run_id"])
        assert ended["payload"]["response"] == "started "
        assert ended["payload"]["retryable"] is True
        history = await client.run("what was said?", agent="history", thread_id=accepted["thread_id"])
        assert history[-1]["payload"]["response"] == '[["user", "hi"], ["assistant", "started "]]'


async def test_a_run_whose_agent_may_be_restarted_gets_a_second_attempt(serve: Serve) -> None:
    server = serve()
    async with connect(server, "ada") as client:
        accepted = await client.start("hi", agent="phoenix")
        await client.event(accepted["run_id"], "tool_executing")
        server.kill()
    server.start()
    async with connect(server, "ada") as client:
        events = await whole_thread(client, accepted["thread_id"], [accepted["run_id"]])
    assert [(event["type"], event["attempt"]) for event in events] == [
        ("agent_started", 1),
        ("agent_message", 1),
        ("tool_executing", 1),
        ("tool_completed", 1),
        ("agent_started", 2),
        ("agent_message", 2),
        ("agent_completed", 2),
    ]
    assert events[-1]["payload"]["response"] == ""


async def test_a_process_that_slept_past_its_lease_writes_nothing_more(serve: Serve) -> None:
    sleeper = serve()
    async with connect(sleeper, "ada") as client:
        accepted = await client.start("3000", agent="stream")
        await client.event(accepted["run_id"], "agent_message")
        other = serve()
        sleeper.signal(signal.SIGSTOP)
        try:
            async with connect(other, "ada") as reader:
                await reader.replay(accepted["thread_id"])
                ended = await reader.ended(accepted["run_id"])
                sleeper.signal(signal.SIGCONT)
                assert ended["payload"]["code"] == "worker_lost"
                # The sleeper's own client gets the end that the other process wrote.
                assert await client.ended(accepted["run_id"]) == ended
                after = await reader.run("next", agent="echo", thread_id=accepted["thread_id"])
                assert after[0]["seq"] == ended["seq"] + 1
        finally:
            sleeper.signal(signal.SIGCONT)


async def test_two_processes_on_one_database_show_each_other_s_events_and_stops(serve: Serve) -> None:
    first, second = serve(), serve()
    async with connect(first, "ada") as here, connect(second, "ada") as there:
        accepted = await here.start("hi", agent="slow")
        await there.replay(accepted["thread_id"])
        stop = await there.granted({"type": "stop_agent", "run_id": accepted["run_id"]}, "stop_accepted")
        assert stop["run_ids"] == [accepted["run_id"]]
        ended = await asyncio.gather(here.ended(accepted["run_id"]), there.ended(accepted["run_id"]))
        assert ended[0] == ended[1]
        assert ended[0]["type"] == "agent_stopped"


async def test_two_processes_on_one_data_directory_share_its_database(data_dir: Path) -> None:
    env = {
        "AGENTWS_DATA_DIR": str(data_dir),
        "AGENTWS_LEASE_TTL_S": LEASE_TTL_S,
        # It is asked again and again until the database is back.
        "AGENTWS_RATE_LIMIT_PER_S": "0",
    }
    with running(env) as owner, running(env) as other:
        async with connect(owner, "ada") as client:
            events = await client.run("hi", agent="echo")
        owner.kill()
        async with connect(other, "ada") as client:
            await answered_again(client)
            _, replayed = await client.replay(events[0]["thread_id"])
            assert replayed == events
