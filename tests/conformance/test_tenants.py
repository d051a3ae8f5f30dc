"""Section 2: with claims of the operator's names a principal is a tenant's user, and two tenants' users of one name are
two."""

from datetime import timedelta
from typing import Any

import pytest

from .api import Api, anonymous
from .client import Client, JwtServer, dial, fresh
from .shapes import check_body
from .threads import listed
from .tokens import bearer, token
from .upgrades import assert_unauthorized


def claimed(server: JwtServer, **claims: Any) -> str:
    """A token with the claims `org` and `uid`."""
    return token(server, None, **claims)


async def test_the_user_is_what_the_named_claim_says(strict: JwtServer) -> None:
    user, org = fresh("u"), fresh("o")
    credential = claimed(strict, uid=user, org=org, sub=fresh("not"))
    async with dial(strict.ws_url, headers=bearer(credential)) as client, anonymous(strict) as http:
        assert client.user_id == user
        http.headers.update(bearer(credential))
        me = await Api(http, user).get("/api/me")
        check_body("me", me)
        assert (me["user_id"], me["tenant_id"]) == (user, org)


@pytest.mark.parametrize(
    "claims",
    [
        {"sub": "u", "org": "o"},
        {"uid": "u"},
        {"uid": "", "org": "o"},
        {"uid": 5, "org": "o"},
        {"uid": "u", "org": 5},
        {"uid": "u", "org": "a\nb"},
        {"uid": "u", "org": "x" * 256},
        {"uid": ["u"], "org": "o"},
    ],
)
async def test_a_token_that_lacks_a_named_claim_or_has_another_thing_there_is_401(
    strict: JwtServer, claims: dict[str, Any]
) -> None:
    await assert_unauthorized(strict.ws_url, headers=bearer(claimed(strict, **claims)))


async def exchange(one: Client, two: Client) -> None:
    """The users of two tenants do the same under the same names, and are told their own."""
    name = fresh("t")
    for client, title in ((one, "one's"), (two, "two's")):
        await client.new_thread(name, title=title)
        accepted = await client.start(title, thread_id=name, run_id=f"run-{name}", idempotency_key=f"key-{name}")
        assert accepted["duplicate"] is False
        await client.ended(accepted["run_id"])
    for client, title in ((one, "one's"), (two, "two's")):
        [thread] = (await listed(client))["threads"]
        assert thread["title"] == title
        _, events = await client.replay(name)
        assert [event["payload"]["message"] for event in events if event["type"] == "agent_started"] == [title]


async def test_two_tenants_users_of_one_name_are_apart(strict: JwtServer) -> None:
    user = fresh("u")
    credentials = [bearer(claimed(strict, uid=user, org=fresh("o"))) for _ in range(2)]
    async with dial(strict.ws_url, headers=credentials[0]) as one, dial(strict.ws_url, headers=credentials[1]) as two:
        assert one.user_id == two.user_id == user
        await exchange(one, two)


async def test_a_tenant_and_a_user_are_not_mixed_up(strict: JwtServer) -> None:
    a, b = fresh("x"), fresh("x")
    credentials = [bearer(claimed(strict, uid=a, org=b)), bearer(claimed(strict, uid=b, org=a))]
    async with dial(strict.ws_url, headers=credentials[0]) as one, dial(strict.ws_url, headers=credentials[1]) as two:
        await exchange(one, two)


async def test_a_fresh_token_of_another_tenant_is_identity_mismatch(strict: JwtServer) -> None:
    user, org = fresh("u"), fresh("o")
    async with dial(strict.ws_url, headers=bearer(claimed(strict, uid=user, org=org))) as client:
        other = claimed(strict, uid=user, org=fresh("o"))
        await client.refused({"type": "authenticate", "token": other}, "identity_mismatch")
        same = claimed(strict, uid=user, org=org, lives=timedelta(hours=2))
        await client.granted({"type": "authenticate", "token": same}, "authenticated")
