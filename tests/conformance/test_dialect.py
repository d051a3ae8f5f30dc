"""Section 7, the original dialect: a handshake, a thread reserved for the connection, and all else as everywhere."""

import contextlib
from collections.abc import AsyncIterator

import pytest

from .client import SUBPROTOCOL, Client, JwtServer, connect, dial, fresh
from .runs import QUESTION
from .shapes import CRITICAL, Frame
from .threads import delete, listed
from .tokens import bearer, token

WORDS = ["jwt.development.", "jwt-auth.staging.", "bearer.production."]


def acknowledged(thread_id: str) -> Frame:
    return {"type": "handshake_acknowledged", "thread_id": thread_id}


@contextlib.asynccontextmanager
async def original(
    server: JwtServer, user: str | None = None, *, form: str = WORDS[0]
) -> AsyncIterator[tuple[Client, Frame]]:
    """A connection that speaks the dialect, and its `handshake_response`."""
    name = fresh("jwt") if user is None else user
    async with dial(server.ws_url, subprotocols=[form + token(server, name)]) as client:
        response = await client.next(lambda frame: frame["type"] == "handshake_response", "handshake_response")
        assert client.log.index(response) == 1
        yield client, response


@pytest.mark.parametrize("form", WORDS)
async def test_the_server_offers_a_thread_after_connection_established(jwt_server: JwtServer, form: str) -> None:
    user = fresh("jwt")
    async with original(jwt_server, user, form=form) as (client, response):
        assert client.user_id == user
        assert client.socket.subprotocol is not None
        assert client.socket.subprotocol.startswith(form)
        answer = await client.granted(acknowledged(response["thread_id"]), "handshake_complete")
        assert answer["thread_id"] == response["thread_id"]


async def test_the_acknowledgement_may_have_a_payload(jwt_server: JwtServer) -> None:
    async with original(jwt_server) as (client, response):
        frame = {"type": "handshake_acknowledged", "payload": {"thread_id": response["thread_id"]}}
        await client.granted(frame, "handshake_complete")


async def test_every_connection_is_offered_a_thread_of_its_own(jwt_server: JwtServer) -> None:
    user = fresh("jwt")
    async with original(jwt_server, user) as (_, one), original(jwt_server, user) as (_, two):
        for name in ("thread_id", "request_id", "session_token"):
            assert one[name] != two[name]


async def test_another_thread_is_not_acknowledged(jwt_server: JwtServer) -> None:
    async with original(jwt_server) as (client, response):
        await client.refused(acknowledged(fresh("t")), "thread_not_found")
        made = (await client.new_thread())["thread_id"]
        await client.refused(acknowledged(made), "thread_not_found")
        await client.refused({"type": "handshake_acknowledged"}, "validation_error", field="thread_id")
        await client.granted(acknowledged(response["thread_id"]), "handshake_complete")


@pytest.mark.parametrize("acknowledges", [True, False], ids=["acknowledged", "not acknowledged"])
@pytest.mark.parametrize("named", [True, False], ids=["named", "not named"])
async def test_the_first_message_makes_the_offered_thread(
    jwt_server: JwtServer, acknowledges: bool, named: bool
) -> None:
    async with original(jwt_server) as (client, response):
        thread_id = response["thread_id"]
        if acknowledges:
            await client.granted(acknowledged(thread_id), "handshake_complete")
        events = await client.run(QUESTION, **({"thread_id": thread_id} if named else {}))
        assert (events[0]["thread_id"], events[0]["seq"]) == (thread_id, 1)
        kinds = list(dict.fromkeys(event["type"] for event in events if event["type"] in CRITICAL))
        assert kinds == list(CRITICAL)
        assert [thread["thread_id"] for thread in (await listed(client))["threads"]] == [thread_id]
        assert (await client.start("more"))["thread_id"] == thread_id


async def test_two_first_messages_sent_together_share_the_offered_thread(jwt_server: JwtServer) -> None:
    async with original(jwt_server) as (client, response):
        sent = [await client.post({"type": "chat", "content": "hi"}) for _ in range(3)]
        threads = [(await client.answer_to(frame_id))["thread_id"] for frame_id in sent]
        assert threads == [response["thread_id"]] * 3


@pytest.mark.parametrize("kind", ["subscribe", "switch_thread", "update_thread", "get_thread_history", "delete_thread"])
async def test_until_its_first_message_other_frames_do_not_find_it(jwt_server: JwtServer, kind: str) -> None:
    user = fresh("jwt")
    async with original(jwt_server, user) as (client, response), connect(jwt_server, user) as other:
        frame = {"type": kind, "thread_id": response["thread_id"]}
        for each in (client, other):
            await each.refused(frame, "thread_not_found")
            assert (await listed(each))["threads"] == []
        await client.granted(acknowledged(response["thread_id"]), "handshake_complete")
        await client.refused(frame, "thread_not_found")
        events = await client.run("hi")
        assert events[0]["thread_id"] == response["thread_id"]
        assert (await other.ask(frame))["type"] != "error"


async def test_another_connections_start_does_not_find_it(jwt_server: JwtServer) -> None:
    user = fresh("jwt")
    async with original(jwt_server, user) as (_, response), connect(jwt_server, user) as other:
        await other.refused({"type": "chat", "content": "hi", "thread_id": response["thread_id"]}, "thread_not_found")


async def test_a_refused_first_message_leaves_it_reserved(jwt_server: JwtServer) -> None:
    async with original(jwt_server) as (client, response):
        await client.refused({"type": "chat", "content": " "}, "validation_error", field="content")
        await client.refused({"type": "chat", "content": "hi", "agent": "no-such-agent"}, "agent_not_found")
        await client.refused({"type": "subscribe", "thread_id": response["thread_id"]}, "thread_not_found")
        assert (await client.start("hi"))["thread_id"] == response["thread_id"]


async def test_frames_before_the_acknowledgement_are_served(jwt_server: JwtServer) -> None:
    async with original(jwt_server) as (client, response):
        await client.granted({"type": "heartbeat"}, "heartbeat_ack")
        other = (await client.new_thread())["thread_id"]
        events = await client.run("hi", thread_id=other)
        assert events[0]["thread_id"] == other
        await client.granted(acknowledged(response["thread_id"]), "handshake_complete")
        assert (await client.start("hi"))["thread_id"] == response["thread_id"]


async def test_its_deletion_leaves_no_current_thread(jwt_server: JwtServer) -> None:
    async with original(jwt_server) as (client, response):
        await client.run("hi")
        await delete(client, response["thread_id"])
        assert (await client.start("hi"))["thread_id"] != response["thread_id"]


async def test_the_thread_is_there_on_later_connections(jwt_server: JwtServer) -> None:
    user = fresh("jwt")
    async with original(jwt_server, user) as (client, response):
        events = await client.run("hi")
    async with original(jwt_server, user) as (client, second):
        assert second["thread_id"] != response["thread_id"]
        _, replayed = await client.replay(response["thread_id"])
        assert replayed[-1] == events[-1]


async def assert_no_handshake(client: Client) -> None:
    await client.refused(acknowledged(fresh("t")), "unknown_type")
    await client.still_serves()
    assert not any(frame["type"].startswith("handshake") for frame in client.log)


@pytest.mark.parametrize(
    "items",
    [["agentws.v1.json", "jwt.development."], ["jwt.development.", "agentws.v1.json"], ["jwt."], ["bearer.", "other"]],
)
async def test_no_other_client_is_spoken_to_like_this(jwt_server: JwtServer, items: list[str]) -> None:
    credential = token(jwt_server, fresh("jwt"))
    offered = [item + credential if item.endswith(".") else item for item in items]
    async with dial(jwt_server.ws_url, subprotocols=offered) as client:
        await assert_no_handshake(client)


async def test_who_authenticates_by_the_header_is_not_spoken_to_like_this(jwt_server: JwtServer) -> None:
    credential = token(jwt_server, fresh("jwt"))
    for subprotocols in (None, [SUBPROTOCOL]):
        async with dial(jwt_server.ws_url, headers=bearer(credential), subprotocols=subprotocols) as client:
            await assert_no_handshake(client)
