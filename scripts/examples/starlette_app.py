"""A Starlette application with sessions of its own, and agents mounted under /agents."""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route

import agentws


class Sessions:
    """Who is signed in, by the cookie's value; a real host has a table and checks a password."""

    def __init__(self) -> None:
        self._users: dict[str, str] = {}

    async def sign_in(self, request: Request) -> Response:
        key = secrets.token_urlsafe()
        self._users[key] = (await request.json())["user"]
        answer = PlainTextResponse("signed in")
        answer.set_cookie("session", key, httponly=True, samesite="lax")
        return answer

    def user_of(self, connection: HTTPConnection) -> str | None:
        return self._users.get(connection.cookies.get("session", ""))


def count_words(text: str) -> int:
    return len(text.split())


async def counter(run: agentws.Run) -> None:
    await run.think("Counting")
    words = await run.call_tool("count_words", count_words, text=run.text)
    await run.write(f"{run.context.user_id}, that was {words} words.")


sessions = Sessions()
agents = agentws.create_app(agentws.load_settings(auth="host"), {"counter": counter}, authenticate=sessions.user_of)


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    async with agentws.lifespan(agents):  # a mounted application's own lifespan does not run
        yield


routes = [Route("/sign-in", sessions.sign_in, methods=["POST"]), Mount("/agents", agents)]
app = Starlette(routes=routes, lifespan=lifespan)
