"""Two processes on one database are restarted one after the other under load, and nobody loses anything."""

import asyncio
import contextlib
import itertools
import signal
from collections.abc import Sequence

import pytest
from websockets.exceptions import ConnectionClosed

from ..conformance.client import Client, connect
from ..conformance.reader import Reader
from ..conformance.shapes import Frame
from ..conformance.told import fresh
from ..processes import ServerProcess
from .conftest import Serve

pytestmark = pytest.mark.long

USERS = 4
WORDS = 1200
TEXT = "".join(f"w{number} " for number in range(WORDS))
SETTINGS = {"drain_grace_s": "1", "restart_delay_s": "0.1"}


class User:
    """Runs one agent after the other in one thread, on whichever server there is; `reader` holds what it was told."""

    def __init__(self, name: str, servers: Sequence[ServerProcess]) -> None:
        self.name = name
        self.reader = Reader()
        self.accepted: dict[str, str] = {}
        self.enough = asyncio.Event()
        self._servers = itertools.cycle(servers)
        self._agents = itertools.cycle(["steady", "echo", "tool"])
        self._wanted: Frame | None = None

    async def use(self) -> None:
        """Returns when it has had enough, and what it started has ended."""
        while self._wanted is not None or not self.enough.is_set():
            with contextlib.suppress(OSError, ConnectionClosed):
                await self._use_one(next(self._servers))

    async def _use_one(self, server: ServerProcess) -> None:
        async with connect(server, self.name) as client:
            await client.new_thread(self.name)
            subscribed, _ = await client.replay(self.name, after_seq=self.reader.last_seq)
            assert subscribed["recovered"] is True
            try:
                while await self._run_one(client):
                    pass
            finally:
                self.reader.feed_all(client.events(self.name, since=subscribed))

    async def _run_one(self, client: Client) -> bool:
        """Starts what was wanted and not yet seen to its end, or something new; False where there is nothing to do."""
        if self._wanted is None or self._has_ended(self._wanted["run_id"]):
            self._wanted = None
            if self.enough.is_set():
                return False
            self._wanted = wanted(next(self._agents), self.name)
        run_id = self._wanted["run_id"]
        answer = await client.ask({"type": "user_message", "payload": self._wanted})
        if answer["type"] == "error":
            assert answer["code"] == "draining"
            await client.closed()
            return False
        self.accepted[run_id] = self._wanted["agent"]
        await client.ended(run_id)
        self._wanted = None
        return True

    def _has_ended(self, run_id: str) -> bool:
        return run_id in self.reader.runs and self.reader.runs[run_id].terminal is not None


def wanted(agent: str, thread_id: str) -> Frame:
    """A start that may be repeated anywhere until it is answered."""
    name = fresh(agent)
    text = str(WORDS) if agent == "steady" else "hi"
    return {"content": text, "agent": agent, "thread_id": thread_id, "run_id": name, "idempotency_key": name}


async def restart(server: ServerProcess, other: ServerProcess) -> None:
    """Ends and starts a server; what it refuses meanwhile the other one takes."""
    user = fresh("poker")
    async with connect(server, user) as client:
        await client.new_thread(user)
        # Something is at work until the end of the grace, so that there is a time in which starts are refused.
        await client.start("hi", agent="slow")
        server.signal(signal.SIGTERM)
        draining = await client.next(lambda frame: frame["type"] == "draining", "draining")
        assert 0 < draining["retry_after_ms"] <= 1000
        start = {"type": "user_message", "payload": wanted("echo", user)}
        await client.refused(start, "draining")
        assert await client.closed() == 1001
    async with connect(other, user) as client:
        accepted = await client.granted(start, "request_accepted")
        assert accepted["duplicate"] is False
        assert (await client.ended(accepted["run_id"]))["type"] == "agent_completed"
    assert await asyncio.to_thread(server.wait) == 0
    await asyncio.to_thread(server.start)


async def test_a_rolling_restart_under_load_loses_nothing(serve: Serve) -> None:
    servers = serve(**SETTINGS), serve(**SETTINGS)
    users = [User(fresh("user"), servers if number % 2 else servers[::-1]) for number in range(USERS)]
    async with asyncio.timeout(120), asyncio.TaskGroup() as group:
        for user in users:
            group.create_task(user.use())
        await restart(servers[0], servers[1])
        await restart(servers[1], servers[0])
        for user in users:
            user.enough.set()
    for user in users:
        assert set(user.reader.runs) == set(user.accepted)
        for run_id, agent in user.accepted.items():
            ended = user.reader.runs[run_id].terminal
            assert ended is not None
            if agent == "steady":
                assert (ended["type"], ended["payload"]["response"]) == ("agent_completed", TEXT)
            elif ended["type"] != "agent_completed":
                assert (ended["type"], ended["payload"]["code"]) == ("agent_error", "worker_lost")
    assert any(run.attempt > 1 for user in users for run in user.reader.runs.values())
    async with connect(servers[0], users[0].name) as client:
        _, events = await client.replay(users[0].name, after_seq=0)
        whole = Reader().feed_all(events)
        assert {run_id: run.terminal for run_id, run in whole.runs.items()} == {
            run_id: run.terminal for run_id, run in users[0].reader.runs.items()
        }
