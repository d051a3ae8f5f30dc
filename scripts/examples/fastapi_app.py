"""A FastAPI application with sessions of its own, and agents mounted under /agents."""

import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import Body, FastAPI, Response
from starlette.requests import HTTPConnection

import agentws

SESSION_S = 8 * 3600


class Sessions:
    """Who is signed in and until when, by the cookie's value; a real host has a table and checks a password."""

    def __init__(self) -> None:
        self._users: dict[str, agentws.SignedIn] = {}

    def sign_in(self, user: str) -> str:
        key = secrets.token_urlsafe()
        self._users[key] = agentws.SignedIn(user, expires_at=time.time() + SESSION_S)
        return key

    async def user_of(self, connection: HTTPConnection) -> agentws.SignedIn | None:
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
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with agentws.lifespan(agents):  # a mounted application's own lifespan does not run
        yield


app = FastAPI(lifespan=lifespan)
app.mount("/agents", agents)


@app.post("/sign-in")
async def sign_in(response: Response, user: str = Body(embed=True)) -> None:
    response.set_cookie("session", sessions.sign_in(user), httponly=True, samesite="lax")
