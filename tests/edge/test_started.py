"""An application that was not started says so, mounted or not, and lets through what needs no start."""

import json
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.types import ASGIApp
from starlette.websockets import WebSocket

from agentws.edge.started import OnceStarted


def application(started: list[bool]) -> Starlette:
    async def websocket(connection: WebSocket) -> None:
        await connection.accept()
        await connection.close()

    async def answer(request: object) -> PlainTextResponse:
        return PlainTextResponse("answered")

    paths = ("/api/me", "/api/protocol.json", "/healthz", "/")
    app = Starlette(routes=[*(Route(path, answer) for path in paths), WebSocketRoute("/ws", websocket)])
    app.add_middleware(OnceStarted, is_started=lambda: bool(started))
    return app


async def get(app: ASGIApp, path: str) -> httpx.Response:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://a.test") as client:
        return await client.get(path)


async def upgrade(app: ASGIApp, path: str) -> list[dict[str, Any]]:
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "websocket", "path": path, "headers": [], "subprotocols": [], "query_string": b""}
    await app({**scope, "extensions": {"websocket.http.response": {}}}, receive, send)
    return sent


ERROR = {
    "type": "error",
    "id": None,
    "code": "overloaded",
    "message": "This server has not been started.",
    "retryable": True,
    "retry_after_ms": 1000,
}


@pytest.mark.parametrize("mount", ["", "/agents"])
async def test_what_needs_a_start_is_refused_until_then(mount: str, caplog: pytest.LogCaptureFixture) -> None:
    started: list[bool] = []
    made = application(started)
    app = Starlette(routes=[Mount(mount, made)]) if mount else made
    for _ in range(2):
        answer = await get(app, f"{mount}/api/me")
        assert (answer.status_code, answer.headers["retry-after"], answer.json()) == (503, "1", ERROR)
        start, body = await upgrade(app, f"{mount}/ws")
        assert (start["status"], json.loads(body["body"])) == (503, ERROR)
    assert caplog.messages == ["refused: not started; a host enters agentws.lifespan(app) in its own lifespan"]
    started.append(True)
    assert (await get(app, f"{mount}/api/me")).text == "answered"
    assert (await upgrade(app, f"{mount}/ws"))[0]["type"] == "websocket.accept"


@pytest.mark.parametrize("path", ["/healthz", "/", "/api/protocol.json"])
@pytest.mark.parametrize("mount", ["", "/agents"])
async def test_what_needs_none_is_answered(mount: str, path: str) -> None:
    app = application([])
    assert (await get(Starlette(routes=[Mount(mount, app)]) if mount else app, mount + path)).text == "answered"
