"""Section 2, `authenticate`: a fresh token of the same principal prolongs a connection, and nothing else does."""

from datetime import datetime

import pytest

from .client import Client, JwtServer, Server, connect, dial, fresh
from .shapes import Frame
from .tokens import BAD, bad_tokens, bearer, expiring, token


async def authenticate(client: Client, credential: object) -> Frame:
    return await client.ask({"type": "authenticate", "payload": {"token": credential}})


async def test_a_fresh_token_is_answered_with_its_user_and_its_exp(jwt_server: JwtServer) -> None:
    async with connect(jwt_server) as client:
        credential, exp = expiring(jwt_server, client.user_id, in_s=7000)
        for frame in (
            {"type": "authenticate", "payload": {"token": credential}},
            {"type": "authenticate", "token": credential},
        ):
            answer = await client.granted(frame, "authenticated")
            assert answer["user_id"] == client.user_id
            assert datetime.fromisoformat(answer["expires_at"]) == exp
        await client.still_serves()


async def test_a_connection_with_a_fresh_token_outlives_its_first_one(jwt_server: JwtServer) -> None:
    user = fresh("jwt")
    credential, _ = expiring(jwt_server, user, in_s=2)
    async with (
        dial(jwt_server.ws_url, headers=bearer(credential)) as prolonged,
        dial(jwt_server.ws_url, headers=bearer(credential)) as left_alone,
    ):
        assert (await authenticate(prolonged, token(jwt_server, user)))["type"] == "authenticated"
        assert await left_alone.closed() == 4401
        await prolonged.still_serves()
        assert not any(frame.get("code") == "token_expired" for frame in prolonged.log)


async def test_a_token_may_be_replaced_by_one_that_ends_sooner(jwt_server: JwtServer) -> None:
    async with connect(jwt_server) as client:
        credential, _ = expiring(jwt_server, client.user_id, in_s=2)
        assert (await authenticate(client, credential))["type"] == "authenticated"
        assert await client.closed() == 4401


async def test_anothers_token_is_identity_mismatch_and_the_old_exp_stays(jwt_server: JwtServer) -> None:
    user = fresh("jwt")
    credential, _ = expiring(jwt_server, user, in_s=2)
    async with dial(jwt_server.ws_url, headers=bearer(credential)) as client:
        asked = {"type": "authenticate", "token": token(jwt_server, fresh("other"))}
        await client.refused(asked, "identity_mismatch")
        assert await client.closed() == 4401


async def test_a_bad_token_is_unauthorized_and_the_old_exp_stays(jwt_server: JwtServer) -> None:
    user = fresh("jwt")
    credential, _ = expiring(jwt_server, user, in_s=2)
    async with dial(jwt_server.ws_url, headers=bearer(credential)) as client:
        await client.refused({"type": "authenticate", "token": "broken"}, "unauthorized")
        assert await client.closed() == 4401


@pytest.mark.parametrize("fault", BAD)
async def test_a_bad_token_leaves_the_connection_open(jwt_server: JwtServer, fault: str) -> None:
    async with connect(jwt_server) as client:
        answer = await authenticate(client, bad_tokens(jwt_server, client.user_id)[fault])
        assert (answer["type"], answer["code"]) == ("error", "unauthorized")
        await client.still_serves()


@pytest.mark.parametrize("payload", [{}, {"token": None}, {"token": 5}, {"token": []}, {"token": {}}, {"token": True}])
async def test_a_token_that_is_missing_or_no_text_is_named(jwt_server: JwtServer, payload: Frame) -> None:
    async with connect(jwt_server) as client:
        await client.refused({"type": "authenticate", "payload": payload}, "validation_error", field="token")
        await client.refused({"type": "authenticate", **payload}, "validation_error", field="token")
        await client.still_serves()


@pytest.mark.needs("dev")
@pytest.mark.parametrize("credential", ["some-token", "a.b.c", None, 5])
async def test_in_dev_auth_it_is_a_validation_error(server: Server, credential: object) -> None:
    async with connect(server) as client:
        await client.refused({"type": "authenticate", "payload": {"token": credential}}, "validation_error")
        await client.still_serves()


async def test_it_is_answered_in_its_turn(jwt_server: JwtServer) -> None:
    async with connect(jwt_server) as client:
        sent = [
            await client.post({"type": "create_thread"}),
            await client.post({"type": "authenticate", "token": token(jwt_server, client.user_id)}),
            await client.post({"type": "authenticate", "token": "broken"}),
            await client.post({"type": "create_thread"}),
        ]
        await client.answer_to(sent[-1])
        assert [frame["id"] for frame in client.log if frame.get("id") in sent] == sent


async def test_subscriptions_and_the_current_thread_stay(jwt_server: JwtServer) -> None:
    async with connect(jwt_server) as client:
        first = await client.run("hi")
        await authenticate(client, token(jwt_server, client.user_id))
        second = await client.run("hi")
        assert second[0]["thread_id"] == first[0]["thread_id"]
