"""Section 2: a browser's page may speak with the server only from where it is allowed to."""

import pytest

from .api import Api, anonymous, calling, error_of
from .client import JwtServer, Server, connect, dial, fresh, user_url
from .tokens import bearer, token
from .upgrades import refusal

FOREIGN = ["https://evil.example", "http://127.0.0.1.evil.example", "null", "https://localhost.evil.example:443"]


def url_and_headers(server: Server, origin: str) -> tuple[str, dict[str, str]]:
    user = fresh("u")
    if server.jwt_secret:
        return server.ws_url, {"Origin": origin} | bearer(token(server, user))
    return user_url(server, user), {"Origin": origin}


async def test_the_servers_own_origin_connects(server: Server) -> None:
    async with connect(server, headers={"Origin": server.http_url}) as client:
        await client.still_serves()


async def test_who_sends_no_origin_is_no_browser_and_connects(server: Server) -> None:
    async with connect(server) as client:
        await client.still_serves()


@pytest.mark.parametrize("origin", FOREIGN)
async def test_another_hosts_origin_is_403_before_the_upgrade(server: Server, origin: str) -> None:
    url, headers = url_and_headers(server, origin)
    status, _, body = await refusal(url, headers=headers)
    assert (status, body["code"]) == (403, "forbidden_origin")


@pytest.mark.parametrize("origin", FOREIGN)
async def test_me_answers_the_same_way(server: Server, origin: str) -> None:
    async with calling(server) as api:
        await api.refused("GET", "/api/me", "forbidden_origin", headers={"Origin": origin})
        await api.granted("GET", "/api/me", headers={"Origin": server.http_url})


async def test_a_foreign_page_starts_nothing_over_http(server: Server) -> None:
    async with calling(server) as api:
        headers = {"Origin": FOREIGN[0]}
        body = {"type": "chat", "content": "hi"}
        await api.refused("POST", "/api/runs", "forbidden_origin", json=body, headers=headers)
        await api.refused("POST", "/api/tickets", "forbidden_origin", json={}, headers=headers)
        assert (await api.get("/api/threads"))["threads"] == []


def named(server: JwtServer) -> dict[str, str]:
    return bearer(token(server, None, uid=fresh("u"), org="o"))


@pytest.mark.parametrize("origin", ["https://app.example", "https://other.example:8443"])
async def test_an_origin_of_the_list_connects(strict: JwtServer, origin: str) -> None:
    async with dial(strict.ws_url, headers=named(strict) | {"Origin": origin}) as client:
        await client.still_serves()
    async with anonymous(strict) as http:
        await Api(http, "").granted("GET", "/api/me", headers=named(strict) | {"Origin": origin})


@pytest.mark.parametrize(
    "origin",
    [
        *("http://app.example", "https://app.example:8443", "https://sub.app.example", "https://app.example.evil"),
        *("https://other.example", "null", "https://evil.example"),
    ],
)
async def test_an_origin_beside_the_list_is_403(strict: JwtServer, origin: str) -> None:
    headers = named(strict) | {"Origin": origin}
    status, _, body = await refusal(strict.ws_url, headers=headers)
    assert (status, body["code"]) == (403, "forbidden_origin")
    async with anonymous(strict) as http:
        error_of(await http.get("/api/me", headers=headers), "forbidden_origin")
