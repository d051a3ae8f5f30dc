"""The rate of a user's frames: what is too much is refused with the time after which it is not, and who does not listen
is cut off. The server takes 40 frames at once and 20 more a second."""

import asyncio
import contextlib
import json

from websockets.exceptions import ConnectionClosed

from .api import calling, error_of
from .client import Client, Server, connect, fresh
from .shapes import Frame

BURST = 40
PING: Frame = {"type": "ping"}


async def flood(client: Client, frame: Frame, count: int) -> list[Frame]:
    """The answers to so many copies of a frame sent at once."""
    sent = [await client.post(frame) for _ in range(count)]
    return [await client.answer_to(frame_id) for frame_id in sent]


def refusals(answers: list[Frame]) -> list[Frame]:
    return [answer for answer in answers if answer.get("code") == "rate_limited"]


async def waited(refusal: Frame) -> None:
    """As long as the server says."""
    await asyncio.sleep(refusal["retry_after_ms"] / 1000)


async def test_a_burst_is_served_and_what_is_beyond_it_refused(limited: Server) -> None:
    async with connect(limited) as client:
        answers = await flood(client, PING, BURST + 30)
        assert [answer["type"] for answer in answers[:BURST]] == ["pong"] * BURST
        refused = refusals(answers)
        assert refused
        assert {answer["type"] for answer in answers if answer not in refused} == {"pong"}
        assert all(0 < refusal["retry_after_ms"] <= 10_000 for refusal in refused)
        assert all(refusal["retryable"] is True for refusal in refused)


async def test_who_waits_as_long_as_is_said_is_served(limited: Server) -> None:
    async with connect(limited) as client:
        refusal = refusals(await flood(client, PING, BURST + 20))[-1]
        for _ in range(5):
            await waited(refusal)
            await client.granted(PING, "pong")
            while (answer := await client.ask(PING))["type"] == "pong":
                pass
            refusal = answer


async def test_a_client_that_repeats_what_was_refused_gets_all_of_it_done(limited: Server) -> None:
    async with connect(limited) as client:
        thread_id = (await client.new_thread())["thread_id"]
        for number in range(BURST + 15):
            frame = {"type": "update_thread", "thread_id": thread_id, "title": f"title {number}"}
            answer = await client.ask(frame)
            if answer["type"] == "error":
                await waited(answer)
                answer = await client.granted(frame, "thread_updated")
            assert answer["thread"]["title"] == f"title {number}"


async def test_a_refused_start_did_not_run_and_left_its_key_free(limited: Server) -> None:
    async with connect(limited) as client:
        for _ in range(BURST + 20):
            await client.send(PING)
        chats = [{"type": "chat", "content": "hi", "idempotency_key": fresh("key")} for _ in range(3)]
        sent = {await client.post(frame): frame for frame in chats}
        answers = [await client.answer_to(frame_id) for frame_id in sent]
        refused = refusals(answers)
        assert refused
        await waited(refused[-1])
        accepted = await client.granted(sent[refused[-1]["id"]], "request_accepted")
        assert accepted["duplicate"] is False


async def test_the_connections_of_a_user_share_the_rate_and_other_users_have_theirs(limited: Server) -> None:
    user = fresh("u")
    async with connect(limited, user) as one, connect(limited, user) as two, connect(limited) as other:
        sent = [(client, await client.post(PING)) for _ in range(BURST) for client in (one, two)]
        answers = [await client.answer_to(frame_id) for client, frame_id in sent]
        assert len(refusals(answers)) >= BURST // 2
        assert refusals(await flood(other, PING, BURST)) == []


async def test_every_text_and_binary_frame_counts(limited: Server) -> None:
    faults: list[str | bytes] = ["{", "[]", "{}", '{"type": "nonsense"}', b"binary", '{"type": "heartbeat"}']
    for fault in faults:
        async with connect(limited) as client:
            for _ in range(BURST + 20):
                await client.socket.send(fault)
            answers = await flood(client, PING, 10)
            assert refusals(answers), f"{fault!r} is not counted"


async def test_the_frame_and_its_type_are_checked_before_the_rate_and_all_else_after_it(limited: Server) -> None:
    async with connect(limited) as client:
        frames: list[Frame] = [
            {"type": "nonsense"},
            {"type": "pong"},
            {},
            {"type": "chat", "id": "a b"},
            {"type": "chat", "user_id": "somebody-else"},
            {"type": "chat"},
        ]
        for frame in [*[PING] * (BURST + 20), *frames]:
            await client.send_text(json.dumps(frame))
        answers = [await client.answer_to(None) for _ in range(BURST + 20 + len(frames))]
        codes = [answer["code"] for answer in answers[-len(frames) :]]
        assert codes == ["unknown_type", "reserved_type", "missing_type", *["rate_limited"] * 3]


async def test_the_rate_is_that_of_http_too(limited: Server) -> None:
    async with connect(limited) as client, calling(limited, client.user_id) as api:
        await flood(client, PING, BURST + 20)
        while (response := await api.http.get("/api/threads")).status_code == 200:
            pass
        await waited(error_of(response, "rate_limited"))
        await api.get("/api/threads")


async def test_more_than_a_hundred_refusals_in_ten_seconds_close_with_4429(limited: Server) -> None:
    async with connect(limited) as client:
        with contextlib.suppress(ConnectionClosed):
            for _ in range(BURST + 300):
                await client.post(PING)
        assert await client.closed() == 4429
        assert len(refusals(client.log)) >= 100


async def test_less_than_a_hundred_refusals_leave_the_connection_open(limited: Server) -> None:
    async with connect(limited) as client:
        refused = refusals(await flood(client, PING, BURST + 90))
        assert 0 < len(refused) <= 100
        await waited(refused[-1])
        await client.granted(PING, "pong")
