"""A connection ends with who sends too much or is not signed in any more; a deleted thread is told to all, once."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import jwt
import pytest

import agentws
from agentws.app import Service
from agentws.edge import connection

from ..conftest import StartService
from ..peers import TERMINAL, Peer, peer
from .clock import Clock

SECRET = "a secret of these tests, of 32 bytes and more"


def token(user: str = "ada", *, lasts_s: float = 3600) -> str:
    return jwt.encode({"sub": user, "exp": time.time() + lasts_s}, SECRET, "HS256")


@asynccontextmanager
async def signed_in(service: Service, made: str) -> AsyncIterator[Peer]:
    async with peer(service, subprotocols=["agentws.v1.json", f"bearer.{made}"]) as client:
        yield client


def of_type(client: Peer, *types: str) -> list[dict[str, Any]]:
    return [frame for frame in client.frames if frame["type"] in types]


# Too many frames


async def test_the_hundred_and_first_refusal_is_the_last(start_service: StartService) -> None:
    service = await start_service(rate_limit_per_s=0.001, rate_limit_burst=2)
    async with peer(service) as client, peer(service, "eve") as other:
        for number in range(120):
            client.send(type="ping", id=f"p{number}")
        assert await client.until_closed() == 4429
        assert [frame["id"] for frame in of_type(client, "pong")] == ["p0", "p1"]
        refused = of_type(client, "error")
        assert {(frame["code"], frame["retryable"]) for frame in refused} == {("rate_limited", True)}
        assert [frame["id"] for frame in refused] == [f"p{number}" for number in range(2, 103)]
        assert client.frames[-1] == refused[-1]
        other.send(type="ping")
        await other.until_type("pong")
        assert other.closed_with is None


async def test_a_hundred_refusals_are_borne(start_service: StartService) -> None:
    service = await start_service(rate_limit_per_s=0.001, rate_limit_burst=1)
    async with peer(service) as client:
        for number in range(101):
            client.send(type="ping", id=f"p{number}")
        await client.until(lambda frame: frame.get("id") == "p100")
        # What is wrong in itself is said, and is not one more.
        client.send(type="nonsense", id="last")
        assert (await client.until(lambda frame: frame.get("id") == "last"))["code"] == "unknown_type"
        assert client.closed_with is None


async def test_refusals_over_a_longer_time_are_borne(
    start_service: StartService, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = itertools.count(1000.0)
    monkeypatch.setattr(connection, "time", SimpleNamespace(monotonic=lambda: next(seconds)))
    service = await start_service(rate_limit_per_s=0.001, rate_limit_burst=1)
    async with peer(service) as client:
        for number in range(300):
            client.send(type="ping", id=f"p{number}")
        await client.until(lambda frame: frame.get("id") == "p299")
        assert (client.closed_with, len(of_type(client, "error"))) == (None, 299)


async def test_a_users_connections_share_what_the_user_may_send(start_service: StartService) -> None:
    service = await start_service(rate_limit_per_s=0.001, rate_limit_burst=3)
    async with peer(service) as one, peer(service) as two:
        for client, kind in ((one, "pong"), (two, "pong"), (one, "pong"), (two, "error"), (one, "error")):
            client.send(type="ping")
            assert (await client.until_type("pong", "error"))["type"] == kind


async def test_every_frame_takes_its_part_also_a_binary_one_and_one_that_is_wrong(start_service: StartService) -> None:
    service = await start_service(rate_limit_per_s=0.001, rate_limit_burst=3)
    async with peer(service) as client:
        client.put({"type": "websocket.receive", "bytes": b"x"})
        client.put({"type": "websocket.receive", "text": "{"})
        client.send(type="nonsense")
        client.send(type="ping")
        codes = [(await client.until_type("error"))["code"] for _ in range(4)]
        assert codes == ["unsupported_frame", "invalid_json", "unknown_type", "rate_limited"]


async def test_a_start_that_is_refused_for_its_rate_does_not_run(start_service: StartService) -> None:
    service = await start_service(rate_limit_per_s=0.001, rate_limit_burst=3)
    async with peer(service) as client:
        client.send(type="create_thread", thread_id="t")
        await client.until_type("thread_created")
        client.send(type="ping")
        client.send(type="get_thread_history", thread_id="t")
        client.send(type="chat", content="hi", thread_id="t", agent="echo")
        assert (await client.until_type("error"))["code"] == "rate_limited"
        assert of_type(client, "thread_history")[0]["last_seq"] == 0
    async with peer(service, "eve") as other:
        await other.run("hi", agent="echo")
    assert service.statistics.read()["runs_completed"] == 1


# Credentials that end


async def test_a_token_that_expires_is_warned_of_and_ends_the_connection_but_not_its_run(
    start_service: StartService, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    service = await start_service(auth="jwt", jwt_secret=SECRET)
    async with signed_in(service, token()) as client, signed_in(service, token(lasts_s=7200)) as other:
        accepted = await client.ask("hi", agent="slow")
        other.send(type="subscribe", thread_id=accepted["thread_id"])
        await clock.forward(3550)
        expiring = await client.until_type("credentials_expiring")
        assert expiring["expires_at"] == client.frames[0]["expires_at"]
        await clock.forward(51)
        assert await client.until_closed() == 4401
        assert (client.frames[-1]["type"], client.frames[-1]["code"]) == ("error", "token_expired")
        # Whatever comes then is not carried out.
        client.send(type="stop_agent", run_id=accepted["run_id"])
        other.send(type="ping", id="p")
        await other.until(lambda frame: frame.get("id") == "p")
        other.send(type="stop_agent", run_id=accepted["run_id"], reason="other")
        assert (await other.ended(accepted["run_id"]))[-1]["payload"]["reason"] == "other"


async def test_a_fresh_token_goes_on_where_the_old_one_ends(
    start_service: StartService, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    service = await start_service(auth="jwt", jwt_secret=SECRET)
    async with signed_in(service, token()) as client, signed_in(service, token(lasts_s=3601)) as other:
        client.send(type="authenticate", id="a", token=token(lasts_s=7200))
        answer = await client.until_type("authenticated")
        assert (answer["id"], answer["user_id"]) == ("a", "ada")
        assert answer["expires_at"] > client.frames[0]["expires_at"]
        await clock.forward(3650)
        assert await other.until_closed() == 4401
        client.send(type="ping")
        await client.until_type("pong")
        assert (client.closed_with, of_type(client, "credentials_expiring")) == (None, [])


async def test_what_is_no_fresh_token_of_the_same_user_changes_nothing(
    start_service: StartService, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    service = await start_service(auth="jwt", jwt_secret=SECRET)
    async with signed_in(service, token()) as client:
        for made, code in (
            (token("eve", lasts_s=7200), "identity_mismatch"),
            (token(lasts_s=-1), "unauthorized"),
            ("x.y.z", "unauthorized"),
        ):
            client.send(type="authenticate", token=made)
            assert (await client.until_type("error"))["code"] == code
        await clock.forward(3650)
        assert await client.until_closed() == 4401


async def test_a_connection_without_an_end_takes_no_token(service: Service) -> None:
    async with peer(service) as client:
        client.send(type="authenticate", id="a", token="x")
        error = await client.until_type("error")
        assert (error["id"], error["code"], error["details"]) == ("a", "validation_error", {"field": "token"})


# Subscriptions


async def test_a_thread_that_is_deleted_by_another_makes_room_for_a_subscription(start_service: StartService) -> None:
    service = await start_service(max_subscriptions=1)
    async with peer(service) as client, peer(service) as other:
        await client.run("hi", agent="echo", run_id="first")
        refused = await client.ask("hi", agent="echo", thread_id="t")
        assert refused["code"] == "thread_not_found"
        client.send(type="create_thread", thread_id="t")
        await client.until_type("thread_created")
        refused = await client.ask("hi", agent="echo", thread_id="t", run_id="second")
        assert (refused["code"], refused["retry_after_ms"]) == ("too_many_subscriptions", 5000)
        other.send(type="delete_thread", thread_id=of_type(client, "request_accepted")[0]["thread_id"])
        await client.until_type("thread_deleted")
        events = await client.run("hi", agent="echo", thread_id="t", run_id="second")
        assert events[-1]["type"] == "agent_completed"


# Deletion


async def deleted(client: Peer, thread_id: str) -> list[dict[str, Any]]:
    """Waits until a connection has heard that a thread is gone and has answered one more frame; what it was told."""
    await client.until(lambda frame: frame["type"] == "thread_deleted" and frame["thread_id"] == thread_id)
    client.send(type="ping", id="after")
    await client.until(lambda frame: frame.get("id") == "after")
    return client.frames


def assert_whole(frames: list[dict[str, Any]], thread_id: str, run_id: str, *, frame_id: str | None) -> None:
    """All events of the thread came once and in order, the end of its run last, and then once that it is gone."""
    told = [frame for frame in frames if frame.get("thread_id") == thread_id]
    events = [frame for frame in told if "event_id" in frame]
    for before, after in itertools.pairwise(events):
        assert after.get("from_seq", after["seq"]) == before["seq"] + 1
    assert [(each["run_id"], each["payload"]["reason"]) for each in events if each["type"] in TERMINAL] == [
        (run_id, "thread_deleted")
    ]
    assert events[-1]["type"] == "agent_stopped"
    gone = [frame for frame in told if frame["type"] == "thread_deleted"]
    assert [frame["id"] for frame in gone] == [frame_id]
    assert told[-1] == gone[0]


async def never() -> None:
    await asyncio.Event().wait()


async def talk(run: agentws.Run) -> None:
    """Writes more than a follower holds, says so, and is at work until it is stopped."""
    for number in range(100):
        await run.write("x" * 2000)
        await run.think(str(number))
    await run.emit("test.said", None)
    await run.call_tool("never", never)


async def at_work(client: Peer) -> None:
    """Waits until a connection has been told all that `talk` says."""
    if not of_type(client, "tool_executing"):
        await client.until_type("tool_executing")


@asynccontextmanager
async def followed_by_two(start_service: StartService) -> AsyncIterator[tuple[Peer, Peer, dict[str, Any]]]:
    """Who started a run, another connection that follows it, and what the start was answered."""
    service = await start_service({"talk": talk}, send_buffer_bytes=20_000)
    async with peer(service) as asker, peer(service) as other:
        accepted = await asker.ask("hi")
        other.send(type="subscribe", thread_id=accepted["thread_id"])
        await other.until_type("caught_up")
        yield asker, other, accepted


async def test_asker_and_others_get_all_events_and_then_hear_of_the_deletion_once(start_service: StartService) -> None:
    async with followed_by_two(start_service) as (asker, other, accepted):
        thread_id, run_id = accepted["thread_id"], accepted["run_id"]
        await at_work(other)
        asker.send(type="delete_thread", id="d", thread_id=thread_id)
        for client, frame_id in ((asker, "d"), (other, None)):
            assert_whole(await deleted(client, thread_id), thread_id, run_id, frame_id=frame_id)
        [completed] = of_type(other, "tool_completed")
        assert (completed["payload"]["outcome"], completed["payload"]["error"]["code"]) == ("unknown", "tool_stopped")
        assert of_type(other, "agent_stopped")[0]["payload"]["response"] == "x" * 200_000


async def test_a_follower_that_takes_slowly_gets_them_too(start_service: StartService) -> None:
    async with followed_by_two(start_service) as (asker, other, accepted):
        thread_id, run_id = accepted["thread_id"], accepted["run_id"]
        other.reading.clear()
        await at_work(asker)
        asker.send(type="delete_thread", id="d", thread_id=thread_id)
        assert_whole(await deleted(asker, thread_id), thread_id, run_id, frame_id="d")
        assert of_type(other, "thread_deleted") == []
        other.reading.set()
        assert_whole(await deleted(other, thread_id), thread_id, run_id, frame_id=None)


async def test_an_asker_that_takes_slowly_gets_them_before_its_answer(start_service: StartService) -> None:
    async with followed_by_two(start_service) as (asker, other, accepted):
        thread_id, run_id = accepted["thread_id"], accepted["run_id"]
        asker.reading.clear()
        await at_work(other)
        asker.send(type="delete_thread", id="d", thread_id=thread_id)
        assert_whole(await deleted(other, thread_id), thread_id, run_id, frame_id=None)
        asker.reading.set()
        assert_whole(await deleted(asker, thread_id), thread_id, run_id, frame_id="d")


async def test_a_name_made_anew_at_once_is_another_thread_to_those_who_followed_the_old(
    start_service: StartService,
) -> None:
    async with followed_by_two(start_service) as (asker, other, accepted):
        thread_id, run_id = accepted["thread_id"], accepted["run_id"]
        other.reading.clear()
        await at_work(asker)
        asker.send(type="delete_thread", id="d", thread_id=thread_id)
        asker.send(type="create_thread", thread_id=thread_id)
        anew = (await asker.until_type("thread_created"))["thread"]
        again = await asker.ask("again", thread_id=thread_id)
        assert (again["epoch"], again["seq"]) == (anew["epoch"], 0)
        events = await asker.until(lambda frame: frame.get("run_id") == again["run_id"] and "event_id" in frame)
        assert (events["seq"], events["epoch"]) == (1, anew["epoch"])
        other.reading.set()
        assert_whole(await deleted(other, thread_id), thread_id, run_id, frame_id=None)
        assert not any(frame.get("run_id") == again["run_id"] for frame in other.frames)


async def test_an_asker_that_goes_away_while_its_last_events_are_read_leaves_nothing(
    start_service: StartService,
) -> None:
    async with followed_by_two(start_service) as (asker, other, accepted):
        asker.reading.clear()
        await at_work(other)
        asker.send(type="delete_thread", id="d", thread_id=accepted["thread_id"])
        await deleted(other, accepted["thread_id"])
        asker.gone = True
        asker.reading.set()
