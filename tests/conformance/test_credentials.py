"""Section 2: who is connecting is settled before the upgrade, and the first credential that is present decides."""

from datetime import UTC, datetime

import pytest

from .api import calling
from .client import SUBPROTOCOL, JwtServer, Server, connect, dial, fresh, user_url
from .tokens import BAD, bad_tokens, bearer, token
from .upgrades import assert_unauthorized

FORMS = ["bearer.", "jwt.", "jwt-auth.", "bearer.development.", "jwt.development.", "jwt-auth.staging."]


async def test_a_bearer_token_in_the_header_connects_its_subject(jwt_server: JwtServer) -> None:
    user = fresh("jwt")
    async with dial(jwt_server.ws_url, headers=bearer(token(jwt_server, user))) as client:
        assert client.user_id == user
        assert client.socket.subprotocol == SUBPROTOCOL
        await client.still_serves()


@pytest.mark.parametrize("form", FORMS)
async def test_a_token_among_the_subprotocols_connects_and_ours_is_answered(jwt_server: JwtServer, form: str) -> None:
    user = fresh("jwt")
    async with dial(jwt_server.ws_url, subprotocols=[SUBPROTOCOL, form + token(jwt_server, user)]) as client:
        assert client.user_id == user
        assert client.socket.subprotocol == SUBPROTOCOL
        await client.still_serves()


async def test_the_order_of_the_subprotocols_is_free(jwt_server: JwtServer) -> None:
    item = "jwt." + token(jwt_server, fresh("jwt"))
    async with dial(jwt_server.ws_url, subprotocols=[item, SUBPROTOCOL]) as client:
        assert client.socket.subprotocol == SUBPROTOCOL


@pytest.mark.parametrize("form", FORMS)
async def test_the_token_item_is_answered_where_ours_is_not_offered(jwt_server: JwtServer, form: str) -> None:
    user = fresh("jwt")
    item = form + token(jwt_server, user)
    async with dial(jwt_server.ws_url, subprotocols=["other.v1", item]) as client:
        assert client.user_id == user
        assert client.socket.subprotocol == item


async def test_of_two_token_items_the_first_decides_and_is_answered(jwt_server: JwtServer) -> None:
    first, second = fresh("jwt"), fresh("jwt")
    items = [f"bearer.{token(jwt_server, first)}", f"jwt.{token(jwt_server, second)}"]
    async with dial(jwt_server.ws_url, subprotocols=["other.v1", *items]) as client:
        assert (client.user_id, client.socket.subprotocol) == (first, items[0])


async def test_expires_at_is_the_tokens_exp(jwt_server: JwtServer) -> None:
    exp = int(datetime.now(UTC).timestamp()) + 3000
    async with dial(jwt_server.ws_url, headers=bearer(token(jwt_server, fresh("jwt"), exp=exp))) as client:
        assert datetime.fromisoformat(client.established["expires_at"]) == datetime.fromtimestamp(exp, UTC)


async def test_no_credentials_are_401(jwt_server: JwtServer) -> None:
    await assert_unauthorized(jwt_server.ws_url)
    await assert_unauthorized(jwt_server.ws_url, subprotocols=[SUBPROTOCOL])


async def test_a_user_name_in_the_query_is_read_in_dev_mode_only(jwt_server: JwtServer) -> None:
    await assert_unauthorized(user_url(jwt_server, fresh("u")))


@pytest.mark.parametrize("name", ["token", "jwt", "access_token", "authorization", "bearer", "ticket"])
async def test_tokens_are_never_read_from_the_query(jwt_server: JwtServer, name: str) -> None:
    await assert_unauthorized(f"{jwt_server.ws_url}?{name}={token(jwt_server, fresh('jwt'))}")


@pytest.mark.parametrize("fault", BAD)
async def test_a_bad_token_in_the_header_is_401(jwt_server: JwtServer, fault: str) -> None:
    credential = bad_tokens(jwt_server, fresh("jwt"))[fault]
    await assert_unauthorized(jwt_server.ws_url, headers=bearer(credential), subprotocols=[SUBPROTOCOL])


@pytest.mark.parametrize("fault", BAD)
async def test_a_bad_token_among_the_subprotocols_is_401(jwt_server: JwtServer, fault: str) -> None:
    credential = bad_tokens(jwt_server, fresh("jwt"))[fault]
    await assert_unauthorized(jwt_server.ws_url, subprotocols=[SUBPROTOCOL, f"jwt.{credential}"])


async def test_an_empty_bearer_token_is_401(jwt_server: JwtServer) -> None:
    await assert_unauthorized(jwt_server.ws_url, headers={"Authorization": "Bearer"})


async def test_the_header_decides_before_the_subprotocol(jwt_server: JwtServer) -> None:
    user, item = fresh("jwt"), "jwt." + token(jwt_server, fresh("jwt"))
    async with dial(
        jwt_server.ws_url, headers=bearer(token(jwt_server, user)), subprotocols=[SUBPROTOCOL, item]
    ) as client:
        assert client.user_id == user
    await assert_unauthorized(jwt_server.ws_url, headers=bearer("broken"), subprotocols=[SUBPROTOCOL, item])


async def test_an_authorization_of_another_scheme_counts_as_absent(jwt_server: JwtServer) -> None:
    user, basic = fresh("jwt"), {"Authorization": "Basic dTpw"}
    item = "jwt." + token(jwt_server, user)
    async with dial(jwt_server.ws_url, headers=basic, subprotocols=[SUBPROTOCOL, item]) as client:
        assert client.user_id == user
    await assert_unauthorized(jwt_server.ws_url, headers=basic)


@pytest.mark.parametrize("user", ["auth0|5f7c8ec7c33c6c004bbafe82", "Zoë Å. 🎈", "x" * 255, "a@b.example"])
async def test_a_user_id_is_any_text(jwt_server: JwtServer, user: str) -> None:
    async with dial(jwt_server.ws_url, headers=bearer(token(jwt_server, user))) as client:
        assert client.user_id == user
        await client.still_serves()


@pytest.mark.needs("dev")
async def test_dev_auth_takes_the_name_from_the_query(server: Server) -> None:
    async with connect(server, f"Zoë & Co. {fresh('dev')}") as client:
        assert client.established["expires_at"] is None


@pytest.mark.needs("dev")
async def test_dev_auth_without_a_name_is_the_user_dev(server: Server) -> None:
    async with dial(server.ws_url) as client:
        assert client.user_id == "dev"


async def test_connection_established_comes_first_and_names_the_connection(server: Server) -> None:
    user = fresh("dev")
    async with connect(server, user) as one, connect(server, user) as two:
        assert one.log[0]["type"] == two.log[0]["type"] == "connection_established"
        assert one.established["connection_id"] != two.established["connection_id"]
        assert one.established["protocol"] == "agentws.v1"
        assert one.established["heartbeat_interval_s"] > 0


@pytest.mark.needs("dev")
async def test_in_dev_auth_too_the_first_credential_that_is_present_decides(server: Server) -> None:
    url = user_url(server, fresh("u"))
    await assert_unauthorized(url, headers=bearer("broken"))
    await assert_unauthorized(url, subprotocols=[SUBPROTOCOL, "jwt.broken"])
    await assert_unauthorized(f"{url}&ticket=broken")


@pytest.mark.needs("dev")
async def test_in_dev_auth_too_an_authorization_of_another_scheme_counts_as_absent(server: Server) -> None:
    user = fresh("u")
    async with dial(user_url(server, user), headers={"Authorization": "Basic dTpw"}) as client:
        assert client.user_id == user


@pytest.mark.needs("dev")
@pytest.mark.parametrize("name", ["", "a%0Ab", "%00", "x" * 256])
async def test_a_name_that_is_no_user_id_is_401(server: Server, name: str) -> None:
    await assert_unauthorized(f"{server.ws_url}?user={name}")


async def test_a_token_item_of_an_unknown_form_is_no_credential(jwt_server: JwtServer) -> None:
    good = token(jwt_server, fresh("jwt"))
    for item in (good, f"token.{good}", f"oauth.{good}"):
        await assert_unauthorized(jwt_server.ws_url, subprotocols=[SUBPROTOCOL, item])


async def test_expires_at_stands_in_me_as_in_connection_established(jwt_server: JwtServer) -> None:
    user = fresh("jwt")
    async with calling(jwt_server, user) as api:
        me = await api.get("/api/me")
        credential = {"Authorization": api.http.headers["Authorization"]}
        async with dial(jwt_server.ws_url, headers=credential) as client:
            assert (me["user_id"], me["expires_at"]) == (client.user_id, client.established["expires_at"])
