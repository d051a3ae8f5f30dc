"""Section 8: every run-starting frame is counted once, by what became of it, and every other refusal beside that."""

import contextlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from .api import Api, calling
from .client import Client, Server, connect, fresh
from .conftest import OwnServers
from .runs import at_work
from .shapes import Frame
from .threads import delete
from .told import until

COUNTERS = (
    *("messages_processed", "start_agent_requests", "user_messages", "chat_messages", "errors", "received"),
    *("duplicates", "frame_errors", "deprecated", "runs_completed", "runs_failed", "runs_stopped"),
)
COMPLETED = {"received": 1, "messages_processed": 1, "runs_completed": 1}
STOPPED = {"received": 1, "messages_processed": 1, "runs_stopped": 1}
REFUSED = {"received": 1, "errors": 1}
OF_TYPE = {
    **dict.fromkeys(["start_agent", "execute_agent"], "start_agent_requests"),
    **dict.fromkeys(["user_message", "user", "user_input", "chat_message", "message"], "user_messages"),
    "chat": "chat_messages",
}

pytestmark = pytest.mark.needs("agents")


async def read(api: Api) -> Frame:
    return await api.get("/api/stats")


def is_settled(stats: Frame) -> bool:
    accounted = stats["messages_processed"] + stats["errors"] + stats["duplicates"]
    return bool(stats["runs_in_flight"] == 0 and stats["received"] == accounted)


class Count:
    """What the server counted since this was made."""

    def __init__(self, api: Api, before: Frame) -> None:
        self._api, self._before = api, before

    async def since(self) -> dict[str, int]:
        now = await read(self._api)
        return {name: now[name] - self._before[name] for name in COUNTERS if now[name] != self._before[name]}

    async def becomes(self, *expected: dict[str, int]) -> None:
        """Waits until exactly this has been counted, and nothing else; what is given several times is added up."""
        total: dict[str, int] = {}
        for each in expected:
            for name, value in each.items():
                total[name] = total.get(name, 0) + value
        assert await until(self.since, lambda counted: counted == total) == total
        assert is_settled(await until(lambda: read(self._api), is_settled))


@contextlib.asynccontextmanager
async def counting(server: Server) -> AsyncIterator[tuple[Client, Api, Count]]:
    """A connection and an account that begins when nothing is in flight."""
    async with connect(server) as client, calling(server, client.user_id) as api:
        yield client, api, Count(api, await until(lambda: read(api), is_settled))


@pytest.mark.parametrize("kind", OF_TYPE)
async def test_a_run_that_completed_counts_for_its_kind(counted: Server, kind: str) -> None:
    async with counting(counted) as (client, _, count):
        field = "user_request" if OF_TYPE[kind] == "start_agent_requests" else "content"
        accepted = await client.granted({"type": kind, field: "hi", "agent": "echo"}, "request_accepted")
        await client.ended(accepted["run_id"])
        aliased = {} if kind in {"start_agent", "user_message", "chat"} else {"deprecated": 1}
        await count.becomes(COMPLETED, {OF_TYPE[kind]: 1}, aliased)


async def test_a_run_that_was_stopped_counts_as_processed(counted: Server) -> None:
    async with counting(counted) as (client, _, count):
        accepted = await at_work(client)
        await client.stop(run_id=accepted["run_id"])
        await client.ended(accepted["run_id"])
        await count.becomes(STOPPED, {"user_messages": 1})


async def test_runs_stopped_while_they_wait_count_as_processed(counted: Server) -> None:
    async with counting(counted) as (client, _, count):
        accepted = await at_work(client)
        waiting = await client.granted({"type": "chat", "content": "hi"}, "request_accepted")
        await client.stop(thread_id=accepted["thread_id"])
        for each in (accepted, waiting):
            await client.ended(each["run_id"])
        await count.becomes(STOPPED, STOPPED, {"user_messages": 1, "chat_messages": 1})


async def test_runs_of_a_deleted_thread_count_as_processed(counted: Server) -> None:
    async with counting(counted) as (client, _, count):
        accepted = await at_work(client)
        await client.start("waits")
        await delete(client, accepted["thread_id"])
        await count.becomes(STOPPED, STOPPED, {"user_messages": 2})


async def test_an_interrupted_run_counts_as_processed(counted: Server) -> None:
    async with counting(counted) as (client, _, count):
        await at_work(client)
        accepted = await client.start("now", agent="echo", if_busy="interrupt")
        await client.ended(accepted["run_id"])
        await count.becomes(STOPPED, COMPLETED, {"user_messages": 2})


@pytest.mark.parametrize("agent", ["fail", "unencodable", "timeout"])
async def test_a_run_that_ended_in_agent_error_counts_as_one_error_and_nothing_else(
    counted: Server, agent: str
) -> None:
    async with counting(counted) as (client, _, count):
        assert (await client.run("hi", agent=agent))[-1]["type"] == "agent_error"
        await count.becomes(REFUSED, {"runs_failed": 1})


REFUSALS: list[Frame] = [
    {"type": "chat"},
    {"type": "user_message", "payload": {"content": " "}},
    {"type": "start_agent", "user_request": 5},
    {"type": "chat", "payload": []},
    {"type": "chat", "content": "hi", "id": "a b"},
    {"type": "chat", "content": "hi", "run_id": "a b"},
    {"type": "chat", "content": "hi", "context": 5},
    {"type": "chat", "content": "hi", "user_id": "somebody-else"},
    {"type": "chat", "content": "hi", "thread_id": "one", "payload": {"content": "hi", "thread_id": "two"}},
    {"type": "chat", "content": "hi", "agent": "no-such-agent"},
    {"type": "chat", "content": "hi", "thread_id": "no-such-thread"},
]


@pytest.mark.parametrize("frame", REFUSALS)
async def test_a_refused_start_counts_as_one_error_and_nothing_else(counted: Server, frame: Frame) -> None:
    async with counting(counted) as (client, _, count):
        await client.send(frame)
        assert (await client.answer_to(None))["type"] == "error"
        await count.becomes(REFUSED)


async def test_conflicts_and_a_busy_thread_count_as_errors(counted: Server) -> None:
    async with counting(counted) as (client, _, count):
        accepted = await at_work(client)
        first = await client.start("hi", idempotency_key="k")
        again = {"type": "chat", "content": "hi"}
        await client.refused(again | {"run_id": accepted["run_id"]}, "run_id_conflict")
        await client.refused(again | {"idempotency_key": "k"}, "idempotency_conflict")
        await client.refused(again | {"if_busy": "reject"}, "thread_busy")
        await client.stop(run_id=accepted["run_id"])
        await client.ended(first["run_id"])
        await count.becomes(STOPPED, COMPLETED, {"user_messages": 2}, REFUSED, REFUSED, REFUSED)


@pytest.mark.parametrize("agent", ["echo", "fail"])
async def test_a_repeat_counts_as_a_duplicate_whatever_became_of_the_first(counted: Server, agent: str) -> None:
    async with counting(counted) as (client, _, count):
        first = await client.start("hi", agent=agent, idempotency_key="k")
        await client.ended(first["run_id"])
        for _ in range(3):
            await client.start("hi", agent=agent, idempotency_key="k")
        once = COMPLETED | {"user_messages": 1} if agent == "echo" else REFUSED | {"runs_failed": 1}
        await count.becomes(once, {"received": 3, "duplicates": 3})


FAULTS: list[str | bytes] = [
    "{",
    "[]",
    "{}",
    '{"type": 5}',
    '{"type": "nonsense"}',
    '{"type": "pong"}',
    '{"type": "ping", "id": "a b"}',
    '{"type": "subscribe"}',
    '{"type": "subscribe", "thread_id": "no-such-thread"}',
    '{"type": "stop_agent", "run_id": "no-such-run"}',
    '{"type": "create_thread", "title": 5}',
    '{"type": "delete_thread", "thread_id": "no-such-thread"}',
    '{"type": "respond"}',
    b"binary",
]


@pytest.mark.parametrize("raw", FAULTS)
async def test_another_frame_that_is_refused_counts_as_a_frame_error(counted: Server, raw: str | bytes) -> None:
    async with counting(counted) as (client, _, count):
        await client.socket.send(raw)
        assert (await client.answer_to(None))["type"] == "error"
        await count.becomes({"frame_errors": 1})


async def test_frames_that_are_answered_otherwise_count_nothing(counted: Server) -> None:
    async with counting(counted) as (client, _, count):
        thread_id = (await client.new_thread())["thread_id"]
        await client.replay(thread_id)
        for frame in ({"type": "ping"}, {"type": "heartbeat"}, {"type": "unsubscribe", "thread_id": thread_id}):
            await client.ask(frame)
        await client.stop(thread_id=thread_id)
        await delete(client, thread_id)
        await count.becomes()


async def test_starts_over_http_count(counted: Server) -> None:
    async with counting(counted) as (client, api, count):
        start = {"type": "start_agent", "user_request": "hi", "agent": "echo"}
        first = await api.start(start, key="k")
        await client.replay(first["thread_id"])
        await client.ended(first["run_id"])
        await api.start(start, key="k", status=200)
        await api.refused("POST", "/api/runs", "validation_error", json={"type": "chat"})
        await api.refused("POST", "/api/threads/no-such-thread/runs", "thread_not_found", json=start)
        await count.becomes(COMPLETED, {"start_agent_requests": 1}, {"received": 1, "duplicates": 1}, REFUSED, REFUSED)


async def test_the_time_is_that_of_the_last_one_that_was_processed(counted: Server) -> None:
    async with counting(counted) as (client, api, count):
        before = time.time()
        await client.run("hi", agent="echo")
        await count.becomes(COMPLETED, {"user_messages": 1})
        told = (await read(api))["last_processed_time"]
        assert before - 1 <= told <= time.time() + 1
        await client.run("hi", agent="fail")
        await client.refused({"type": "chat"}, "validation_error")
        await count.becomes(COMPLETED, {"user_messages": 1}, REFUSED, REFUSED, {"runs_failed": 1})
        assert (await read(api))["last_processed_time"] == told


async def test_runs_in_flight_are_those_that_have_not_ended(counted: Server) -> None:
    async with counting(counted) as (client, api, _):
        accepted = await at_work(client)
        assert (await until(lambda: read(api), lambda stats: stats["runs_in_flight"] == 1))["runs_in_flight"] == 1
        await client.stop(run_id=accepted["run_id"])
        await until(lambda: read(api), is_settled)


async def test_connections_are_those_that_are_open_now(counted: Server) -> None:
    async with counting(counted) as (_, api, _):
        alone = await until(lambda: read(api), lambda stats: stats["connections"] == 1)
        async with connect(counted), connect(counted):
            assert (await read(api))["connections"] == alone["connections"] + 2
        await until(lambda: read(api), lambda stats: stats["connections"] == 1)


async def grown(api: Api, before: Frame, name: str, least: int) -> None:
    await until(lambda: read(api), lambda stats: stats[name] - before[name] >= least)


async def test_events_that_are_sent_and_replayed_are_counted(counted: Server) -> None:
    async with counting(counted) as (client, api, _):
        before = await read(api)
        events = await client.run("abc", agent="tool")
        await grown(api, before, "events_sent", len(events))
        before = await read(api)
        _, replayed = await client.replay(events[0]["thread_id"])
        await grown(api, before, "events_replayed", len(replayed))


async def test_reading_changes_nothing_but_the_time_that_went_by(counted: Server) -> None:
    async with counting(counted) as (_, api, _):
        one, two = await read(api), await read(api)
        assert 0 < one.pop("uptime_seconds") <= two.pop("uptime_seconds")
        assert one == two


async def test_all_that_was_received_is_accounted_for(counted: Server) -> None:
    async with counting(counted) as (client, api, _):
        before = await read(api)
        work: list[Callable[[], Awaitable[object]]] = [
            lambda: client.start("hi", agent="echo"),
            lambda: client.start("hi", agent="fail"),
            lambda: client.start("hi", agent="echo", idempotency_key="k"),
            lambda: client.start("hi", agent="echo", idempotency_key="k"),
            lambda: client.refused({"type": "chat"}, "validation_error"),
            lambda: client.refused({"type": "nonsense"}, "unknown_type"),
            lambda: client.send_text(json.dumps({"type": "chat", "content": "hi", "agent": "echo"})),
        ]
        for each in work * 3:
            await each()
        after = await until(lambda: read(api), lambda stats: stats["received"] - before["received"] == 18)
        assert is_settled(await until(lambda: read(api), is_settled))
        assert after["frame_errors"] - before["frame_errors"] == 3


@pytest.mark.needs("process")
async def test_a_server_that_has_just_started_has_counted_nothing(own_servers: OwnServers) -> None:
    with own_servers.serving() as started:
        async with calling(started, fresh("u")) as api:
            stats = await read(api)
            assert stats["last_processed_time"] is None
            assert {stats[name] for name in (*COUNTERS, "runs_in_flight", "connections", "events_sent")} == {0}
