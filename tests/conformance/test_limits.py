"""Limits, each with the error that the page gives it, and what helps against it. Of every user and of the process."""

import contextlib
from collections.abc import Awaitable, Callable

import pytest
from websockets.asyncio.client import connect as open_socket
from websockets.exceptions import ConnectionClosed

from .api import anonymous, calling, error_of
from .client import Client, Server, connect, fresh, user_url
from .runs import at_work
from .shapes import Frame
from .threads import delete, switch
from .told import until
from .upgrades import refusal

CHAT: Frame = {"type": "chat", "content": "hi"}


async def open_connections(server: Server) -> int:
    async with anonymous(server) as http:
        stats: Frame = (await http.get("/api/stats")).json()
    count = stats["connections"]
    assert isinstance(count, int)
    return count


async def close_code(url: str) -> int | None:
    """The code with which a connection that is accepted is closed at once, without a frame of ours."""
    async with open_socket(url, compression=None, proxy=None) as socket:
        with contextlib.suppress(ConnectionClosed):
            while True:
                await socket.recv()
        return socket.close_code


async def test_a_users_connection_too_many_is_accepted_and_closed_with_4409(limited: Server) -> None:
    user = fresh("u")
    async with connect(limited, user) as one, connect(limited) as stranger:
        async with connect(limited, user) as two:
            assert await close_code(user_url(limited, user)) == 4409
            for client in (one, two, stranger):
                await client.still_serves()
        await until(lambda: open_connections(limited), lambda count: count <= 2)
        async with connect(limited, user) as two:
            await two.still_serves()


async def test_a_full_server_is_503_with_retry_after(limited: Server) -> None:
    await until(lambda: open_connections(limited), lambda count: count == 0)
    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connect(limited)) for _ in range(6)]
        status, headers, body = await refusal(user_url(limited, fresh("u")))
        assert (status, body["code"]) == (503, "overloaded")
        assert int(headers["Retry-After"]) >= 1
        for client in clients:
            await client.still_serves()
    await until(lambda: open_connections(limited), lambda count: count == 0)
    async with connect(limited) as client:
        await client.still_serves()


async def test_me_says_that_the_server_is_full(limited: Server) -> None:
    """A browser does not see the status of an upgrade, and asks here."""
    await until(lambda: open_connections(limited), lambda count: count == 0)
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(6):
            await stack.enter_async_context(connect(limited))
        async with calling(limited) as api:
            error_of(await api.http.get("/api/me"), "overloaded")
    await until(lambda: open_connections(limited), lambda count: count == 0)


async def threads_of(client: Client, count: int) -> list[str]:
    return [(await client.new_thread())["thread_id"] for _ in range(count)]


async def test_a_subscription_too_many_is_refused_until_one_is_given_up(limited: Server) -> None:
    async with connect(limited) as client:
        one, two, three = await threads_of(client, 3)
        await client.replay(one)
        await client.replay(two)
        refused = {"type": "subscribe", "thread_id": three}
        await client.refused(refused, "too_many_subscriptions")
        await client.replay(two)  # Replaces what was there.
        await client.granted({"type": "unsubscribe", "thread_id": one}, "unsubscribed")
        await client.granted(refused, "subscribed")


async def test_a_switch_beyond_the_subscriptions_is_refused_and_changes_nothing(limited: Server) -> None:
    async with connect(limited) as client:
        one, two, three = await threads_of(client, 3)
        await switch(client, one)
        await client.replay(two)
        await client.refused({"type": "switch_thread", "thread_id": three}, "too_many_subscriptions")
        assert (await client.start("hi"))["thread_id"] == one


async def test_a_start_that_would_be_a_subscription_too_many_does_not_run(limited: Server) -> None:
    async with connect(limited) as client:
        one, two, three = await threads_of(client, 3)
        await client.replay(one)
        await client.replay(two)
        run_id = fresh("run")
        await client.refused(CHAT | {"thread_id": three, "run_id": run_id}, "too_many_subscriptions")
        accepted = await client.start("hi", thread_id=three, run_id=run_id, subscribe=False)
        assert (accepted["duplicate"], accepted["run_id"]) == (False, run_id)
        await client.run("hi", thread_id=two)


async def test_the_subscriptions_of_another_connection_are_its_own(limited: Server) -> None:
    user = fresh("u")
    async with connect(limited, user) as one, connect(limited, user) as two:
        first, second, third = await threads_of(one, 3)
        for thread_id in (first, second):
            await one.replay(thread_id)
        for thread_id in (third, second):
            await two.replay(thread_id)


async def test_a_thread_too_many_is_refused_until_one_is_deleted(limited: Server) -> None:
    async with connect(limited) as client:
        one, *_ = await threads_of(client, 3)
        name = fresh("t")
        await client.refused({"type": "create_thread", "thread_id": name}, "too_many_threads")
        await client.refused({"type": "subscribe", "thread_id": name}, "thread_not_found")
        await client.refused(CHAT, "too_many_threads")
        assert (await client.new_thread(one))["thread_id"] == one
        await client.run("hi", thread_id=one)
        await delete(client, one)
        assert (await client.new_thread(name))["thread_id"] == name


async def test_a_start_that_would_make_a_thread_too_many_is_429_over_http(limited: Server) -> None:
    async with connect(limited) as client, calling(limited, client.user_id) as api:
        await threads_of(client, 3)
        await api.refused("POST", "/api/runs", "too_many_threads", json=CHAT)


async def ended_all(client: Client, accepted: list[Frame]) -> None:
    for each in accepted:
        await client.stop(run_id=each["run_id"])
    for each in accepted:
        await client.ended(each["run_id"])


async def test_a_run_too_many_is_refused_until_one_has_ended(limited: Server) -> None:
    async with connect(limited) as client, calling(limited, client.user_id) as api:
        runs = [await at_work(client), await client.start("waits", idempotency_key="k"), await client.start("waits")]
        refused = CHAT | {"run_id": fresh("run"), "idempotency_key": "l"}
        await client.refused(refused, "too_many_runs")
        await api.refused("POST", "/api/runs", "too_many_runs", json=refused)
        other = (await client.new_thread())["thread_id"]
        await client.refused(CHAT | {"thread_id": other}, "too_many_runs")
        assert (await client.start("waits", idempotency_key="k"))["duplicate"] is True
        await client.stop(run_id=runs[2]["run_id"])
        await client.ended(runs[2]["run_id"])
        accepted = await client.granted(refused, "request_accepted")
        assert accepted["duplicate"] is False
        await ended_all(client, [*runs[:2], accepted])


async def test_one_users_runs_are_not_anothers(limited: Server) -> None:
    async with connect(limited) as client, connect(limited) as other:
        runs = [await at_work(client), await client.start("waits"), await client.start("waits")]
        await client.refused(CHAT, "too_many_runs")
        await other.run("hi")
        await ended_all(client, runs)


async def test_the_checks_of_a_start_come_before_the_limits(limited: Server) -> None:
    async with connect(limited) as client:
        runs = [await at_work(client), await client.start("waits"), await client.start("waits")]
        await client.refused(CHAT | {"thread_id": fresh("t")}, "thread_not_found")
        await client.refused(CHAT | {"run_id": runs[0]["run_id"]}, "run_id_conflict")
        await client.refused(CHAT | {"if_busy": "reject"}, "too_many_runs")
        await ended_all(client, runs)


async def test_waiting_runs_too_many_of_all_users_are_overloaded(limited: Server) -> None:
    async with connect(limited) as one, connect(limited) as two, connect(limited) as three:
        runs = {}
        for client in (one, two):
            runs[client] = [await at_work(client), await client.start("waits"), await client.start("waits")]
        first = await at_work(three)
        runs[three] = [first]
        refused = await three.refused(CHAT, "overloaded")
        assert refused["retryable"] is True
        async with calling(limited, three.user_id) as api:
            path = f"/api/threads/{first['thread_id']}/runs"
            await api.refused("POST", path, "overloaded", json=CHAT)
        await one.stop(run_id=runs[one][2]["run_id"])
        await one.ended(runs[one].pop()["run_id"])
        runs[three].append(await three.granted(CHAT, "request_accepted"))
        for client, accepted in runs.items():
            await ended_all(client, accepted)


async def test_the_size_of_a_frame_is_the_setting(limited: Server) -> None:
    def ping(size: int) -> str:
        bare = '{"type": "ping", "id": "big", "payload": ""}'
        return bare[:-2] + "x" * (size - len(bare)) + bare[-2:]

    async with connect(limited) as client:
        await client.send_text(ping(65536))
        assert (await client.answer_to("big"))["type"] == "pong"
        with contextlib.suppress(ConnectionClosed):
            await client.send_text(ping(65537))
        assert await client.closed() == 1009


async def test_the_size_of_a_body_is_the_setting(limited: Server) -> None:
    async with calling(limited) as api:
        response = await api.http.post("/api/runs", json=CHAT | {"context": {"a": "x" * 65536}})
        assert response.status_code == 413


async def many_connections(server: Server) -> None:
    user = fresh("u")
    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connect(server, user)) for _ in range(25)]
        for client in clients:
            await client.granted({"type": "heartbeat"}, "heartbeat_ack")


async def many_subscriptions(server: Server) -> None:
    async with connect(server) as client:
        for thread_id in await threads_of(client, 110):
            await client.replay(thread_id)


async def many_runs(server: Server) -> None:
    async with connect(server) as client:
        first = await at_work(client)
        waiting = [await client.start("waits", subscribe=False) for _ in range(55)]
        assert waiting[-1]["position"] == 55
        await client.stop(thread_id=first["thread_id"])
        for each in (first, *waiting):
            await client.ended(each["run_id"])


async def many_frames(server: Server) -> None:
    async with connect(server) as client:
        for number in range(400):
            await client.send({"type": "ping", "payload": number})
        for number in range(400):
            assert (await client.answer_to(None))["payload"] == number


@pytest.mark.parametrize("many", [many_connections, many_subscriptions, many_runs, many_frames])
async def test_zero_switches_a_limit_off(unlimited: Server, many: Callable[[Server], Awaitable[None]]) -> None:
    await many(unlimited)
