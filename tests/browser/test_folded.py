"""The JavaScript client makes the same of events that were merged, also of one that begins before what it holds."""

import asyncio
import json
from typing import Any

import asyncpg
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from playwright.async_api import Page, expect

from agentws.core.context import Principal
from agentws.core.fold import merge
from agentws.core.framing import frame
from agentws.ports import ThreadKey
from agentws.store.embedded import EmbeddedPostgres
from agentws.store.pool import Database
from agentws.store.retention import PgRetention
from agentws.wire.ids import ThreadId

from ..conftest import copy_template
from ..histories import Event, threads
from ..processes import ServerProcess, running
from .conftest import OpenTab
from .screen import answer_to

DAY_S = 86400.0
FOLD = """async (histories) => {
    const { ThreadLog } = await import("./agentws.js");
    return histories.map((events) => {
        const log = new ThreadLog();
        for (const each of events) log.apply(each);
        return [...log.runs.values()].map(({ status, text, attempt, request, entries }) => ({
            status, text, attempt, request,
            entries: entries.map(({ startedAt, endedAt, ...told }) => told),
        }));
    });
}"""


@pytest_asyncio.fixture(loop_scope="session")
async def page(open_tab: OpenTab, quick: ServerProcess, user: str) -> Page:
    return (await (await open_tab(quick)).visit(user)).page


async def test_a_client_makes_the_same_of_merged_events(page: Page) -> None:
    loop = asyncio.get_running_loop()

    async def examine(events: list[Event], after: int) -> None:
        def told(some: list[Event]) -> list[dict[str, Any]]:
            return [json.loads(frame(*each)) for each in some]

        merged = merge(events)
        resumed = [*events[:after], *(each for each in merged if each[1].seq > after)]
        whole, *others = await page.evaluate(FOLD, [told(events), told(merged), told(resumed)])
        assert others == [whole, whole]

    @settings(database=None, deadline=None, max_examples=30, suppress_health_check=list(HealthCheck))
    @given(threads(), st.integers(0, 60))
    def check(events: list[Event], after: int) -> None:
        asyncio.run_coroutine_threadsafe(examine(events, after), loop).result()

    await asyncio.to_thread(check)


async def test_what_was_said_stays_where_its_events_have_gone_by_age(
    open_tab: OpenTab, cluster: EmbeddedPostgres, template: str, user: str
) -> None:
    made = await copy_template(cluster, template)
    env = {"AGENTWS_DATABASE_URL": made.url, "AGENTWS_MIGRATE_URL": made.owner_url, "AGENTWS_DRAIN_GRACE_S": "0"}
    with running(env, "--env", "development") as process:
        screen = await (await open_tab(process, complains=True)).visit(user)
        await screen.answers(await screen.ask("old question"), answer_to("old question"))
        owner = await asyncpg.connect(made.owner_url)
        await owner.execute("UPDATE agentws.event SET at = at - interval '30 days'")
        await owner.close()
        await screen.answers(await screen.ask("new question"), answer_to("new question"))
        pool = Database(made.url, size=1, timeout_s=20)
        await pool.open(wait_s=20)
        key = ThreadKey(Principal("", user), ThreadId(screen.thread))
        assert await PgRetention(pool).remove_aged(key, older_than_s=10 * DAY_S, limit=1000) > 0
        await pool.close()
        again = await (await open_tab(process, complains=True)).visit(user, thread=screen.thread)
        await expect(again.runs).to_have_count(2)
        await again.answers(again.runs.first, answer_to("old question"))
        await again.answers(again.runs.last, answer_to("new question"))
        await expect(again.steps(again.runs.first, "tool")).to_have_count(0)
        await expect(again.steps(again.runs.last, "tool")).to_have_count(1)
        assert again.complaints == []
