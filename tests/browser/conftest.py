"""What browser tests are given: one Chromium, servers of their own, tabs that are watched for complaints."""

import secrets
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, async_playwright

from agentws.store.embedded import EmbeddedPostgres

from ..conftest import copy_template
from ..processes import ServerProcess, running
from .screen import Screen

HERE = Path(__file__).parent
CHROMIUM = "/usr/bin/chromium"
SWITCHES = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
SWITCHES += ["--disable-component-update", "--disable-sync"]
WORDS_PER_S = 40

OpenTab = Callable[..., Awaitable[Screen]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One event loop for all of them: it is the browser's."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)


async def environment(cluster: EmbeddedPostgres, template: str) -> dict[str, str]:
    made = await copy_template(cluster, template)
    return {"AGENTWS_DATABASE_URL": made.url, "AGENTWS_MIGRATE_URL": made.owner_url, "AGENTWS_DRAIN_GRACE_S": "0"}


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def quick(cluster: EmbeddedPostgres, template: str) -> AsyncIterator[ServerProcess]:
    """A server whose demo agent answers at once."""
    with running(await environment(cluster, template), "--env", "development") as process:
        yield process


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def slow(cluster: EmbeddedPostgres, template: str) -> AsyncIterator[ServerProcess]:
    """A server whose demo agent says 40 words a second, and that comes back on the same port when it was killed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = {
        **await environment(cluster, template),
        "AGENTWS_DEMO_WORDS_PER_S": str(WORDS_PER_S),
        "AGENTWS_LEASE_TTL_S": "3",
        "AGENTWS_DRAIN_GRACE_S": "2",
    }
    with running(env, "--env", "development", "--port", str(port)) as process:
        yield process


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def guarded(cluster: EmbeddedPostgres, template: str) -> AsyncIterator[ServerProcess]:
    """A server that wants tokens."""
    secret = secrets.token_urlsafe(48)
    env = {**await environment(cluster, template), "AGENTWS_JWT_SECRET": secret}
    with running(env, "--env", "staging") as process:
        process.jwt_secret = secret
        yield process


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def chromium() -> AsyncIterator[Browser]:
    """Debian's Chromium, without a window."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=SWITCHES)
        yield browser
        await browser.close()


@pytest_asyncio.fixture(loop_scope="session")
async def open_tab(chromium: Browser, slow: ServerProcess) -> AsyncIterator[OpenTab]:
    """Opens tabs, each with a profile of its own; at the end none may have complained.

    Its arguments: `server` (else the slow one), `complains` (what the browser says of a broken line is no fault), and
    what Playwright's `new_context` takes.
    """
    screens: list[tuple[Screen, bool]] = []

    async def open_one(server: ServerProcess | None = None, *, complains: bool = False, **options: Any) -> Screen:
        context = await chromium.new_context(**{"viewport": {"width": 1280, "height": 800}, **options})
        screen = await Screen.made(context, (server or slow).http_url)
        screens.append((screen, complains))
        return screen

    yield open_one
    for screen, _ in screens:
        await screen.page.context.close()
    assert [each.complaints for each, complains in screens if each.complaints and not complains] == []


@pytest.fixture
def user() -> Iterator[str]:
    """A user of this test's own."""
    yield f"user-{secrets.token_hex(6)}"
