"""`agentws explain` beside a running server: where a run's time went, and nothing that was said in it."""

import asyncio
import os
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import agentws
from agentws.cli.explain import lines
from agentws.core.timeline import EventOutline, RunOutline

from ..conftest import StartService, TestDatabase
from ..peers import peer
from ..processes import ROOT


async def explain(database: TestDatabase, *arguments: str, **env: str) -> "subprocess.CompletedProcess[str]":
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("AGENTWS_")}
    command = [sys.executable, "-m", "agentws", "explain", *arguments, "--database-url", database.url]
    values = {"AGENTWS_MIGRATE_URL": database.owner_url, **{f"AGENTWS_{name}": value for name, value in env.items()}}
    return await asyncio.to_thread(
        subprocess.run, command, env=inherited | values, cwd=ROOT, capture_output=True, text=True, timeout=60
    )


async def find(query: str) -> list[str]:
    await asyncio.sleep(0.05)
    return ["secret result"]


def count(items: list[str]) -> int:
    return len(items)


async def researcher(run: agentws.Run) -> None:
    await run.think("secret thought")
    found = await run.call_tool("find", find, query=run.text)
    await run.write("secret answer ")
    await run.call_tool("count", count, items=found)
    await run.write("secret end")


def seconds(text: str) -> float:
    number, unit = text.split()
    return float(number) / (1000 if unit == "ms" else 1)


async def test_a_run_with_two_tools_is_told_from_its_waiting_to_its_end(
    start_service: StartService, database: TestDatabase
) -> None:
    gate = asyncio.Event()

    async def gated(run: agentws.Run) -> None:
        await gate.wait()

    service = await start_service({"researcher": researcher, "gated": gated})
    async with peer(service) as client:
        first = await client.ask("secret question", agent="gated", run_id="first")
        await client.ask("secret question", agent="researcher", run_id="mine", thread_id=first["thread_id"])
        gate.set()
        await client.ended("mine")
        done = await explain(database, "mine", "--user", "ada")
    assert (done.returncode, done.stderr) == (0, "")
    assert "secret" not in done.stdout
    told = done.stdout.splitlines()
    assert told[0] == f"run mine of thread {first['thread_id']}: agent researcher, completed"
    what = re.findall(r"\|[ .#]{32}\| (.*)$", done.stdout, re.MULTILINE)
    assert what[:3] == [
        "accepted: user_message of 15 characters, place 1 in the queue",
        "waiting behind first (gated, completed)",
        "started researcher",
    ]
    tools = [line for line in what if line.startswith("tool ")]
    assert re.fullmatch(r"tool find: 27 bytes of parameters, done after \d+ ms, 17 bytes of result", tools[0])
    assert re.fullmatch(r"tool count: 27 bytes of parameters, done after \d+ ms, 1 bytes of result", tools[1])
    assert what[-1] == "completed: 24 characters"
    phases = dict(re.findall(r"^ +(waiting|model|tools|database) +([\d.]+ m?s) +[\d.]+%$", done.stdout, re.MULTILINE))
    assert list(phases) == ["waiting", "model", "tools", "database"]
    assert seconds(phases["tools"]) >= 0.05
    total = re.search(r"([\d.]+ m?s) in all", done.stdout)
    assert total is not None
    # Each is rounded for itself.
    assert sum(map(seconds, phases.values())) == pytest.approx(seconds(total[1]), abs=0.02)
    assert re.search(r"^ +sending [1-9]\d* deliveries, ", done.stdout, re.MULTILINE)
    assert re.search(r"^ +appends [1-9]\d*, which took ", done.stdout, re.MULTILINE)
    assert "not known: how long the last append took" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "env", "said"),
    [
        (("mine", "--user", "eve"), {}, "agentws: user 'eve' has no run 'mine'"),
        (("mine", "--user", "ada", "--tenant", "other"), {}, "agentws: user 'ada' has no run 'mine'"),
        (("mine",), {}, "agentws: user 'dev' has no run 'mine'"),
        (("mine",), {"JWT_SECRET": "s" * 48}, "agentws: --user: a run's id is a name within its user; say whose it is"),
    ],
)
async def test_a_run_is_found_under_its_own_user_only(
    start_service: StartService, database: TestDatabase, arguments: tuple[str, ...], env: dict[str, str], said: str
) -> None:
    service = await start_service()
    async with peer(service) as client:
        await client.run("hi", agent="echo", run_id="mine")
    done = await explain(database, *arguments, **env)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", said + "\n")


def outline(**fields: Any) -> RunOutline:
    accepted_at = datetime(2026, 1, 2, tzinfo=UTC)
    values: dict[str, Any] = {
        "run_id": "r", "thread_id": "t", "agent": "demo", "kind": "chat", "status": "running", "attempt": 1,
        "accepted_at": accepted_at, "started_at": accepted_at, "ended_at": None, "now": accepted_at,
        "asked_characters": 5, "answered_characters": None, "events": [], "more": False, "ahead": [], **fields,
    }  # fmt: skip
    return RunOutline(**values)


def test_a_run_that_has_taken_no_time_is_told_too() -> None:
    assert "accepted 2026-01-02T00:00:00.000Z, 0.0 ms so far" in list(lines(outline()))


def test_what_an_agent_named_cannot_command_a_terminal() -> None:
    at = datetime(2026, 1, 2, tzinfo=UTC) + timedelta(seconds=1)
    events = [EventOutline(type="agent_event", attempt=1, at=at, name="\x1b[2J\nforged\u2028")]
    told = list(lines(outline(events=events, agent="a\x1bb", now=at)))
    assert not [line for line in told if not line.isprintable()]
    assert any("event ?[2J?forged?" in line for line in told)
