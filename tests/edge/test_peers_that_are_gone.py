"""What a client sent before it went away is carried out, and its connection is not kept for it."""

from agentws.app import Service

from ..peers import peer


async def test_a_thread_that_a_lost_client_followed_and_deleted_does_not_keep_its_connection(service: Service) -> None:
    async with peer(service) as client:
        accepted = await client.ask("hi", agent="echo", subscribe=False)
        client.gone = True
        client.send(type="ping")
        client.send(type="subscribe", thread_id=accepted["thread_id"])
        client.send(type="delete_thread", thread_id=accepted["thread_id"])
    assert len(service.connections) == 0
    assert service.feed is not None
    assert service.feed.subscriptions == 0
    async with peer(service) as client:
        client.send(type="list_threads")
        assert (await client.until_type("thread_list"))["threads"] == []
