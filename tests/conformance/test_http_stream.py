"""Section 6, the events of a thread as an event stream: a subscription, resumed by `Last-Event-ID`. That `event:` is
the frame's type and `id:` its number is checked on every frame."""

import pytest

from .api import Api, Stream, anonymous, calling
from .client import JwtServer, Server, connect, fresh, of_type
from .reader import Reader
from .runs import QUESTION, at_work, streaming
from .shapes import Frame
from .threads import delete
from .tokens import bearer, expiring


async def past(stream: Stream) -> tuple[Frame, list[Frame]]:
    """`subscribed`, and the events between it and `caught_up`."""
    subscribed = await stream.receive()
    assert (subscribed["type"], subscribed["id"]) == ("subscribed", None)
    caught_up = await stream.next(of_type("caught_up"), "caught_up")
    events = stream.events(subscribed["thread_id"], since=subscribed, until=caught_up)
    assert caught_up["seq"] == (events[-1]["seq"] if events else subscribed["after_seq"])
    return subscribed, events


async def test_a_stream_is_a_subscription(server: Server) -> None:
    async with connect(server) as client, calling(server, client.user_id) as api:
        first = await client.run(QUESTION)
        thread_id = first[0]["thread_id"]
        async with api.stream(thread_id) as stream:
            subscribed, events = await past(stream)
            assert (subscribed["after_seq"], subscribed["recovered"]) == (0, True)
            assert Reader().feed_all(events).last_seq == subscribed["last_seq"] == first[-1]["seq"]
            accepted = await client.start("more")
            assert await stream.ended(accepted["run_id"]) == await client.ended(accepted["run_id"])
            reader = stream.reader(thread_id, after_seq=0, since=subscribed)
            assert [run.whole for run in reader.runs.values()] == [True, True]


async def test_a_stream_in_the_middle_of_a_run_has_no_seam(server: Server) -> None:
    async with connect(server) as client, calling(server, client.user_id) as api:
        accepted = await client.start(**streaming(40))
        thread_id, run_id = accepted["thread_id"], accepted["run_id"]
        await client.event(run_id, "agent_message")
        async with api.stream(thread_id) as stream:
            subscribed, _ = await past(stream)
            response = (await stream.ended(run_id))["payload"]["response"]
            assert stream.reader(thread_id, after_seq=0, since=subscribed).answer(run_id) == response


async def test_last_event_id_resumes(server: Server) -> None:
    async with connect(server) as client, calling(server, client.user_id) as api:
        live = await client.run(QUESTION)
        thread_id = live[0]["thread_id"]
        for held in range(1, len(live) + 1):
            reader = Reader().feed_all(live[:held])
            async with api.stream(thread_id, last_event_id=reader.last_seq) as stream:
                subscribed, events = await past(stream)
                assert (subscribed["after_seq"], subscribed["recovered"]) == (reader.last_seq, True)
                assert reader.feed_all(events).last_seq == live[-1]["seq"]


async def test_after_seq_in_the_query_is_where_a_first_request_begins(server: Server) -> None:
    async with connect(server) as client, calling(server, client.user_id) as api:
        live = await client.run("hi")
        async with api.stream(live[0]["thread_id"], after_seq=2, epoch=live[0]["epoch"]) as stream:
            subscribed, events = await past(stream)
            assert (subscribed["after_seq"], subscribed["recovered"]) == (2, True)
            assert Reader(2).feed_all(events).last_seq == live[-1]["seq"]


async def test_last_event_id_goes_before_the_query_of_a_request_that_is_made_again(server: Server) -> None:
    async with connect(server) as client, calling(server, client.user_id) as api:
        live = await client.run("hi")
        async with api.stream(live[0]["thread_id"], last_event_id=live[-1]["seq"], after_seq=1) as stream:
            subscribed, events = await past(stream)
            assert (subscribed["after_seq"], events) == (live[-1]["seq"], [])


async def test_another_epoch_is_not_recovered(server: Server) -> None:
    async with connect(server) as client, calling(server, client.user_id) as api:
        live = await client.run("hi")
        async with api.stream(live[0]["thread_id"], after_seq=2, epoch="no-such-epoch") as stream:
            subscribed, events = await past(stream)
            assert (subscribed["recovered"], subscribed["after_seq"]) == (False, 0)
            assert Reader().feed_all(events).last_seq == live[-1]["seq"]


@pytest.mark.parametrize("bad", ["x", "-1", "1.5"])
async def test_a_last_event_id_that_is_no_number_is_refused(server: Server, bad: str) -> None:
    async with connect(server) as client, calling(server, client.user_id) as api:
        path = f"/api/threads/{(await client.new_thread())['thread_id']}/events"
        headers = {"Accept": "text/event-stream", "Last-Event-ID": bad}
        await api.refused("GET", path, "validation_error", headers=headers)


async def test_an_unknown_thread_is_refused_before_the_stream(server: Server) -> None:
    async with calling(server) as api:
        path, headers = f"/api/threads/{fresh('t')}/events", {"Accept": "text/event-stream"}
        await api.refused("GET", path, "thread_not_found", headers=headers)


async def test_a_deletion_is_told(server: Server) -> None:
    async with connect(server) as client, calling(server, client.user_id) as api:
        accepted = await at_work(client)
        async with api.stream(accepted["thread_id"]) as stream:
            subscribed, _ = await past(stream)
            await delete(client, accepted["thread_id"])
            told = await stream.next(of_type("thread_deleted"), "thread_deleted")
            assert (told["id"], told["thread_id"]) == (None, accepted["thread_id"])
            reader = stream.reader(accepted["thread_id"], after_seq=0, since=subscribed)
            terminal = reader.runs[accepted["run_id"]].terminal
            assert terminal is not None
            assert terminal["payload"]["reason"] == "thread_deleted"


async def test_a_stream_tells_nothing_of_other_threads_and_users(server: Server) -> None:
    name = fresh("t")
    async with connect(server) as client, connect(server) as stranger, calling(server, client.user_id) as api:
        for each in (client, stranger):
            await each.new_thread(name)
        async with api.stream(name) as stream:
            await past(stream)
            await stranger.run("theirs", thread_id=name)
            await client.run("elsewhere")
            accepted = await client.start("here", thread_id=name)
            await stream.ended(accepted["run_id"])
            runs = {frame["run_id"] for frame in stream.log if "run_id" in frame}
            assert runs == {accepted["run_id"]}


async def test_a_stream_whose_reader_went_away_leaves_the_thread_working(server: Server) -> None:
    async with connect(server) as client, calling(server, client.user_id) as api:
        thread_id = (await client.new_thread())["thread_id"]
        for _ in range(3):
            async with api.stream(thread_id) as stream:
                await past(stream)
        await client.run("still here", thread_id=thread_id)


async def test_a_stream_of_an_expired_token_is_told_so(jwt_server: JwtServer) -> None:
    user = fresh("jwt")
    credential, _ = expiring(jwt_server, user, in_s=2)
    async with connect(jwt_server, user) as client, anonymous(jwt_server) as http:
        thread_id = (await client.new_thread())["thread_id"]
        http.headers.update(bearer(credential))
        async with Api(http, user).stream(thread_id) as stream:
            await past(stream)
            told = await stream.next(of_type("error"), "token_expired")
            assert told["code"] == "token_expired"
