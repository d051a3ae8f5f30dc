"""Section 5: a reader who does not take what is sent costs others nothing, and gets everything once, in order, when he
reads again."""

import pytest

from .client import Server, connect, fresh
from .runs import streaming

LARGE = "x" * 400_000


async def test_who_stops_reading_for_a_while_misses_nothing(server: Server) -> None:
    user = fresh("u")
    async with connect(server, user) as writer, connect(server, user) as reader:
        thread_id = (await writer.new_thread())["thread_id"]
        subscribed, _ = await reader.replay(thread_id)
        reader.socket.transport.pause_reading()
        for number in range(10):
            accepted = await writer.start(f"{number} {LARGE}", thread_id=thread_id)
            await writer.ended(accepted["run_id"])
        last = await writer.start(**streaming(10), thread_id=thread_id)
        terminal = await writer.ended(last["run_id"])
        reader.socket.transport.resume_reading()
        assert await reader.ended(last["run_id"]) == terminal
        held = reader.reader(thread_id, after_seq=0, since=subscribed)
        assert [run.whole for run in held.runs.values()] == [True] * 11
        assert held.last_seq == terminal["seq"]


@pytest.mark.needs("agents")
async def test_who_reads_late_may_get_pieces_merged_and_never_changed(server: Server) -> None:
    user = fresh("u")
    async with connect(server, user) as writer, connect(server, user) as reader:
        thread_id = (await writer.new_thread())["thread_id"]
        subscribed, _ = await reader.replay(thread_id)
        reader.socket.transport.pause_reading()
        accepted = await writer.start("300", agent="stream", thread_id=thread_id)
        terminal = await writer.ended(accepted["run_id"])
        reader.socket.transport.resume_reading()
        await reader.ended(accepted["run_id"])
        held = reader.reader(thread_id, after_seq=0, since=subscribed)
        assert held.answer(accepted["run_id"]) == terminal["payload"]["response"]
