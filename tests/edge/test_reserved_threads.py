"""The thread that the original dialect reserves for a connection is made once, by its first start (section 7)."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import jwt

from agentws.app import Service

from ..conftest import StartService
from ..faults import Line
from ..peers import Peer, peer

SECRET = "a secret of these tests, of 32 bytes and more"


@asynccontextmanager
async def original(service: Service) -> AsyncIterator[tuple[Peer, str]]:
    """A connection that speaks the original dialect, and the thread that is reserved for it."""
    token = jwt.encode({"sub": "ada", "exp": int(time.time()) + 3600}, SECRET, "HS256")
    async with peer(service, subprotocols=[f"jwt.development.{token}"]) as client:
        yield client, (await client.until_type("handshake_response"))["thread_id"]


async def delete(client: Peer, thread_id: str) -> None:
    client.send(type="delete_thread", thread_id=thread_id)
    await client.until_type("thread_deleted")


async def test_a_start_that_names_it_makes_it_and_once_deleted_it_is_not_found(start_service: StartService) -> None:
    service = await start_service(auth="jwt", jwt_secret=SECRET)
    async with original(service) as (client, reserved):
        await client.run("hi", agent="echo", thread_id=reserved)
        await delete(client, reserved)
        assert (await client.ask("hi", agent="echo", thread_id=reserved))["code"] == "thread_not_found"
        accepted = await client.ask("hi", agent="echo")
        assert accepted["type"] == "request_accepted"
        assert accepted["thread_id"] != reserved


async def test_one_that_create_thread_made_is_not_made_again_once_deleted(start_service: StartService) -> None:
    service = await start_service(auth="jwt", jwt_secret=SECRET)
    async with original(service) as (client, reserved):
        client.send(type="create_thread", thread_id=reserved)
        await client.until_type("thread_created")
        await delete(client, reserved)
        assert (await client.ask("hi", agent="echo", thread_id=reserved))["code"] == "thread_not_found"


async def test_one_that_was_made_in_doubt_and_deleted_elsewhere_gives_way_to_a_new_one(
    start_service: StartService, line: Line
) -> None:
    service = await start_service(auth="jwt", jwt_secret=SECRET)
    async with original(service) as (client, reserved), original(service) as (other, _):
        line.lose_answers("accept", 3)
        assert (await client.ask("hi", agent="echo"))["code"] == "database_unavailable"
        await delete(other, reserved)
        accepted = await client.ask("hi", agent="echo")
        assert accepted["type"] == "request_accepted"
        assert accepted["thread_id"] != reserved
