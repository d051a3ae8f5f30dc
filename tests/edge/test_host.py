"""The application that mounts this one says who is signed in; anything but an answer is an error, never a sign-in."""

import asyncio
import functools
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from starlette.requests import HTTPConnection

from agentws.core.context import Principal
from agentws.edge.admission import Admission
from agentws.edge.host import HostAuthenticator, SignedIn
from agentws.edge.origins import Origins
from agentws.ports import Credentials
from agentws.wire.errors import Fault

FAR = 4_000_000_000.0


def connection(kind: str = "websocket", **scope: Any) -> HTTPConnection:
    headers = [(b"host", b"a.example"), (b"cookie", b"session=s1"), (b"authorization", b"Bearer x.y.z")]
    place = {"path": "/ws", "query_string": b"user=mallory", "scheme": "http", "client": ("192.0.2.1", 5)}
    return HTTPConnection({"type": kind, "headers": headers, **place, **scope})


def check(ask: Callable[..., Any], *, timeout_s: float = 10.0, **scope: Any) -> Credentials:
    return asyncio.run(HostAuthenticator(ask, timeout_s=timeout_s)(connection(**scope)))


def code_of(ask: Callable[..., Any], *, timeout_s: float = 10.0, origin: bytes | None = None) -> str:
    """The code that a client is refused with; "" where it is let in."""
    admission = Admission(origins=Origins(()), authenticate=HostAuthenticator(ask, timeout_s=timeout_s))
    made = connection()
    if origin is not None:
        made.scope["headers"].append((b"origin", origin))
    try:
        asyncio.run(admission.admit(made))
    except Fault as fault:
        assert (fault.code == "internal_error") == bool((fault.details or {}).get("correlation_id"))
        return fault.code
    return ""


ANSWERS: list[tuple[object, Principal, float | None]] = [
    ("ada", Principal("", "ada"), None),
    (("acme", "ada"), Principal("acme", "ada"), None),
    (("", "ada"), Principal("", "ada"), None),
    (SignedIn("ada"), Principal("", "ada"), None),
    (SignedIn("ada", tenant_id="acme", expires_at=FAR), Principal("acme", "ada"), FAR),
]


@pytest.mark.parametrize(("answer", "principal", "expires_at"), ANSWERS)
@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_an_answer_is_whose_the_request_is(
    answer: object, principal: Principal, expires_at: float | None, kind: str
) -> None:
    async def ask(connection: HTTPConnection) -> object:
        return answer

    assert check(ask, kind=kind) == Credentials(principal=principal, expires_at=expires_at, subprotocol=None)


def test_the_callable_sees_the_request() -> None:
    def ask(connection: HTTPConnection) -> str:
        client = connection.client
        assert client is not None
        seen = (connection.cookies["session"], connection.query_params["user"], client.host, connection.scope["type"])
        return "-".join(seen)

    assert check(ask).principal.user_id == "s1-mallory-192.0.2.1-websocket"


@pytest.mark.parametrize(
    ("offered", "answered"),
    [
        (["agentws.v1.json"], "agentws.v1.json"),
        (["other", "agentws.v1.json"], "agentws.v1.json"),
        (["jwt.x.y.z"], None),
    ],
)
def test_the_subprotocol_is_answered_where_ours_is_offered(offered: list[str], answered: str | None) -> None:
    assert check(lambda _: "ada", subprotocols=offered).subprotocol == answered


async def answer_later(connection: HTTPConnection, user: str = "ada") -> str:
    await asyncio.sleep(0)
    return user


class Plain:
    def __init__(self, call: Callable[[HTTPConnection], Any]) -> None:
        self.call = call

    def __call__(self, connection: HTTPConnection) -> Any:
        return self.call(connection)


class Async:
    async def __call__(self, connection: HTTPConnection) -> str:
        return await answer_later(connection)


@pytest.mark.parametrize(
    "ask",
    [
        answer_later,
        functools.partial(answer_later, user="ada"),
        lambda connection: answer_later(connection),
        lambda connection: "ada",
        Plain(lambda connection: "ada"),
        Plain(answer_later),
        Async(),
    ],
)
def test_any_kind_of_callable_will_do(ask: Callable[..., Any]) -> None:
    assert check(ask).principal == Principal("", "ada")


def test_one_that_is_not_async_may_block_and_one_that_is_runs_in_the_loop() -> None:
    def blocking(connection: HTTPConnection) -> str:
        return "loop" if threading.current_thread() is threading.main_thread() else "thread"

    async def in_loop(connection: HTTPConnection) -> str:
        return blocking(connection)

    assert check(blocking).principal.user_id == "thread"
    assert check(in_loop).principal.user_id == "loop"


@pytest.mark.parametrize(
    "answer",
    [None, "", "a\nb", "a" * 256, ("a\x00", "ada"), SignedIn(""), SignedIn("ada", expires_at=time.time() - 1)],
)
def test_nobody_is_signed_in(answer: object) -> None:
    assert code_of(lambda _: answer) == "unauthorized"


@pytest.mark.parametrize(
    "answer",
    [
        True,
        7,
        b"ada",
        ["ada"],
        ("a", "b", "c"),
        ("acme", 7),
        (None, "ada"),
        {"user_id": "ada"},
        SignedIn(7),  # type: ignore[arg-type]
        SignedIn("ada", tenant_id=None),  # type: ignore[arg-type]
        SignedIn("ada", expires_at="soon"),  # type: ignore[arg-type]
        SignedIn("ada", expires_at=True),
        SignedIn("ada", expires_at=float("nan")),
        SignedIn("ada", expires_at=float("inf")),
        SignedIn("ada", expires_at=FAR * 1000),
    ],
)
def test_an_answer_that_is_none_is_our_error_and_no_sign_in(answer: object, caplog: pytest.LogCaptureFixture) -> None:
    assert code_of(lambda _: answer) == "internal_error"
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


def test_what_the_callable_raises_is_our_error_and_no_sign_in(caplog: pytest.LogCaptureFixture) -> None:
    def fails(connection: HTTPConnection) -> str:
        raise RuntimeError("the session store is away")

    async def fails_later(connection: HTTPConnection) -> str:
        await asyncio.sleep(0)
        raise KeyError("session")

    assert code_of(fails) == code_of(fails_later) == "internal_error"
    assert all(getattr(record, "correlation_id", None) for record in caplog.records)
    assert "the session store is away" in caplog.text


def test_one_that_does_not_answer_is_our_error(caplog: pytest.LogCaptureFixture) -> None:
    async def hangs(connection: HTTPConnection) -> str:
        await asyncio.Event().wait()
        return "ada"

    assert code_of(hangs, timeout_s=0.01) == "internal_error"


def test_a_page_of_another_site_is_refused_whatever_its_cookie_says() -> None:
    assert code_of(lambda _: "ada", origin=b"http://evil.example") == "forbidden_origin"
    assert code_of(lambda _: "ada", origin=b"http://a.example") == ""


def test_no_token_is_taken() -> None:
    with pytest.raises(Fault, match="unauthorized"):
        HostAuthenticator(lambda _: "ada").check_token("x.y.z")
