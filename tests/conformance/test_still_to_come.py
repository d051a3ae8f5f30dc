"""What is named by the page and not built yet is answered `not_implemented` and does nothing. A row leaves this file
when its feature comes."""

import pytest

from .client import Server, connect, fresh
from .shapes import Frame


@pytest.mark.parametrize(
    "frame",
    [
        {"type": "update_thread", "payload": {"title": "new"}},
        {"type": "list_threads"},
        {"type": "subscribe_threads"},
        {"type": "switch_thread"},
        {"type": "get_thread_history"},
        {"type": "delete_thread"},
        {"type": "authenticate", "payload": {"token": "some-token"}},
        {"type": "respond", "payload": {"run_id": "r", "interrupt_id": "i", "status": "approved"}},
        {"type": "user_message", "payload": {"content": "hi", "if_busy": "reject"}},
        {"type": "user_message", "payload": {"content": "hi", "if_busy": "interrupt"}},
        {"type": "user_message", "payload": {"content": "hi", "on_disconnect": "stop"}},
    ],
    ids=lambda frame: "-".join([frame["type"], *map(str, frame.get("payload", {}))]),
)
async def test_what_is_not_built_yet_is_not_implemented(server: Server, frame: Frame) -> None:
    async with connect(server) as client:
        thread_id = (await client.new_thread(fresh("t")))["thread_id"]
        await client.refused(frame | {"thread_id": thread_id}, "not_implemented")
        _, events = await client.replay(thread_id)
        assert events == []
        await client.still_serves()
