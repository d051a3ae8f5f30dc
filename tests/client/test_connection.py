"""The client against a real server whose connections break: every event once and in order, every start once."""

import asyncio
import itertools
import signal
import socket
from datetime import timedelta

import pytest

from agentws.client import link
from agentws.client.connection import Client
from agentws.client.errors import Closed, ConnectFailed, Refused
from agentws.client.fold import RunFold
from agentws.client.link import Connected, Lost
from agentws.client.reader import Event
from agentws.store.embedded import EmbeddedPostgres
from agentws.wire.answers import CaughtUp

from ..conformance.client import fresh
from ..conformance.tokens import token
from ..conftest import TestDatabase
from ..processes import ServerProcess, running
from .proxy import proxied

PATIENCE_S = 60.0


async def ended(client: Client, run_id: str) -> tuple[list[Event], RunFold]:
    """What comes until a run has ended; holds numbers to be dense."""
    events: list[Event] = []
    fold = RunFold(run_id)
    async with asyncio.timeout(PATIENCE_S):
        while fold.end is None:
            update = await anext(client)
            if isinstance(update, Event):
                events.append(update)
                if update.run_id == run_id:
                    fold.feed(update)
    for before, after in itertools.pairwise(events):
        assert after.first == before.seq + 1
    return events, fold


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def starts_in(server: ServerProcess, user: str, thread_id: str) -> list[str]:
    """The runs that were started in a thread, as another connection is told."""
    async with Client(server.http_url, user=user) as client:
        await client.follow(thread_id)
        runs: list[str] = []
        async for update in client:
            if isinstance(update, Event) and update.type == "agent_started":
                runs.append(update.run_id)
            if isinstance(update, CaughtUp):
                return runs
    raise AssertionError("not caught up")


def words(count: int) -> str:
    return "".join(f"w{number} " for number in range(count))


async def test_a_run_is_told_to_its_end(server: ServerProcess) -> None:
    async with Client(server.http_url, user=fresh("user")) as client:
        accepted = await client.start("abc", agent="tool")
        events, fold = await ended(client, accepted.run_id)
        assert [event.type for event in events] == [
            "agent_started",
            "agent_thinking",
            "tool_executing",
            "tool_completed",
            "agent_message",
            "agent_completed",
        ]
        assert fold.response == fold.text == "cba"
        assert events[0].seq == accepted.seq + 1


@pytest.mark.parametrize("first", range(1100, 2000, 180))
async def test_an_answer_has_no_seam_wherever_the_connection_breaks(
    server: ServerProcess, first: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Each pause is a first one.
    monkeypatch.setattr(link, "STEADY_S", 0.0)
    user = fresh("user")
    async with proxied(server.http_url) as proxy:
        # One breaks within its greeting, others within events; the last ones hold.
        proxy.down = [first, 120, *range(900, 4000, first // 3)]
        async with Client(proxy.url, user=user) as client:
            accepted = await client.start("400", agent="stream")
            events, fold = await ended(client, accepted.run_id)
            assert proxy.connections > 3
            assert fold.text == fold.response == words(400)
            assert events[0].first == 1
    assert await starts_in(server, user, accepted.thread_id) == [accepted.run_id]


@pytest.mark.parametrize(
    ("down", "up"), [*((size, 10_000) for size in range(600, 1000, 40)), (10_000, 480), (1200, 600)]
)
async def test_a_start_whose_answer_is_lost_runs_once(server: ServerProcess, down: int, up: int) -> None:
    user = fresh("user")
    async with proxied(server.http_url) as proxy:
        proxy.down, proxy.up = [down], [up]
        async with Client(proxy.url, user=user) as client:
            first = await client.start("hello", agent="echo")
            second = await client.start("again", agent="echo", thread_id=first.thread_id)
            _, fold = await ended(client, second.run_id)
            assert fold.response == "again"
    assert await starts_in(server, user, first.thread_id) == [first.run_id, second.run_id]


async def test_two_first_messages_share_a_thread_though_the_connection_breaks(server: ServerProcess) -> None:
    async with proxied(server.http_url) as proxy:
        proxy.down = [700]
        async with Client(proxy.url, user=fresh("user")) as client, asyncio.TaskGroup() as tasks:
            asked = [tasks.create_task(client.start(text, agent="echo")) for text in ("one", "two")]
            one, two = [await each for each in asked]
            assert one.thread_id == two.thread_id
            assert proxy.connections > 1


async def test_what_another_connection_does_comes_too_and_after_unfollow_no_more(server: ServerProcess) -> None:
    user = fresh("user")
    async with Client(server.http_url, user=user) as one, Client(server.http_url, user=user) as two:
        thread = await one.create_thread(title="ours")
        assert thread.title == "ours"
        await two.follow(thread.thread_id)
        run = await one.start("hi", agent="echo", thread_id=thread.thread_id)
        _, fold = await ended(two, run.run_id)
        assert fold.response == "hi"
        await two.unfollow(thread.thread_id)
        again = await one.start("more", agent="echo", thread_id=thread.thread_id)
        await ended(one, again.run_id)
        mine = await two.start("mine", agent="echo")
        events, _ = await ended(two, mine.run_id)
        assert {event.thread_id for event in events} == {mine.thread_id}


async def test_a_killed_server_is_come_back_to_and_a_second_attempt_begins_anew(
    cluster: EmbeddedPostgres, database: TestDatabase
) -> None:
    env = {
        "AGENTWS_DATABASE_URL": database.url,
        "AGENTWS_MIGRATE_URL": database.owner_url,
        "AGENTWS_LEASE_TTL_S": "2",
    }
    agents = ("--agents", "tests.sample_agents:agents", "--port", str(free_port()))
    with running(env, *agents) as server:
        async with Client(server.http_url, user="ada") as client:
            accepted = await client.start("hi", agent="phoenix")
            fold = RunFold(accepted.run_id)
            while not fold.open_tools:
                update = await anext(client)
                assert isinstance(update, Event)
                fold.feed(update)
            assert fold.text == "attempt 1"
            await asyncio.to_thread(server.kill)
            assert isinstance(await anext(client), Lost)
            waiting = asyncio.create_task(client.start("behind it", agent="echo", thread_id=accepted.thread_id))
            await asyncio.to_thread(server.start)
            told: list[object] = []
            async with asyncio.timeout(PATIENCE_S):
                while fold.end is None:
                    told.append(update := await anext(client))
                    if isinstance(update, Event) and update.run_id == fold.run_id:
                        fold.feed(update)
            assert any(isinstance(each, Connected) for each in told)
            assert (fold.attempt, fold.text) == (2, "attempt 2")
            _, behind = await ended(client, (await waiting).run_id)
            assert behind.response == "behind it"


async def test_a_server_that_goes_away_in_peace_is_come_back_to(
    cluster: EmbeddedPostgres, database: TestDatabase
) -> None:
    env = {
        "AGENTWS_DATABASE_URL": database.url,
        "AGENTWS_MIGRATE_URL": database.owner_url,
        "AGENTWS_DRAIN_GRACE_S": "1",
    }
    agents = ("--agents", "tests.sample_agents:agents", "--port", str(free_port()))
    with running(env, *agents) as server:
        async with Client(server.http_url, user="ada") as client:
            first = await client.start("one", agent="echo")
            await ended(client, first.run_id)
            server.signal(signal.SIGTERM)
            assert await asyncio.to_thread(server.wait) == 0
            await asyncio.to_thread(server.start)
            second = await client.start("two", agent="echo", thread_id=first.thread_id)
            events, fold = await ended(client, second.run_id)
            assert fold.response == "two"
            assert events[0].first == second.seq + 1


async def test_a_caller_that_takes_nothing_costs_bounded_memory_and_is_answered(
    server: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "MOST_UPDATES", 3)
    user = fresh("user")
    async with Client(server.http_url, user=user) as slow, Client(server.http_url, user=user) as other:
        accepted = await slow.start("400", agent="stream")
        await other.follow(accepted.thread_id)
        await ended(other, accepted.run_id)
        held = []
        while (update := slow.waiting_update()) is not None:
            held.append(update)
        assert len(held) <= 4
        fold = RunFold(accepted.run_id)
        for update in held:
            assert isinstance(update, Event)
            fold.feed(update)
        # An answer is not kept waiting by what nobody takes.
        assert (await slow.stop(run_id=accepted.run_id)).already_ended == [accepted.run_id]
        while fold.end is None:
            update = await anext(slow)
            assert isinstance(update, Event)
            fold.feed(update)
        assert fold.text == words(400)


async def test_what_the_server_refuses_is_raised_with_its_code(server: ServerProcess) -> None:
    async with Client(server.http_url, user=fresh("user")) as client:
        for asking in (
            client.follow("nowhere"),
            client.start("hi", thread_id="nowhere"),
            client.start("hi", agent="nobody"),
            client.stop(run_id="none"),
        ):
            with pytest.raises(Refused) as refused:
                await asking
            assert refused.value.code in ("thread_not_found", "agent_not_found", "run_not_found")
        run = await client.start("hi", agent="echo")
        await ended(client, run.run_id)


async def test_a_token_is_fetched_for_each_connection(jwt_server: ServerProcess) -> None:
    fetched: list[str] = []

    async def fetch() -> str:
        fetched.append(token(jwt_server, "ada"))
        return fetched[-1]

    async with proxied(jwt_server.http_url) as proxy, Client(proxy.url, token=fetch) as client:
        assert client.user_id == "ada"
        accepted = await client.start("hi", agent="echo")
        await ended(client, accepted.run_id)
        proxy.cut()
        again = await client.start("hi", agent="echo", thread_id=accepted.thread_id)
        await ended(client, again.run_id)
        assert len(fetched) == proxy.connections == 2


async def test_who_cannot_come_in_is_told_at_once(jwt_server: ServerProcess) -> None:
    for credential in (None, token(jwt_server, "ada", lives=timedelta(seconds=-60)), "no.jwt", "no jwt"):
        with pytest.raises(ConnectFailed, match=r"credentials|no JWT"):
            async with Client(jwt_server.http_url, token=credential):
                pass


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://x", "http://", "http://x:99999", "http://x:0"])
async def test_what_is_no_url_is_said(url: str) -> None:
    with pytest.raises(ConnectFailed, match="has the form"):
        Client(url)


async def test_where_nothing_listens_is_said() -> None:
    with pytest.raises(ConnectFailed, match="connection refused"):
        async with Client(f"http://127.0.0.1:{free_port()}"):
            pass


async def test_a_closed_client_says_so(server: ServerProcess) -> None:
    async with Client(server.http_url, user=fresh("user")) as client:
        waiting = asyncio.create_task(client.start("hi", agent="slow"))
        await waiting
    with pytest.raises(Closed):
        await client.start("more")
    with pytest.raises(Closed):
        while True:
            await anext(client)
