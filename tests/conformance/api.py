"""The routes beside the WebSocket as one user calls them: every body is held to its row, every event stream to the
rules of a subscription."""

import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from .servers import Server
from .shapes import EVENTS, Frame, check_frame
from .tokens import bearer, token
from .told import PATIENCE_S, Told, assert_nothing_internal, fresh

__all__ = ["STATUS_OF", "Api", "Stream", "anonymous", "calling", "error_of"]

STATUS_OF: Mapping[str, int] = {
    **dict.fromkeys(["invalid_json", "not_an_object", "missing_type", "unknown_type", "reserved_type"], 400),
    **dict.fromkeys(["not_implemented", "validation_error", "ambiguous_thread"], 400),
    "unauthorized": 401,
    **dict.fromkeys(["forbidden_origin", "identity_mismatch"], 403),
    **dict.fromkeys(["thread_not_found", "run_not_found", "agent_not_found"], 404),
    **dict.fromkeys(["run_id_conflict", "idempotency_conflict", "thread_busy"], 409),
    **dict.fromkeys(["rate_limited", "too_many_runs", "too_many_subscriptions", "too_many_threads"], 429),
    **dict.fromkeys(["overloaded", "draining", "database_unavailable"], 503),
    "internal_error": 500,
}


class Stream(Told):
    """An event stream: `data` is the frame, `event` its type, `id` the `seq` of a run event."""

    def __init__(self, response: httpx.Response) -> None:
        super().__init__()
        self._lines = response.aiter_lines()
        self._fields: dict[str, str] = {}

    async def read(self) -> str:
        while "data" not in (fields := await self._fields_of_one()):
            pass
        self._fields = fields
        return fields["data"]

    async def _fields_of_one(self) -> dict[str, str]:
        fields: dict[str, str] = {}
        async for line in self._lines:
            if not line:
                return fields
            name, _, value = line.partition(":")
            if name:  # A line that begins with a colon is a comment.
                assert name not in fields, f"{name} twice in one event"
                fields[name] = value.removeprefix(" ")
        raise AssertionError("the stream has ended")

    def noted(self, frame: Frame) -> None:
        assert self._fields.get("event") == frame["type"]
        assert self._fields.get("id") == (str(frame["seq"]) if frame["type"] in EVENTS else None)


def error_of(response: httpx.Response, *codes: str, field: str | None = None) -> Frame:
    """The error frame of a refusal; fails unless it is one of `codes` with the status of its code."""
    assert_nothing_internal(response.text)
    assert response.headers["Content-Type"].startswith("application/json"), response.text
    error: Frame = response.json()
    assert error.get("type") == "error", (response.status_code, error)
    check_frame(error)
    assert error["code"] in codes, error
    assert response.status_code == STATUS_OF[error["code"]], (response.status_code, error)
    if response.status_code == 503:
        assert int(response.headers["Retry-After"]) >= 1
    if field is not None:
        assert error.get("details", {}).get("field") == field, error
    return error


@dataclass(frozen=True)
class Api:
    """The routes as one user calls them."""

    http: httpx.AsyncClient
    user_id: str

    async def granted(self, method: str, path: str, status: int = 200, **options: Any) -> Frame:
        """The JSON object that answers a call."""
        response = await self.http.request(method, path, **options)
        assert_nothing_internal(response.text)
        assert response.status_code == status, (response.status_code, response.text)
        assert response.headers["Content-Type"].startswith("application/json")
        body: Frame = response.json()
        assert isinstance(body, dict)
        if "type" in body:
            check_frame(body)
        return body

    async def get(self, path: str, **params: Any) -> Frame:
        return await self.granted("GET", path, params=params)

    async def refused(self, method: str, path: str, *codes: str, field: str | None = None, **options: Any) -> Frame:
        """The error that answers a call, with the status of its code."""
        return error_of(await self.http.request(method, path, **options), *codes, field=field)

    async def start(self, frame: Frame, *, path: str = "/api/runs", status: int = 202, key: str | None = None) -> Frame:
        """A start; its `request_accepted`."""
        headers = {} if key is None else {"Idempotency-Key": key}
        accepted = await self.granted("POST", path, status, json=frame, headers=headers)
        assert accepted["type"] == "request_accepted", accepted
        return accepted

    @contextlib.asynccontextmanager
    async def stream(self, thread_id: str, *, last_event_id: int | None = None, **params: Any) -> AsyncIterator[Stream]:
        """The thread's events as a stream."""
        headers = {"Accept": "text/event-stream"}
        if last_event_id is not None:
            headers["Last-Event-ID"] = str(last_event_id)
        path = f"/api/threads/{thread_id}/events"
        async with self.http.stream("GET", path, params=params, headers=headers) as response:
            assert response.status_code == 200, await response.aread()
            assert response.headers["Content-Type"].startswith("text/event-stream")
            yield Stream(response)


@contextlib.asynccontextmanager
async def anonymous(server: Server) -> AsyncIterator[httpx.AsyncClient]:
    """A client without credentials."""
    async with httpx.AsyncClient(base_url=server.http_url, trust_env=False, timeout=PATIENCE_S) as http:
        yield http


@contextlib.asynccontextmanager
async def calling(server: Server, user: str | None = None) -> AsyncIterator[Api]:
    """The routes as a user calls them, one of its own where none is named."""
    name = fresh("user") if user is None else user
    async with anonymous(server) as http:
        if server.jwt_secret:
            http.headers.update(bearer(token(server, name)))
        else:
            http.params = httpx.QueryParams(user=name)
        yield Api(http, name)
