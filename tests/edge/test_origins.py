"""A browser's page may call where its origin is one of those that may, or the host that is called."""

import time

import pytest
from starlette.requests import HTTPConnection

from agentws.edge.origins import Origins
from agentws.wire.errors import Fault


def call(origin: str | None, *, host: str = "chat.example.com", scheme: str = "https") -> HTTPConnection:
    headers = [(b"host", host.encode())] if host else []
    if origin is not None:
        headers.append((b"origin", origin.encode("latin-1")))
    return HTTPConnection({"type": "websocket", "scheme": scheme, "headers": headers})


def allowed(origin: str | None, *patterns: str, host: str = "chat.example.com", scheme: str = "https") -> bool:
    try:
        Origins(patterns).check(call(origin, host=host, scheme=scheme))
    except Fault as fault:
        assert fault.code == "forbidden_origin"
        return False
    return True


@pytest.mark.parametrize("patterns", [(), ("https://app.example.com",), ("*",)])
def test_what_comes_from_no_browser_may_call(patterns: tuple[str, ...]) -> None:
    assert allowed(None, *patterns)


# Without patterns


@pytest.mark.parametrize(
    ("origin", "host", "scheme"),
    [
        ("https://chat.example.com", "chat.example.com", "https"),
        ("https://chat.example.com", "chat.example.com", "wss"),
        ("http://chat.example.com", "chat.example.com", "ws"),
        ("https://chat.example.com:443", "chat.example.com", "wss"),
        ("https://chat.example.com", "chat.example.com:443", "wss"),
        ("http://127.0.0.1:8000", "127.0.0.1:8000", "ws"),
        ("http://[::1]:8000", "[::1]:8000", "ws"),
        ("HTTPS://Chat.Example.Com", "chat.example.com", "wss"),
        # Behind a proxy that ends TLS.
        ("https://chat.example.com", "chat.example.com", "ws"),
        ("https://chat.example.com:8443", "chat.example.com:8443", "ws"),
    ],
)
def test_the_host_s_own_pages_may_call(origin: str, host: str, scheme: str) -> None:
    assert allowed(origin, host=host, scheme=scheme)


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("https://evil.example.com", "chat.example.com"),
        ("https://chat.example.com.evil.example", "chat.example.com"),
        ("https://example.com", "chat.example.com"),
        ("https://chat.example.com:8443", "chat.example.com"),
        ("http://127.0.0.1:8001", "127.0.0.1:8000"),
        ("http://localhost:8000", "127.0.0.1:8000"),
        ("null", "chat.example.com"),
        ("", "chat.example.com"),
        ("https://", "chat.example.com"),
        ("https://chat.example.com:port", "chat.example.com"),
        ("https://chat.example.com:99999", "chat.example.com"),
        ("https://[::1", "chat.example.com"),
        ("file://", ""),
        ("null", ""),
        ("https://chat.example.com", ""),
        ("https://chat.example.com", "chat.example.com:port"),
    ],
)
def test_other_pages_may_not(origin: str, host: str) -> None:
    assert not allowed(origin, host=host, scheme="wss")


# With patterns


@pytest.mark.parametrize(
    ("pattern", "origin"),
    [
        ("https://app.example.com", "https://app.example.com"),
        ("https://app.example.com/", "https://app.example.com"),
        ("https://App.Example.Com", "https://app.example.com"),
        ("https://app.example.com", "HTTPS://APP.EXAMPLE.COM"),
        ("https://app.example.com:8443", "https://app.example.com:8443"),
        ("https://*.example.com", "https://app.example.com"),
        ("https://*.example.com", "https://a.b.example.com"),
        ("https://pr-*.example.com", "https://pr-17.example.com"),
        ("*", "https://anything.at.all:1"),
        ("*", "null"),
    ],
)
def test_a_page_that_a_pattern_names_may_call(pattern: str, origin: str) -> None:
    assert allowed(origin, pattern)
    assert allowed(origin, "https://other.example.com", pattern)


@pytest.mark.parametrize(
    ("pattern", "origin"),
    [
        ("https://app.example.com", "http://app.example.com"),
        ("https://app.example.com", "https://app.example.com:8443"),
        ("https://app.example.com", "https://app.example.com.evil.example"),
        ("https://app.example.com", "https://evil.example/https://app.example.com"),
        ("https://app.example.com", "https://app-example.com"),
        ("https://app.example.com", "https://appXexample.com"),
        ("https://app.example.com", "https://app.example.com\n"),
        ("https://*.example.com", "https://example.com"),
        ("https://*.example.com", "https://.example.com.evil.example"),
        ("https://*.example.com", "https://evil.example/.example.com"),
        ("https://*.example.com", "https://evil.example#.example.com"),
        ("https://*.example.com", "https://evil.example:443@a.example.com"),
        ("https://*.example.com", "https://user@a.example.com"),
        ("https://*.example.com", "https://a.example.com:8443"),
        ("https://*.example.com", "https://.example.com\nx"),
        ("https://a*", "https://a"),
        ("https://app.example.com", "null"),
        ("https://app.example.com", ""),
    ],
)
def test_any_other_may_not(pattern: str, origin: str) -> None:
    assert not allowed(origin, pattern)


def test_where_pages_are_named_the_host_s_own_are_no_exception() -> None:
    assert not allowed("https://chat.example.com", "https://app.example.com")
    assert allowed("https://chat.example.com", "https://app.example.com", "https://chat.example.com")


def test_a_long_origin_that_nearly_matches_takes_no_long_time() -> None:
    started = time.process_time()
    assert not allowed("https://" + "." * 2_500, "https://*.*.*.example.com")
    # A tenth of a second; it was eighteen where a host had no greatest length.
    assert time.process_time() - started < 5
