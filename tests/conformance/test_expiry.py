"""Section 2: a connection is warned before its credentials expire, and closed when they do; its runs go on."""

from datetime import UTC, datetime, timedelta

import pytest

from .api import Api, anonymous, calling
from .client import Client, JwtServer, Server, connect, dial, fresh, of_type
from .runs import at_work
from .tokens import bearer, expiring, token


async def expired(client: Client) -> int | None:
    """Awaits the end of its credentials, which is told before the close."""
    told = await client.next(of_type("error"), "token_expired")
    assert (told["code"], told["id"]) == ("token_expired", None)
    return await client.closed()


async def test_at_exp_it_is_told_and_the_connection_closes_with_4401(jwt_server: JwtServer) -> None:
    credential, exp = expiring(jwt_server, fresh("jwt"), in_s=2)
    async with dial(jwt_server.ws_url, headers=bearer(credential)) as client:
        assert await expired(client) == 4401
        assert datetime.now(UTC) >= exp - timedelta(milliseconds=50)
        assert client.log[-1]["code"] == "token_expired"


async def test_who_has_less_than_a_minute_left_is_warned_at_once(jwt_server: JwtServer) -> None:
    credential, exp = expiring(jwt_server, fresh("jwt"), in_s=50)
    async with dial(jwt_server.ws_url, headers=bearer(credential)) as client:
        told = await client.next(of_type("credentials_expiring"), "credentials_expiring")
        assert datetime.fromisoformat(told["expires_at"]) == exp
        await client.still_serves()
        assert [frame["type"] for frame in client.log].count("credentials_expiring") == 1


async def test_the_warning_comes_a_minute_before(jwt_server: JwtServer) -> None:
    credential, exp = expiring(jwt_server, fresh("jwt"), in_s=62)
    async with dial(jwt_server.ws_url, headers=bearer(credential)) as client:
        await client.granted({"type": "heartbeat"}, "heartbeat_ack")
        warned_early = any(frame["type"] == "credentials_expiring" for frame in client.log)
        assert not warned_early or datetime.now(UTC) >= exp - timedelta(seconds=60)
        await client.next(of_type("credentials_expiring"), "credentials_expiring")
        left = exp - datetime.now(UTC)
        assert timedelta(seconds=55) < left <= timedelta(seconds=60, milliseconds=50)


async def test_who_has_an_hour_left_is_not_warned(jwt_server: JwtServer) -> None:
    async with connect(jwt_server) as client:
        await client.still_serves()
        assert not any(frame["type"] == "credentials_expiring" for frame in client.log)


async def test_a_fresh_token_is_warned_of_anew(jwt_server: JwtServer) -> None:
    async with connect(jwt_server) as client:
        credential, exp = expiring(jwt_server, client.user_id, in_s=40)
        await client.granted({"type": "authenticate", "token": credential}, "authenticated")
        told = await client.next(of_type("credentials_expiring"), "credentials_expiring")
        assert datetime.fromisoformat(told["expires_at"]) == exp


async def test_the_runs_of_an_expired_connection_go_on(jwt_server: JwtServer) -> None:
    user = fresh("jwt")
    credential, _ = expiring(jwt_server, user, in_s=3)
    async with dial(jwt_server.ws_url, headers=bearer(credential)) as client:
        accepted = await at_work(client)
        assert await expired(client) == 4401
    async with connect(jwt_server, user) as client:
        thread = await client.new_thread(accepted["thread_id"])
        assert thread["running_run_id"] == accepted["run_id"]
        await client.replay(accepted["thread_id"])
        await client.stop(run_id=accepted["run_id"])
        assert (await client.ended(accepted["run_id"]))["type"] == "agent_stopped"


async def test_other_connections_of_the_user_stay(jwt_server: JwtServer) -> None:
    user = fresh("jwt")
    credential, _ = expiring(jwt_server, user, in_s=2)
    async with (
        connect(jwt_server, user) as stays,
        dial(jwt_server.ws_url, headers=bearer(credential)) as goes,
    ):
        assert await expired(goes) == 4401
        await stays.still_serves()


async def test_an_expired_token_is_refused_over_http(jwt_server: JwtServer) -> None:
    async with anonymous(jwt_server) as http:
        http.headers.update(bearer(token(jwt_server, fresh("jwt"), lives=timedelta(seconds=-5))))
        await Api(http, "").refused("GET", "/api/me", "unauthorized")


@pytest.mark.needs("dev")
async def test_in_dev_auth_nothing_expires(server: Server) -> None:
    async with connect(server) as client, calling(server) as api:
        assert client.established["expires_at"] is None
        assert (await api.get("/api/me"))["expires_at"] is None
