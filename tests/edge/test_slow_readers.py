"""What a slow reader gets is in order too."""

import pytest

from agentws.app import Service

from ..peers import peer


@pytest.mark.parametrize("busy", [False, True])
async def test_the_answer_to_a_start_comes_before_the_events_of_its_run_also_to_a_slow_reader(
    service: Service, busy: bool
) -> None:
    async with peer(service) as client, peer(service) as other:
        client.send(type="create_thread", thread_id="t")
        client.send(type="subscribe", thread_id="t")
        await client.until_type("caught_up")
        client.reading.clear()
        client.send(type="ping")
        # Its events wait to be sent before the answer is made.
        first = await other.ask("hi", agent="slow" if busy else "echo", thread_id="t")
        if not busy:
            await other.ended(first["run_id"])
        client.send(type="user_message", content="hi", agent="echo", thread_id="t", run_id="mine")
        await other.until(lambda frame: frame.get("run_id") == "mine")
        client.reading.set()
        if busy:
            other.send(type="stop_agent", run_id=first["run_id"])
        await client.ended("mine")
        of_mine = [frame["type"] for frame in client.frames if frame.get("run_id") == "mine"]
        assert of_mine[0] == "request_accepted"
        seqs = [frame["seq"] for frame in client.frames if "event_id" in frame]
        assert seqs == [*range(1, len(seqs) + 1)]
