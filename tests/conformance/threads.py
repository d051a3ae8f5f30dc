"""What a user asks about threads, each with the answer that the page promises."""

from typing import Any

from .client import Client
from .shapes import Frame

__all__ = ["delete", "followed", "history", "listed", "pages", "switch", "update"]


async def update(client: Client, thread_id: str, **fields: Any) -> Frame:
    """The thread's new description."""
    asked = {"type": "update_thread", "payload": {"thread_id": thread_id, **fields}}
    thread: Frame = (await client.granted(asked, "thread_updated"))["thread"]
    assert thread["thread_id"] == thread_id
    return thread


async def listed(client: Client, **options: Any) -> Frame:
    """A `thread_list`, latest first."""
    answer = await client.granted({"type": "list_threads", "payload": options}, "thread_list")
    moments = [thread["updated_at"] for thread in answer["threads"]]
    assert moments == sorted(moments, reverse=True)
    return answer


async def history(client: Client, thread_id: str, **options: Any) -> Frame:
    """A `thread_history`."""
    asked = {"type": "get_thread_history", "payload": {"thread_id": thread_id, **options}}
    answer = await client.granted(asked, "thread_history")
    assert answer["thread_id"] == thread_id
    return answer


async def pages(client: Client, frame: Frame, field: str) -> list[list[Frame]]:
    """What the answers to `frame` hold in `field`, page after page, to the end."""
    found: list[list[Frame]] = []
    before: str | None = None
    while True:
        answer = await client.ask({"type": frame["type"], "payload": {**frame["payload"], "before": before}})
        assert answer["type"] != "error", answer
        found.append(answer[field])
        before = answer["next_before"]
        if before is None:
            return found
        assert answer[field], "an empty page with another one behind it"
        assert len(found) < 100, "pages without an end"


async def switch(client: Client, thread_id: str, **options: Any) -> tuple[Frame, Frame, list[Frame]]:
    """`thread_switched`, the `subscribed` that follows it, and the events up to `caught_up`."""
    asked = {"type": "switch_thread", "payload": {"thread_id": thread_id, **options}}
    switched = await client.granted(asked, "thread_switched")
    return switched, *await followed(client, switched)


async def followed(client: Client, switched: Frame) -> tuple[Frame, list[Frame]]:
    """What comes after a `thread_switched`: as after `subscribe`."""
    subscribed = await client.answer_to(switched["id"])
    assert subscribed["type"] == "subscribed", subscribed
    assert subscribed["thread_id"] == switched["thread"]["thread_id"]
    return subscribed, await client.caught_up(subscribed, subscribed["after_seq"])


async def delete(client: Client, thread_id: str) -> Frame:
    """The asker's own `thread_deleted`."""
    answer = await client.granted({"type": "delete_thread", "payload": {"thread_id": thread_id}}, "thread_deleted")
    assert answer["thread_id"] == thread_id
    return answer
