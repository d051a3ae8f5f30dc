"""Section 5: the connections of a user are equal, and no other user ever hears of anything. That no frame names another
user is checked by the client on every frame."""

import asyncio

from .client import Client, JwtServer, Server, connect, dial, fresh
from .reader import Reader
from .runs import QUESTION, at_work
from .shapes import EVENTS, Frame
from .tokens import bearer, token


def runs_heard(client: Client) -> set[str]:
    return {frame["run_id"] for frame in client.log if frame["type"] in EVENTS}


async def test_every_subscribed_connection_of_a_user_is_told_the_same(server: Server) -> None:
    user = fresh("u")
    async with connect(server, user) as one, connect(server, user) as two, connect(server, user) as three:
        thread_id = (await one.new_thread())["thread_id"]
        marks = [(await client.replay(thread_id))[0] for client in (one, two, three)]
        accepted = await two.start(QUESTION, thread_id=thread_id)
        folds: list[Reader] = []
        for client, mark in zip((one, two, three), marks, strict=True):
            await client.ended(accepted["run_id"])
            folds.append(client.reader(thread_id, after_seq=0, since=mark))
        assert folds[0].runs == folds[1].runs == folds[2].runs


async def test_a_connection_that_did_not_ask_is_told_nothing(server: Server) -> None:
    user = fresh("u")
    async with connect(server, user) as one, connect(server, user) as two:
        accepted = await one.start("hi")
        await one.ended(accepted["run_id"])
        await two.still_serves()
        assert accepted["run_id"] not in runs_heard(two)


async def test_runs_started_on_two_connections_at_once_are_told_to_both(server: Server) -> None:
    user = fresh("u")
    async with connect(server, user) as one, connect(server, user) as two:
        thread_id = (await one.new_thread())["thread_id"]
        marks = [(await client.replay(thread_id))[0] for client in (one, two)]
        starts = [client.start(text, thread_id=thread_id) for client, text in [(one, "from one"), (two, "from two")]]
        answers = await asyncio.gather(*starts)
        for client, mark in zip((one, two), marks, strict=True):
            for answer in answers:
                await client.ended(answer["run_id"])
            reader = client.reader(thread_id, after_seq=0, since=mark)
            for answer, text in zip(answers, ("from one", "from two"), strict=True):
                assert text in reader.answer(answer["run_id"])


async def ask_with_shared_names(client: Client, names: Frame) -> Frame:
    """The same thread id, run id, key and question as another user asks with; the run's terminal event."""
    await client.new_thread(names["thread_id"])
    accepted = await client.start(QUESTION, **names)
    assert accepted["duplicate"] is False
    return await client.ended(accepted["run_id"])


async def test_two_users_with_the_same_names_and_questions_at_once_are_apart(server: Server) -> None:
    names = {"thread_id": fresh("t"), "run_id": fresh("run"), "idempotency_key": fresh("key")}
    async with connect(server) as one, connect(server) as two, connect(server) as three:
        clients = (one, two, three)
        ends = await asyncio.gather(*(ask_with_shared_names(client, names) for client in clients))
        for client, end in zip(clients, ends, strict=True):
            assert (end["user_id"], end["type"]) == (client.user_id, "agent_completed")
            assert "84" in end["payload"]["response"]
            _, events = await client.replay(names["thread_id"])
            reader = Reader().feed_all(events)
            assert list(reader.runs) == [names["run_id"]]


async def test_a_subscriber_of_the_same_name_hears_nothing_of_another_user(server: Server) -> None:
    thread_id = fresh("t")
    async with connect(server) as one, connect(server) as two:
        for client in (one, two):
            await client.new_thread(thread_id)
        await two.replay(thread_id)
        await one.run("mine", thread_id=thread_id)
        subscribed, events = await two.replay(thread_id)
        assert (subscribed["last_seq"], events, runs_heard(two)) == (0, [], set())


async def test_another_users_run_cannot_be_stopped(server: Server) -> None:
    thread_id = fresh("t")
    async with connect(server) as one, connect(server) as two:
        for client in (one, two):
            await client.new_thread(thread_id)
        accepted = await at_work(one, thread_id=thread_id)
        for name in ("run_id", "request_id"):
            await two.refused({"type": "stop_agent", name: accepted[name]}, "run_not_found")
        answer = await two.granted({"type": "stop_agent", "thread_id": thread_id}, "stop_accepted")
        assert (answer["run_ids"], answer["already_ended"]) == ([], [])
        answer = await one.granted({"type": "stop_agent", "run_id": accepted["run_id"]}, "stop_accepted")
        assert answer["run_ids"] == [accepted["run_id"]]


async def test_another_users_thread_cannot_be_started_in(server: Server) -> None:
    async with connect(server) as one, connect(server) as two:
        thread_id = (await one.new_thread())["thread_id"]
        await two.refused({"type": "chat", "content": "hi", "thread_id": thread_id}, "thread_not_found")
        _, events = await one.replay(thread_id)
        assert events == []


async def test_another_users_busy_thread_of_the_same_name_makes_nobody_wait(server: Server) -> None:
    thread_id = fresh("t")
    async with connect(server) as one, connect(server) as two:
        for client in (one, two):
            await client.new_thread(thread_id)
        await at_work(one, thread_id=thread_id)
        events = await two.run("hi", thread_id=thread_id)
        assert (events[0]["type"], events[0]["seq"]) == ("agent_started", 1)


async def test_users_with_tokens_are_apart_too(jwt_server: JwtServer) -> None:
    thread_id = fresh("t")
    one_header, two_header = (bearer(token(jwt_server, fresh("jwt"))) for _ in range(2))
    async with (
        dial(jwt_server.ws_url, headers=one_header) as one,
        dial(jwt_server.ws_url, headers=two_header) as two,
    ):
        await one.new_thread(thread_id)
        await two.refused({"type": "subscribe", "thread_id": thread_id}, "thread_not_found")
        await two.refused({"type": "chat", "content": "hi", "user_id": one.user_id}, "identity_mismatch")
        events = await one.run(QUESTION, thread_id=thread_id)
        assert "84" in events[-1]["payload"]["response"]
        assert runs_heard(two) == set()
