"""Chaos for some seconds, and its parts: the line that breaks, the schedule of a seed, the faults of the proof."""

import asyncio
import itertools
import json
import random
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from agentws.store.embedded import EmbeddedPostgres
from scripts.chaos.faults import FAULTS, dealt
from scripts.chaos.mutations import MUTATIONS
from scripts.chaos.pgproxy import Doubt, PgProxy
from scripts.chaos.world import free_ports

from ..conftest import TestDatabase

ROOT = Path(__file__).parents[2]
CALL = "SELECT agentws.register_node($1, 'a', '10 s')"


def chaos(*arguments: str) -> dict[str, Any]:
    """What a run of so many seconds says; it has found nothing."""
    command = [sys.executable, "-m", "scripts.chaos", "--no-minimum", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    return dict(json.loads(done.stdout))


def test_nothing_that_was_promised_breaks_while_everything_around_does(tmp_path: Path) -> None:
    # A seed whose faults that are asked for below come first in their rows.
    names = ",".join(name for name in FAULTS if name != "clock")
    report = chaos("--seconds", "12", "--seed", "863", "--users", "5", "--faults", names, "--keep", str(tmp_path))
    assert (report["servers"], report["findings"]) == (2, [])
    assert all(report["load"][name] for name in ("runs", "cuts", "events"))
    assert all(report["faults"][name] for name in ("kill", "terminate", "reset", "ambiguous"))
    assert "recording.txt" in {path.name for path in tmp_path.iterdir()}


@asynccontextmanager
async def proxied(cluster: EmbeddedPostgres, database: TestDatabase) -> AsyncIterator[tuple[PgProxy, str]]:
    """A line to a test's database, and the URL of its near end."""
    (port,) = free_ports(1)
    directory = database.url.partition("host=")[2].partition("&")[0].replace("%2F", "/")
    proxy = PgProxy(port, Path(directory, ".s.PGSQL.5432"), random.Random(1))
    await proxy.start()
    try:
        yield proxy, f"postgresql://postgres@127.0.0.1:{port}/{database.name}"
    finally:
        await proxy.close()


@pytest.mark.parametrize(("doubt", "rows"), [(Doubt.LOST, 1), (Doubt.UNSENT, 0)])
async def test_a_call_in_doubt_breaks_its_line_and_takes_effect_or_not(
    cluster: EmbeddedPostgres, database: TestDatabase, doubt: Doubt, rows: int
) -> None:
    async with proxied(cluster, database) as (proxy, url):
        connection = await asyncpg.connect(url)
        proxy.doubt("register_node", doubt)
        with pytest.raises((OSError, asyncpg.PostgresConnectionError)):
            await connection.execute(CALL, 1)
        connection.terminate()
        assert proxy.counts == {doubt.value: 1}
        after = await asyncpg.connect(url)
        assert await after.fetchval("SELECT count(*) FROM agentws.node") == rows
        await after.close()


async def test_a_late_call_takes_effect_after_its_caller_was_told_that_the_line_is_broken(
    cluster: EmbeddedPostgres, database: TestDatabase
) -> None:
    async with proxied(cluster, database) as (proxy, url):
        connection = await asyncpg.connect(url)
        proxy.doubt("register_node", Doubt.LATE)
        with pytest.raises((OSError, asyncpg.PostgresConnectionError)):
            await connection.execute(CALL, 1)
        connection.terminate()
        after = await asyncpg.connect(url)
        async with asyncio.timeout(30):
            while not await after.fetchval("SELECT count(*) FROM agentws.node"):
                pass
        await after.close()


async def test_a_call_that_is_refused_is_answered_and_the_next_one_is_in_doubt(
    cluster: EmbeddedPostgres, database: TestDatabase
) -> None:
    async with proxied(cluster, database) as (proxy, url):
        connection = await asyncpg.connect(url)
        await connection.execute(CALL, 1)
        proxy.doubt("register_node", Doubt.LOST)
        with pytest.raises(asyncpg.UniqueViolationError):
            await connection.execute(CALL, 1)
        with pytest.raises((OSError, asyncpg.PostgresConnectionError)):
            await connection.execute(CALL, 2)
        connection.terminate()
        assert proxy.counts == {"lost": 1}


async def test_hints_are_lost_and_counted(cluster: EmbeddedPostgres, database: TestDatabase) -> None:
    async with proxied(cluster, database) as (proxy, url):
        connection = await asyncpg.connect(url)
        heard: list[str] = []
        await connection.add_listener("news", lambda *told: heard.append(str(told[3])))
        proxy.hint_loss = 1.0
        await connection.execute("NOTIFY news, 'lost'")
        proxy.hint_loss = 0.0
        await connection.execute("NOTIFY news, 'told'")
        await connection.execute("SELECT 1")
        assert (heard, proxy.counts["hints"]) == (["told"], 1)
        await connection.close()


async def test_a_silent_line_carries_on_where_it_was(cluster: EmbeddedPostgres, database: TestDatabase) -> None:
    async with proxied(cluster, database) as (proxy, url):
        connection = await asyncpg.connect(url)
        proxy.flowing.clear()
        asking = asyncio.ensure_future(connection.fetchval("SELECT 1"))
        done, _ = await asyncio.wait({asking}, timeout=0.2)
        assert not done
        proxy.flowing.set()
        assert await asking == 1
        await connection.close()


def test_a_seed_deals_each_fault_first_once_and_then_as_often_as_is_said() -> None:
    kinds = {"kill": 3, "pause": 1}
    first, again = (list(itertools.islice(dealt(random.Random(5), kinds), 10)) for _ in range(2))
    assert first == again
    assert sorted(first[:2]) == ["kill", "pause"]
    assert sorted(first[2:6]) == sorted(first[6:]) == ["kill", "kill", "kill", "pause"]


@pytest.mark.parametrize("mutation", MUTATIONS, ids=[each.name for each in MUTATIONS])
def test_a_fault_of_the_proof_can_be_put_into_the_code_as_it_is(mutation: Any, tmp_path: Path) -> None:
    for path in (*(ROOT / "agentws").rglob("*.py"), *(ROOT / "agentws").rglob("*.sql")):
        target = tmp_path / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(path.read_text("utf-8"), "utf-8")
    calls = "".join(path.read_text("utf-8") for path in (ROOT / "agentws" / "store").glob("*.py"))
    for edit in mutation.edits:
        edit.apply(tmp_path)
        # A unit of work that nobody calls any more proves nothing.
        assert "/" in edit.place or f"agentws.{edit.place}(" in calls
