"""Section 2: a ticket stands once, and for a while, for the principal whose token bought it."""

import asyncio
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import pytest

from .api import Api, anonymous, calling, error_of
from .client import SUBPROTOCOL, Client, JwtServer, Server, dial, fresh
from .shapes import Frame, check_body
from .tokens import bearer, expiring, token
from .upgrades import assert_unauthorized

LASTING = [({"ttl_seconds": seconds}, seconds) for seconds in (30, 61, 3600)]


async def bought(api: Api, body: Frame | None = None) -> Frame:
    ticket = await api.granted("POST", "/api/tickets", json={} if body is None else body)
    check_body("ticket", ticket)
    return ticket


def with_ticket(server: Server, ticket: Frame) -> str:
    return f"{server.ws_url}?ticket={ticket['ticket']}"


async def test_a_ticket_connects_the_user_who_bought_it(server: Server) -> None:
    async with calling(server) as api:
        for options in ({}, {"subprotocols": None}):
            ticket = await bought(api)
            async with dial(with_ticket(server, ticket), **options) as client:
                assert client.user_id == api.user_id
                await client.still_serves()


async def test_its_url_is_absolute_and_connects_as_it_is(server: Server) -> None:
    async with calling(server) as api:
        ticket = await bought(api)
        url = urlsplit(ticket["websocket_url"])
        assert url.scheme in {"ws", "wss"}
        assert url.netloc == urlsplit(server.http_url).netloc
        assert url.path.endswith("/ws")
        assert ticket["ticket"] in ticket["websocket_url"]
        async with dial(ticket["websocket_url"]) as client:
            assert client.user_id == api.user_id


async def test_a_ticket_serves_once(server: Server) -> None:
    async with calling(server) as api:
        ticket = await bought(api)
        async with dial(with_ticket(server, ticket)):
            await assert_unauthorized(with_ticket(server, ticket))
        await assert_unauthorized(with_ticket(server, ticket))


async def test_of_two_that_redeem_a_ticket_at_once_one_does(server: Server) -> None:
    async def redeemed(url: str) -> bool:
        try:
            async with dial(url):
                return True
        except Exception as refused:
            assert "401" in str(refused)
            return False

    async with calling(server) as api:
        for _ in range(3):
            url = with_ticket(server, await bought(api))
            assert sorted(await asyncio.gather(redeemed(url), redeemed(url), redeemed(url))) == [False, False, True]


async def test_two_tickets_are_two(server: Server) -> None:
    async with calling(server) as api:
        one, two = await bought(api), await bought(api)
        assert one["ticket"] != two["ticket"]
        async with dial(with_ticket(server, two)), dial(with_ticket(server, one)):
            pass


@pytest.mark.parametrize("ticket", ["nonsense", "x" * 5000, "a%00b"])
async def test_a_ticket_that_nobody_bought_is_401(server: Server, ticket: str) -> None:
    await assert_unauthorized(f"{server.ws_url}?ticket={ticket}")


@pytest.mark.parametrize(("asked", "ttl"), [({}, 60), ({"ttl_seconds": None}, 60), *LASTING])
async def test_a_ticket_lasts_sixty_seconds_or_as_long_as_was_asked(
    jwt_server: JwtServer, asked: Frame, ttl: int
) -> None:
    async with calling(jwt_server) as api:
        before = datetime.now(UTC)
        ends = datetime.fromisoformat((await bought(api, asked))["expires_at"])
        lasts, slack = timedelta(seconds=ttl), timedelta(seconds=1)
        assert before + lasts - slack <= ends <= datetime.now(UTC) + lasts + slack


async def test_a_ticket_may_be_bought_without_a_body(server: Server) -> None:
    async with calling(server) as api:
        check_body("ticket", await api.granted("POST", "/api/tickets"))


@pytest.mark.parametrize("ttl", [29, 0, -1, 3601, 10**9, "60", True, [], {}])
async def test_a_time_outside_its_range_is_refused_and_never_clamped(server: Server, ttl: object) -> None:
    async with calling(server) as api:
        body = {"ttl_seconds": ttl}
        await api.refused("POST", "/api/tickets", "validation_error", field="ttl_seconds", json=body)


async def test_a_ticket_is_bought_with_a_token_only(jwt_server: JwtServer) -> None:
    async with anonymous(jwt_server) as http, calling(jwt_server) as api:
        ticket = (await bought(api))["ticket"]
        for params in ({}, {"user": fresh("u")}, {"ticket": ticket}):
            error_of(await http.post("/api/tickets", params=params, json={}), "unauthorized")


async def test_a_connection_by_ticket_has_the_exp_of_the_token(jwt_server: JwtServer) -> None:
    user = fresh("jwt")
    credential, exp = expiring(jwt_server, user, in_s=2)
    async with anonymous(jwt_server) as http:
        http.headers.update(bearer(credential))
        early, late = [await bought(Api(http, user), {"ttl_seconds": 3600}) for _ in range(2)]
    async with dial(with_ticket(jwt_server, early)) as client:
        assert datetime.fromisoformat(client.established["expires_at"]) == exp
        assert await client.closed() == 4401
        assert client.log[-1]["code"] == "token_expired"
    await assert_unauthorized(with_ticket(jwt_server, late))


async def prolonged(server: JwtServer, client: Client) -> Frame:
    return await client.ask({"type": "authenticate", "token": token(server, client.user_id)})


async def test_a_connection_by_ticket_may_be_prolonged_by_a_token(jwt_server: JwtServer) -> None:
    async with calling(jwt_server) as api, dial(with_ticket(jwt_server, await bought(api))) as client:
        assert (await prolonged(jwt_server, client))["type"] == "authenticated"


@pytest.mark.needs("dev")
async def test_in_dev_auth_tickets_are_given_to_a_name_and_nothing_expires(server: Server) -> None:
    async with calling(server) as api:
        ticket = await bought(api, {"ttl_seconds": 30})
        assert ticket["expires_at"] is None
        async with dial(f"{with_ticket(server, ticket)}&user={fresh('other')}") as client:
            assert (client.user_id, client.established["expires_at"]) == (api.user_id, None)


async def test_a_token_in_the_header_or_the_subprotocols_decides_before_a_ticket(jwt_server: JwtServer) -> None:
    user = fresh("jwt")
    credential = token(jwt_server, user)
    async with calling(jwt_server) as api:
        ticket = await bought(api)
        url = with_ticket(jwt_server, ticket)
        async with dial(url, headers=bearer(credential)) as client:
            assert client.user_id == user
        async with dial(url, subprotocols=[SUBPROTOCOL, f"jwt.{credential}"]) as client:
            assert client.user_id == user
        await assert_unauthorized(url, headers=bearer("broken"))
        await assert_unauthorized(url, subprotocols=[SUBPROTOCOL, "jwt.broken"])
        async with dial(url) as client:
            assert client.user_id == api.user_id


async def test_one_event_stream_redeems_a_ticket(server: Server) -> None:
    async with calling(server) as api, anonymous(server) as http:
        thread_id = (await api.start({"type": "chat", "content": "hi"}))["thread_id"]
        ticket = (await bought(api))["ticket"]
        params = {"ticket": ticket}
        async with Api(http, api.user_id).stream(thread_id, **params) as stream:
            subscribed = await stream.receive()
            assert (subscribed["type"], subscribed["thread_id"]) == ("subscribed", thread_id)
        path, headers = f"/api/threads/{thread_id}/events", {"Accept": "text/event-stream"}
        error_of(await http.get(path, params=params, headers=headers), "unauthorized")
        await assert_unauthorized(f"{server.ws_url}?ticket={ticket}")
