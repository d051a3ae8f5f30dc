"""`agentws tail`: a thread's events, one line each."""

import asyncio
import json
import os
import re
import subprocess
import sys

import pytest

from agentws.client.connection import Client
from agentws.client.tail import line_of

from ..conformance.client import fresh
from ..processes import ROOT, ServerProcess
from .events import event
from .proxy import proxied
from .terminal import PATIENCE_S, clean_env, on_terminal, piped
from .test_connection import ended

DONE = {"execution_id": "x", "tool_name": "find", "success": True, "outcome": "done", "result": [1], "duration_ms": 12}


@pytest.mark.parametrize(
    ("kind", "payload", "told"),
    [
        ("agent_queued", {"position": 2}, "position 2"),
        ("agent_started", {"message": "hi\nthere", "status": "started"}, "hi⏎there"),
        ("agent_thinking", {"reasoning": "hm\x1b[1m", "step": 1, "offset": 0}, "hm␛[1m"),
        ("agent_message", {"text": "so", "offset": 0}, "so"),
        ("tool_executing", {"execution_id": "x", "tool_name": "find", "parameters": {"a": 1}}, 'find {"a":1}'),
        ("tool_completed", {**DONE, "error": None}, "find done in 12 ms: [1]"),
        (
            "tool_completed",
            {**DONE, "success": False, "outcome": "failed", "error": {"code": "tool_failed", "message": "No."}},
            "find failed in 12 ms: No.",
        ),
        ("agent_event", {"name": "app.x", "value": 1}, '{"name":"app.x","value":1}'),
        ("agent_completed", {"response": "so", "status": "completed", "duration_ms": 7}, "in 7 ms"),
        ("agent_error", {"code": "c", "message": "m", "duration_ms": 7}, "c: m"),
        ("agent_stopped", {"reason": "user", "duration_ms": 7}, "reason user"),
        ("agent_dreams", {"of": "sheep"}, '{"of":"sheep"}'),
    ],
)
def test_an_event_is_one_line(kind: str, payload: dict[str, object], told: str) -> None:
    made = event(12, kind, payload, run_id="run-0123456789abcdef")
    assert line_of(made) == f"03:04:05.678Z    12 {kind:<15} 89abcdef {told}"


def test_a_later_attempt_is_told() -> None:
    made = event(3, "agent_message", {"text": "so", "offset": 0}, attempt=2)
    assert line_of(made).endswith(" r so (attempt 2)")


async def a_thread(server: ServerProcess, user: str) -> str:
    async with Client(server.http_url, user=user) as client:
        accepted = await client.start("abc", agent="tool")
        await ended(client, accepted.run_id)
        return accepted.thread_id


async def test_what_happened_is_told_and_no_more_where_it_does_not_follow(server: ServerProcess) -> None:
    user = fresh("user")
    thread_id = await a_thread(server, user)
    place = ("tail", thread_id, "--url", server.http_url, "--user", user, "--no-follow")
    done = await asyncio.to_thread(piped, place)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert len(lines) == 6
    assert re.fullmatch(r"\d\d:\d\d:\d\d\.\d{3}Z +3 tool_executing +[0-9a-f]{8} lookup \{\"text\":\"abc\"\}", lines[2])
    later = await asyncio.to_thread(piped, (*place, "--after-seq", "4", "--json"))
    frames = [json.loads(line) for line in later.stdout.splitlines()]
    assert [(frame["seq"], frame["type"]) for frame in frames] == [(5, "agent_message"), (6, "agent_completed")]
    assert frames[1]["payload"]["response"] == "cba"
    assert frames[1]["user_id"] == user


async def test_it_follows_across_broken_connections_and_tells_each_event_once(server: ServerProcess) -> None:
    user = fresh("user")
    thread_id = await a_thread(server, user)
    async with proxied(server.http_url) as proxy, Client(server.http_url, user=user) as client:
        proxy.down = [4000, 5000, 100, 4000]
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "agentws", "tail", thread_id, "--url", proxy.url, "--user", user, "--json"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=clean_env(),
            cwd=ROOT,
        )
        assert process.stdout is not None
        frames = [json.loads(await process.stdout.readline()) for _ in range(6)]
        accepted = await client.start("400", agent="stream", thread_id=thread_id)
        async with asyncio.timeout(PATIENCE_S):
            while frames[-1]["run_id"] != accepted.run_id or frames[-1]["type"] != "agent_completed":
                frames.append(json.loads(await process.stdout.readline()))
        process.terminate()
        await process.communicate()
        assert proxy.connections >= 4
    place = 0
    for frame in frames:
        assert frame.get("from_seq", frame["seq"]) == place + 1
        place = frame["seq"]
    pieces = [frame["payload"]["text"] for frame in frames[6:] if frame["type"] == "agent_message"]
    assert "".join(pieces) == "".join(f"w{number} " for number in range(400))


async def test_a_thread_that_is_not_there_is_one_line(server: ServerProcess) -> None:
    place = ("tail", "nowhere", "--url", server.http_url, "--user", fresh("user"))
    done = await asyncio.to_thread(piped, place)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "agentws: thread_not_found: There is no such thread.\n"


async def test_a_reader_that_has_had_enough_is_no_error(server: ServerProcess) -> None:
    user = fresh("user")
    thread_id = await a_thread(server, user)
    reading, writing = os.pipe()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "agentws", "tail", thread_id, "--url", server.http_url, "--user", user),
        stdout=writing,
        stderr=subprocess.PIPE,
        env=clean_env(),
        cwd=ROOT,
    )
    os.close(writing)
    assert process.stderr is not None
    assert await asyncio.to_thread(os.read, reading, 10)
    os.close(reading)
    async with Client(server.http_url, user=user) as client, asyncio.timeout(PATIENCE_S):
        await client.start("x", agent="tool", thread_id=thread_id)
        assert await process.stderr.read() == b""
        assert await process.wait() == 0


async def test_on_a_terminal_a_line_is_a_line(server: ServerProcess) -> None:
    user = fresh("user")
    async with Client(server.http_url, user=user) as client:
        accepted = await client.start("word " * 100, agent="echo")
        await ended(client, accepted.run_id)
    place = ("tail", accepted.thread_id, "--url", server.http_url, "--user", user, "--no-follow")
    with on_terminal(place, columns=70) as terminal:
        assert await asyncio.to_thread(terminal.ends) == 0
    lines = terminal.text.splitlines()
    assert len(lines) == 3
    assert all(len(line) <= 70 for line in lines)
    assert lines[0].endswith("…")
