"""What the page promises across the end of a process: it says that it goes, and what it leaves behind ends once."""

import asyncio
import os
import signal
import sys

import pytest

from ..processes import ROOT, ServerProcess
from .api import STATUS_OF, anonymous, calling
from .client import Client, connect, fresh, of_type
from .conftest import OwnServers
from .reader import Reader
from .runs import at_work
from .shapes import Frame

CHAT: Frame = {"type": "chat", "content": "hi"}

pytestmark = pytest.mark.needs("process")


async def test_a_server_that_drains_says_so_refuses_starts_and_serves_all_else(own_servers: OwnServers) -> None:
    with own_servers.serving(DRAIN_GRACE_S="30") as server:
        async with connect(server) as client, calling(server, client.user_id) as api, anonymous(server) as http:
            accepted = await at_work(client)
            key = {"idempotency_key": fresh("key")}
            first = await client.granted(CHAT | key, "request_accepted")
            server.signal(signal.SIGTERM)
            told = await client.next(of_type("draining"), "draining")
            refusal = await client.refused(CHAT, "draining")
            assert told["retry_after_ms"] > 0
            assert refusal["retry_after_ms"] > 0
            await client.refused(CHAT | {"agent": "no-such-agent"}, "agent_not_found")
            await client.refused(CHAT | {"thread_id": fresh("t")}, "draining")
            await client.refused(CHAT | key, "draining")
            await client.granted({"type": "ping"}, "pong")
            await client.new_thread(accepted["thread_id"])
            assert (await http.get("/healthz")).status_code == 200
            assert (await http.get("/readyz")).status_code == STATUS_OF["draining"]
            await api.refused("POST", "/api/runs", "draining", json=CHAT)
            await client.stop(thread_id=accepted["thread_id"])
            for each in (accepted, first):
                await client.ended(each["run_id"])
            assert await client.closed() in {1001, 1012}
        assert server.wait() == 0


async def resumed(client: Client, since: Frame, held: Reader) -> Reader:
    """What a client holds of a thread once it has asked for the rest of it and every run there has ended."""
    thread_id = since["thread_id"]
    subscribed, _ = await client.replay(thread_id, after_seq=held.last_seq, epoch=since["epoch"])
    assert (subscribed["recovered"], subscribed["after_seq"]) == (True, held.last_seq)
    await client.ended(since["run_id"])
    return held.feed_all(client.events(thread_id, since=subscribed))


async def test_after_a_kill_every_run_ends_once_and_every_event_is_told_once(own_servers: OwnServers) -> None:
    user = fresh("u")
    with own_servers.serving(LEASE_TTL_S="2") as server:
        async with connect(server, user) as client:
            lost = await client.start("hi", agent="slow", idempotency_key="lost")
            again = await client.start("hi", agent="phoenix", thread_id=(await client.new_thread())["thread_id"])
            await client.event(lost["run_id"], "agent_message")
            await client.event(again["run_id"], "tool_executing")
            waiting = await client.start("after it", thread_id=lost["thread_id"])
            await client.event(waiting["run_id"], "agent_queued")
            held = [client.reader(each["thread_id"], after_seq=0, since=each) for each in (lost, again)]
            server.kill()
        server.start()
        async with connect(server, user) as client:
            repeat = await client.start("hi", agent="slow", idempotency_key="lost", subscribe=False)
            assert (repeat["duplicate"], repeat["run_id"]) == (True, lost["run_id"])
            for each, reader in zip((lost, again), held, strict=True):
                await resumed(client, each, reader)
            await client.ended(waiting["run_id"])
            terminal = held[0].runs[lost["run_id"]].terminal
            assert terminal is not None
            assert (terminal["type"], terminal["payload"]["code"]) == ("agent_error", "worker_lost")
            assert terminal["payload"]["response"] == "started "
            restarted = held[1].runs[again["run_id"]]
            assert restarted.attempt == 2
            assert restarted.answer.text == "attempt 2"
            tool = next(event for event in held[1].events if event["type"] == "tool_completed")
            assert (tool["payload"]["outcome"], tool["attempt"]) == ("unknown", 1)
            for each in (lost, again):
                _, events = await client.replay(each["thread_id"])
                ends = [event["run_id"] for event in events if event["type"] in {"agent_error", "agent_completed"}]
                assert sorted(set(ends)) == sorted(ends)


async def new_epoch(server: ServerProcess) -> None:
    """What an operator does after a restore or a failover."""
    command = [sys.executable, "-m", "agentws", "new-epoch"]
    done = await asyncio.create_subprocess_exec(*command, env={**os.environ, **server.env}, cwd=ROOT)
    assert await done.wait() == 0


async def test_after_new_epoch_every_thread_has_another_epoch_and_who_held_the_old_one_is_told(
    own_servers: OwnServers,
) -> None:
    with own_servers.serving() as server:
        async with connect(server) as client, connect(server, client.user_id) as writer:
            old = (await writer.run("before"))[-1]
            thread_id = old["thread_id"]
            await client.replay(thread_id)
            await new_epoch(server)
            accepted = await writer.start("after", thread_id=thread_id)
            assert accepted["epoch"] != old["epoch"]
            told = await client.next(of_type("subscription_ended"), "subscription_ended")
            assert (told["thread_id"], told["reason"]) == (thread_id, "epoch_changed")
            subscribed, _ = await client.replay(thread_id, after_seq=old["seq"], epoch=old["epoch"])
            assert (subscribed["recovered"], subscribed["epoch"]) == (False, accepted["epoch"])
            await client.ended(accepted["run_id"])
            assert {event["epoch"] for event in client.events(thread_id, since=subscribed)} == {accepted["epoch"]}
