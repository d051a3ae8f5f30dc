"""Peers that read slowly, or not at all, on real lines: the slow are kept, the stalled are given up."""

import asyncio
import json
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any
from urllib.parse import urlsplit
from urllib.request import urlopen

import pytest

from agentws.store.embedded import EmbeddedPostgres
from scripts.paced_reader import PacedReader
from scripts.slow_reader import Answer

from ..conftest import copy_template
from ..processes import ServerProcess, running

pytestmark = pytest.mark.long

HEARTBEAT_S = 0.5
PATIENCE_S = 30.0
LARGE = 600_000


@pytest.fixture(scope="module")
def pinging(cluster: EmbeddedPostgres, template: str) -> Iterator[ServerProcess]:
    """A server that pings twice a second."""
    with _serving(cluster, template, heartbeat_s=HEARTBEAT_S) as process:
        yield process


@pytest.fixture
def patient(cluster: EmbeddedPostgres, template: str) -> Iterator[ServerProcess]:
    """A server that pings nobody as long as a test takes."""
    with _serving(cluster, template, heartbeat_s=60) as process:
        yield process


@contextmanager
def _serving(cluster: EmbeddedPostgres, template: str, *, heartbeat_s: float) -> Iterator[ServerProcess]:
    made = asyncio.run(copy_template(cluster, template))
    env = {
        "AGENTWS_DATABASE_URL": made.url,
        "AGENTWS_MIGRATE_URL": made.owner_url,
        "AGENTWS_ENV": "development",
        "AGENTWS_HEARTBEAT_INTERVAL_S": str(heartbeat_s),
        "AGENTWS_RATE_LIMIT_PER_S": "0",
    }
    with running(env, "--agents", "scripts.slow_agents:agents") as process:
        yield process


@asynccontextmanager
async def connected(server: ServerProcess, user: str, *, receive_buffer: int = 4096) -> AsyncIterator[PacedReader]:
    reader = await PacedReader.connect(server.ws_url, user, receive_buffer=receive_buffer)
    try:
        async with asyncio.timeout(PATIENCE_S):
            yield reader
    finally:
        reader.close()


async def ask_for_much(reader: PacedReader, size: int = LARGE, **options: Any) -> None:
    await reader.send(type="user_message", payload={"content": str(size), "agent": "large", **options})


def gauge(server: ServerProcess, name: str) -> int:
    with urlopen(server.http_url + "/metrics", timeout=PATIENCE_S) as answer:
        lines = answer.read().decode().splitlines()
    return int(float(next(line.split()[1] for line in lines if line.startswith(name + " "))))


async def until(server: ServerProcess, name: str, wanted: int) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while await asyncio.to_thread(gauge, server, name) != wanted:
            pass


async def test_a_reader_whose_pong_takes_many_intervals_stays_and_gets_everything(pinging: ServerProcess) -> None:
    async with connected(pinging, "slow", receive_buffer=16_384) as reader:
        # What a line holds (128 KiB here and in the kernel) takes more than six intervals at this pace.
        reader.chunk, reader.pause_s = 1500, 0.05
        answer = Answer()
        await ask_for_much(reader)
        async for frame in reader.frames():
            if len(answer.text) > LARGE // 4:
                reader.pause_s = 0
            if answer.take(frame) is None:
                break
        assert len(answer.text.encode()) >= LARGE


async def test_a_reader_that_stops_reading_is_given_up_and_holds_nothing(pinging: ServerProcess) -> None:
    async with connected(pinging, "stalled") as reader:
        await ask_for_much(reader)
        await until(pinging, "agentws_connections", 1)
        await until(pinging, "agentws_connections", 0)
        await until(pinging, "agentws_queue_bytes", 0)
        await until(pinging, "agentws_subscriptions", 0)


def stream(server: ServerProcess, path: str, *, receive_buffer: int) -> socket.socket:
    """An event stream that nobody reads yet."""
    address = urlsplit(server.http_url)
    opened = socket.socket()
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    opened.connect((address.hostname, address.port))
    opened.sendall(f"GET {path} HTTP/1.1\r\nHost: {address.netloc}\r\nAccept: text/event-stream\r\n\r\n".encode())
    return opened


async def written(server: ServerProcess, user: str) -> str:
    """A thread with a large answer."""
    async with connected(server, user, receive_buffer=0) as reader:
        await ask_for_much(reader)
        thread_id, answer = "", Answer()
        async for frame in reader.frames():
            thread_id = thread_id or json.loads(frame).get("thread_id", "")
            if answer.take(frame) is None:
                break
    await until(server, "agentws_connections", 0)
    return thread_id


async def test_an_event_stream_that_nobody_reads_is_given_up(pinging: ServerProcess) -> None:
    thread_id = await written(pinging, "sse")
    opened = stream(pinging, f"/api/threads/{thread_id}/events?user=sse", receive_buffer=4096)
    with opened:
        await until(pinging, "agentws_connections", 1)
        await until(pinging, "agentws_connections", 0)
        await until(pinging, "agentws_queue_bytes", 0)


async def test_an_event_stream_that_is_read_slowly_is_whole(pinging: ServerProcess) -> None:
    thread_id = await written(pinging, "ssslow")
    opened = stream(pinging, f"/api/threads/{thread_id}/events?user=ssslow", receive_buffer=16_384)
    opened.setblocking(False)
    text, data = "", b""
    with opened:
        async with asyncio.timeout(PATIENCE_S):
            while b"event: caught_up" not in data:
                data += await asyncio.get_running_loop().sock_recv(opened, 3000)
                await asyncio.sleep(0.01)
    lines = data.decode().replace("\r\n", "\n").split("\n")
    for line in lines:
        if line.startswith('data: {"type":"agent_message"'):
            payload = json.loads(line.removeprefix("data: "))["payload"]
            assert payload["offset"] == len(text)
            text += payload["text"]
        elif line.startswith('data: {"type":"agent_completed"'):
            assert json.loads(line.removeprefix("data: "))["payload"]["response"] == text
            break
    else:
        raise AssertionError("the answer did not end")


async def test_who_pings_and_does_not_read_is_answered_once_for_all(patient: ServerProcess) -> None:
    async with connected(patient, "pings", receive_buffer=16_384) as reader:
        await ask_for_much(reader)
        # More than the line takes has been written: the answer, and what ends it with the whole of it.
        await until(patient, "agentws_runs_in_flight", 1)
        await until(patient, "agentws_runs_in_flight", 0)
        assert await asyncio.to_thread(gauge, patient, "agentws_queue_bytes")
        before = await asyncio.to_thread(gauge, patient, 'agentws_frames_received_total{type="heartbeat"}')
        for _ in range(1000):
            await reader.ping()
        # Frames are read in their order.
        await reader.send(type="heartbeat")
        await until(patient, 'agentws_frames_received_total{type="heartbeat"}', before + 1)
        async for frame in reader.frames():
            if json.loads(frame)["type"] == "agent_completed":
                break
        assert 1 <= reader.pongs < 100


def test_a_drain_is_not_held_by_who_does_not_read(patient: ServerProcess) -> None:
    async def stall() -> None:
        async with connected(patient, "stalled") as reader:
            await ask_for_much(reader)
            await until(patient, "agentws_runs_in_flight", 1)
            await until(patient, "agentws_runs_in_flight", 0)
            patient.signal(signal.SIGTERM)
            assert await asyncio.to_thread(patient.wait, PATIENCE_S) == 0
            assert not [line for line in patient.log if " ERROR " in line]

    asyncio.run(stall())
