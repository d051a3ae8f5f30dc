"""Section 6, what is refused beside the WebSocket: bodies that cannot be read, strangers, and other users' things."""

import json
from typing import Any

import pytest

from .api import STATUS_OF, anonymous, calling, error_of
from .client import JwtServer, Server, connect, fresh
from .runs import at_work
from .shapes import SERVER_TYPES, Frame, check_frame
from .test_json_faults import BROKEN, UNREADABLE

MAX_BYTES = 1024 * 1024
JSON_BODY = {"Content-Type": "application/json"}
START: Frame = {"type": "chat", "content": "hi"}

STARTS = ["/api/runs", "/api/threads/t/runs"]
POSTED = [*STARTS, "/api/tickets"]
ROUTES = [
    ("GET", "/api/me"),
    ("POST", "/api/tickets"),
    ("GET", "/api/threads"),
    ("GET", "/api/threads/t"),
    ("GET", "/api/threads/t/messages"),
    ("GET", "/api/threads/t/events"),
    ("POST", "/api/threads/t/runs"),
    ("POST", "/api/runs"),
    ("POST", "/api/runs/r/stop"),
]


@pytest.mark.parametrize("path", STARTS)
@pytest.mark.parametrize("raw", BROKEN[1:])
async def test_a_body_that_is_broken_is_invalid_json(server: Server, path: str, raw: str) -> None:
    async with calling(server) as api:
        await api.refused("POST", path, "invalid_json", content=raw, headers=JSON_BODY)


async def test_an_empty_start_is_no_start(server: Server) -> None:
    async with calling(server) as api:
        for raw in (None, b""):
            codes = ("invalid_json", "missing_type", "not_an_object")
            await api.refused("POST", "/api/runs", *codes, content=raw, headers=JSON_BODY)


@pytest.mark.parametrize("raw", ["{", "[]", '"ticket"', "5", '{"ttl_seconds": 60', '{"ttl_seconds": NaN}'])
async def test_a_ticket_is_not_bought_with_a_body_that_is_no_object(server: Server, raw: str) -> None:
    async with calling(server) as api:
        codes = ("invalid_json", "not_an_object", "validation_error")
        await api.refused("POST", "/api/tickets", *codes, content=raw, headers=JSON_BODY)


@pytest.mark.parametrize("path", STARTS)
@pytest.mark.parametrize("raw", ["[]", '"chat"', "5", "true", '[{"type": "chat"}]'])
async def test_a_body_that_is_no_object_is_not_an_object(server: Server, path: str, raw: str) -> None:
    async with calling(server) as api:
        await api.refused("POST", path, "not_an_object", content=raw, headers=JSON_BODY)


@pytest.mark.parametrize("value", UNREADABLE.values(), ids=UNREADABLE.keys())
async def test_an_unreadable_value_in_a_body_is_refused(server: Server, value: str) -> None:
    async with calling(server) as api:
        raw = '{"type": "chat", "content": "hi", "context": {"a": ' + value + "}}"
        await api.refused("POST", "/api/runs", "invalid_json", "validation_error", content=raw, headers=JSON_BODY)
        assert (await api.get("/api/threads"))["threads"] == []


@pytest.mark.parametrize("garbage", [b"\xff", b"\xc3\x28", b"\xed\xa0\x80"])
async def test_a_body_that_is_not_utf8_is_refused(server: Server, garbage: bytes) -> None:
    async with calling(server) as api:
        raw = b'{"type": "chat", "content": "' + garbage + b'"}'
        await api.refused("POST", "/api/runs", "invalid_json", "validation_error", content=raw, headers=JSON_BODY)


@pytest.mark.parametrize(
    ("frame", "code", "field"),
    [
        ({}, "missing_type", None),
        ({"type": None}, "missing_type", None),
        ({"type": "nonsense"}, "unknown_type", None),
        *[({"type": kind}, "reserved_type", None) for kind in SERVER_TYPES[::9]],
        ({"type": "chat", "payload": []}, "validation_error", None),
        ({"type": "chat"}, "validation_error", "content"),
        ({"type": "start_agent"}, "validation_error", "user_request"),
        ({"type": "chat", "content": 5}, "validation_error", "content"),
        (START | {"id": "a b"}, "validation_error", "id"),
        (START | {"run_id": "a b"}, "validation_error", "run_id"),
        (START | {"context": "text"}, "validation_error", "context"),
        (START | {"if_busy": "sometimes"}, "validation_error", "if_busy"),
    ],
)
async def test_a_faulty_frame_is_400(server: Server, frame: Frame, code: str, field: str | None) -> None:
    async with calling(server) as api:
        await api.refused("POST", "/api/runs", code, field=field, json=frame)


@pytest.mark.parametrize("kind", ["ping", "subscribe", "stop_agent", "create_thread", "authenticate", "list_threads"])
async def test_a_frame_that_starts_no_run_is_400(server: Server, kind: str) -> None:
    async with calling(server) as api:
        response = await api.http.post("/api/runs", json={"type": kind, "thread_id": "t", "run_id": "r"})
        assert response.status_code == 400
        check_frame(response.json())
        assert response.json()["type"] == "error"


def start_of(size: int) -> bytes:
    """A start of exactly `size` bytes."""
    bare = json.dumps(START | {"context": {"a": ""}}).encode()
    return bare[:-3] + b"x" * (size - len(bare)) + bare[-3:]


async def test_a_body_of_exactly_the_limit_is_read(server: Server) -> None:
    async with calling(server) as api:
        await api.granted("POST", "/api/runs", 202, content=start_of(MAX_BYTES), headers=JSON_BODY)


@pytest.mark.parametrize("path", [*POSTED, "/api/runs/r/stop"])
async def test_a_larger_body_is_413(server: Server, path: str) -> None:
    async with calling(server) as api:
        response = await api.http.post(path, content=start_of(MAX_BYTES + 1), headers=JSON_BODY)
        assert response.status_code == 413
        assert response.json()["type"] == "error"
        check_frame(response.json())
        assert (await api.get("/api/threads"))["threads"] == []


async def test_a_larger_body_without_a_length_is_413(server: Server) -> None:
    async def pieces() -> Any:
        for at in range(0, MAX_BYTES + 1, 65536):
            yield start_of(MAX_BYTES + 1)[at : at + 65536]

    async with calling(server) as api:
        response = await api.http.post("/api/runs", content=pieces(), headers=JSON_BODY)
        assert response.status_code == 413


@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_without_credentials_every_route_is_401(jwt_server: JwtServer, method: str, path: str) -> None:
    async with anonymous(jwt_server) as http:
        for headers in ({}, {"Authorization": "Bearer broken"}, {"Authorization": "Basic dTpw"}):
            body = START if method == "POST" else None
            error_of(await http.request(method, path, headers=headers, json=body), "unauthorized")


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/api/protocol.json", "/"])
async def test_what_is_open_needs_no_credentials(jwt_server: JwtServer, path: str) -> None:
    async with anonymous(jwt_server) as http:
        assert (await http.get(path)).status_code == 200


@pytest.mark.parametrize("rest", ["", "/messages", "/events", "/runs"])
async def test_another_users_thread_is_404_on_every_route(server: Server, rest: str) -> None:
    async with connect(server) as owner, calling(server) as stranger:
        thread_id = (await owner.run("mine"))[0]["thread_id"]
        path = f"/api/threads/{thread_id}{rest}"
        if rest == "/runs":
            await stranger.refused("POST", path, "thread_not_found", json=START)
        else:
            await stranger.refused("GET", path, "thread_not_found")
        if rest == "/events":
            headers = {"Accept": "text/event-stream"}
            await stranger.refused("GET", path, "thread_not_found", headers=headers)
        assert (await stranger.get("/api/threads"))["threads"] == []


async def test_another_users_run_is_404_and_goes_on(server: Server) -> None:
    async with connect(server) as owner, calling(server) as stranger:
        accepted = await at_work(owner)
        await stranger.refused("POST", f"/api/runs/{accepted['run_id']}/stop", "run_not_found")
        assert (await owner.new_thread(accepted["thread_id"]))["running_run_id"] == accepted["run_id"]


async def test_two_users_names_are_apart_over_http_too(server: Server) -> None:
    name, key = fresh("t"), fresh("key")
    async with connect(server) as one, connect(server) as two:
        for client in (one, two):
            await client.new_thread(name, title=client.user_id)
            async with calling(server, client.user_id) as api:
                frame = START | {"run_id": f"run-{name}"}
                accepted = await api.start(frame, path=f"/api/threads/{name}/runs", key=key)
                assert accepted["duplicate"] is False
                thread = await api.get(f"/api/threads/{name}")
                assert thread["title"] == client.user_id
                messages = (await api.get(f"/api/threads/{name}/messages"))["messages"]
                assert [each["run_id"] for each in messages if each["role"] == "user"] == [f"run-{name}"]


def test_every_code_that_a_route_may_answer_has_a_status() -> None:
    assert set(STATUS_OF.values()) == {400, 401, 403, 404, 409, 429, 500, 503}
