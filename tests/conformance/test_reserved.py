"""What is named by the page and reserved there is answered `not_implemented` and does nothing."""

import pytest

from .client import Server, connect, fresh
from .shapes import Frame


@pytest.mark.parametrize(
    "frame",
    [
        {"type": "subscribe_threads"},
        {"type": "respond", "payload": {"run_id": "r", "interrupt_id": "i", "status": "approved"}},
    ],
    ids=lambda frame: str(frame["type"]),
)
async def test_what_is_reserved_is_not_implemented(server: Server, frame: Frame) -> None:
    async with connect(server) as client:
        thread_id = (await client.new_thread(fresh("t")))["thread_id"]
        await client.refused(frame | {"thread_id": thread_id}, "not_implemented")
        _, events = await client.replay(thread_id)
        assert events == []
        await client.still_serves()
