"""Who is connecting: which credential counts, what is in it, and what is refused (section 2)."""

import asyncio
import base64
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

import jwt
import pytest
from starlette.requests import HTTPConnection

from agentws.core.context import Principal
from agentws.edge.auth import SUBPROTOCOL, TokenAuthenticator
from agentws.ports import Credentials, IssuedTicket, RedeemedTicket
from agentws.settings import Settings
from agentws.wire.errors import Fault

SECRET = "an-issuers-secret-of-enough-bytes"
FAR = 4_000_000_000
PREFIXES = ["bearer.", "jwt.", "jwt-auth.", "bearer.development.", "jwt.development.", "jwt-auth.staging."]


def token(user: object = "alice", *, secret: str = SECRET, algorithm: str = "HS256", **claims: Any) -> str:
    """A token as an issuer makes it; a claim given as None is left out."""
    held = {"sub": user, "exp": FAR, **claims}
    return jwt.encode({name: value for name, value in held.items() if value is not None}, secret, algorithm)


class NoTickets:
    """None was ever issued."""

    async def issue(self, principal: Principal, *, credentials_expire_at: float | None, ttl_s: float) -> IssuedTicket:
        raise AssertionError("an upgrade issues no ticket")

    async def redeem(self, ticket: str) -> RedeemedTicket | None:
        return None


def upgrade(
    *, header: str | None = None, items: Sequence[str] = (), query: Mapping[str, str] | None = None
) -> HTTPConnection:
    """What an upgrade brings, as the server's ASGI scope tells it."""
    scope: dict[str, Any] = {
        "type": "websocket",
        "headers": [] if header is None else [(b"authorization", header.encode("latin-1"))],
        "subprotocols": list(items),
        "query_string": urlencode(query or {}).encode(),
    }
    return HTTPConnection(scope)


def check(
    *, header: str | None = None, items: Sequence[str] = (), query: Mapping[str, str] | None = None, **settings: Any
) -> Credentials:
    made = Settings(**{"auth": "jwt", "jwt_secret": SECRET, **settings})
    authenticate = TokenAuthenticator(made, NoTickets())
    return asyncio.run(authenticate(upgrade(header=header, items=items, query=query)))


def refused(
    *, header: str | None = None, items: Sequence[str] = (), query: Mapping[str, str] | None = None, **settings: Any
) -> bool:
    with pytest.raises(Fault) as caught:
        check(header=header, items=items, query=query, **settings)
    return caught.value.code == "unauthorized"


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_a_token_in_the_header_tells_who_it_is(scheme: str) -> None:
    credentials = check(header=f"{scheme} {token()}")
    assert credentials == Credentials(principal=Principal("", "alice"), expires_at=FAR, subprotocol=None)


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("ours_first", [True, False])
def test_a_token_among_the_subprotocols_is_answered_with_ours(prefix: str, ours_first: bool) -> None:
    item = prefix + token()
    credentials = check(items=[SUBPROTOCOL, item] if ours_first else [item, SUBPROTOCOL])
    assert credentials.principal == Principal("", "alice")
    assert credentials.subprotocol == "agentws.v1.json"


@pytest.mark.parametrize("prefix", PREFIXES)
def test_the_token_item_is_answered_where_ours_is_not_offered(prefix: str) -> None:
    item = prefix + token()
    assert check(items=["other.v1", item]).subprotocol == item


def test_the_header_decides_before_the_subprotocols() -> None:
    items = [SUBPROTOCOL, "jwt." + token("bob")]
    credentials = check(header=f"Bearer {token()}", items=items)
    assert (credentials.principal.user_id, credentials.subprotocol) == ("alice", SUBPROTOCOL)
    assert refused(header="Bearer broken", items=items)
    assert refused(header="Bearer", items=items)
    assert refused(header="Bearer ", items=items)


def test_the_first_token_item_decides() -> None:
    assert check(items=["jwt." + token("alice"), "bearer." + token("bob")]).principal.user_id == "alice"


@pytest.mark.parametrize("header", ["", "Basic dTpw", "Digest x", "Bearers x"])
def test_another_scheme_counts_as_absent(header: str) -> None:
    assert check(header=header, items=["jwt." + token()]).principal.user_id == "alice"
    assert refused(header=header)
    assert check(header=header, query={"user": "carol"}, auth="dev").principal.user_id == "carol"


@pytest.mark.parametrize("items", [[], [SUBPROTOCOL], ["jwt"], ["token." + token()], ["jwt-other." + token()]])
def test_nothing_to_go_by_is_unauthorized(items: list[str]) -> None:
    assert refused(items=items)


@pytest.mark.parametrize("name", ["token", "jwt", "access_token", "authorization", "bearer", "ticket", "user"])
def test_a_query_says_nothing_outside_dev_mode(name: str) -> None:
    assert refused(query={name: token()})


def unsigned(header: Mapping[str, Any], claims: Mapping[str, Any]) -> str:
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in (header, claims)]
    return ".".join([*parts, ""])


BAD = {
    "malformed": "not-a-token",
    "not ASCII": "é.é.é",
    "two parts": ".".join(token().split(".")[:2]),
    "four parts": f"a.{token()}",
    "no signature": ".".join([*token().split(".")[:2], ""]),
    "another's signature": ".".join([*token().split(".")[:2], token("bob").split(".")[2]]),
    "wrong secret": token(secret="another-secret-of-enough-bytes-00"),
    "algorithm none": unsigned({"alg": "none"}, {"sub": "alice", "exp": FAR}),
    "another algorithm": token(secret=SECRET * 2, algorithm="HS512"),
    "deep header": base64.urlsafe_b64encode(b"[" * 6000).rstrip(b"=").decode() + ".e30.AAAA",
    "expired": token(exp=1_000_000_000),
    "expired now": token(exp=int(time.time())),
    "not yet valid": token(nbf=FAR),
    "without exp": token(exp=None),
    "exp no number": token(exp="soon"),
    "exp a list": token(exp=[FAR]),
    "exp infinite": token(exp=float("inf")),
    "exp not a number": token(exp=float("nan")),
    "without user": token(None),
    "blank user": token(""),
    "user with a control character": token("a\nb"),
    "user too long": token("x" * 256),
    "user with a lone surrogate": token("\ud800"),
}


@pytest.mark.parametrize("fault", BAD)
def test_a_bad_token_is_unauthorized(fault: str) -> None:
    assert refused(header=f"Bearer {BAD[fault]}")


@pytest.mark.parametrize("fault", sorted(set(BAD) - {"four parts"}))
def test_a_bad_token_among_the_subprotocols_is_unauthorized(fault: str) -> None:
    assert refused(items=[SUBPROTOCOL, f"jwt.{BAD[fault]}"])


@pytest.mark.parametrize("user", [5, True, ["alice"], {"name": "alice"}])
def test_a_user_that_is_no_text_is_unauthorized(user: object) -> None:
    assert refused(header=f"Bearer {token(uid=user)}", user_claim="uid")


@pytest.mark.parametrize("user", ["auth0|5f7c", "Zoë Å. 🎈", "x" * 255, "a@b.example", " ", "'; DROP TABLE run;--"])
def test_a_user_id_is_any_text(user: str) -> None:
    assert check(header=f"Bearer {token(user)}").principal == Principal("", user)


def test_user_and_tenant_are_read_from_the_named_claims() -> None:
    made = token("subject", uid="alice", org="acme")
    credentials = check(header=f"Bearer {made}", user_claim="uid", tenant_claim="org")
    assert credentials.principal == Principal("acme", "alice")


def test_without_a_tenant_claim_the_tenant_is_empty_whatever_the_token_says() -> None:
    assert check(header=f"Bearer {token(tenant='acme', tenant_id='acme')}").principal.tenant_id == ""


@pytest.mark.parametrize("tenant", [5, ["acme"], "a\nb", "x" * 256])
def test_a_tenant_that_cannot_be_one_is_unauthorized(tenant: object) -> None:
    assert refused(header=f"Bearer {token(org=tenant)}", tenant_claim="org")


@pytest.mark.parametrize("exp", [FAR, FAR + 0.5])
def test_credentials_end_with_their_token(exp: float) -> None:
    assert check(header=f"Bearer {token(exp=exp)}").expires_at == exp


@pytest.mark.parametrize("exp", [1e15, 1e30, 253_402_300_800])
def test_an_end_beyond_the_calendar_is_the_calendars(exp: float) -> None:
    assert check(header=f"Bearer {token(exp=exp)}").expires_at == 253_402_300_799


def test_whom_a_token_was_made_for_is_not_checked() -> None:
    assert check(header=f"Bearer {token(aud='another service')}").principal.user_id == "alice"


@pytest.mark.parametrize(("query", "user"), [({}, "dev"), ({"user": "carol"}, "carol"), ({"user": "Zoë 🎈"}, "Zoë 🎈")])
@pytest.mark.parametrize("items", [[], [SUBPROTOCOL], ["other"]])
def test_dev_mode_takes_a_name_from_the_query(query: dict[str, str], user: str, items: list[str]) -> None:
    credentials = check(query=query, items=items, auth="dev", jwt_secret=None)
    answered = SUBPROTOCOL if SUBPROTOCOL in items else None
    assert credentials == Credentials(principal=Principal("", user), expires_at=None, subprotocol=answered)


@pytest.mark.parametrize("user", ["", "a\nb", "x" * 256])
def test_dev_mode_refuses_what_cannot_be_a_name(user: str) -> None:
    assert refused(query={"user": user}, auth="dev", jwt_secret=None)


def test_a_token_decides_before_the_name_in_dev_mode() -> None:
    header = f"Bearer {token()}"
    assert check(header=header, query={"user": "carol"}, auth="dev").principal.user_id == "alice"
    assert refused(header="Bearer broken", query={"user": "carol"}, auth="dev")
    # Nobody can check it without a secret.
    assert refused(header=header, query={"user": "carol"}, auth="dev", jwt_secret=None)
