"""Section 3, `ping` and `heartbeat`: what comes back, and that it comes back beside all else."""

import pytest

from .client import Server, connect
from .runs import at_work
from .shapes import Frame

VALUES = [0, 7, -1.5, "", "text", True, False, [], {}, [None], {"a": None, "thread_id": 5, "user_id": "data"}, [[{}]]]


@pytest.mark.parametrize("value", VALUES)
async def test_a_ping_comes_back_with_its_payload(server: Server, value: object) -> None:
    async with connect(server) as client:
        pong = await client.granted({"type": "ping", "payload": value}, "pong")
        assert pong["payload"] == value
        assert type(pong["payload"]) is type(value)


@pytest.mark.parametrize("fields", [{}, {"a": 1}, {"a": {"b": ["c", None]}, "sent_at": 12.5, "text": "hi"}])
async def test_a_ping_without_payload_comes_back_with_its_other_fields(server: Server, fields: Frame) -> None:
    async with connect(server) as client:
        assert (await client.granted({"type": "ping", **fields}, "pong"))["payload"] == fields


async def test_a_ping_without_an_id_is_answered(server: Server) -> None:
    async with connect(server) as client:
        await client.send({"type": "ping", "payload": "anonymous"})
        pong = await client.next(lambda frame: frame["type"] == "pong", "pong")
        assert (pong["id"], pong["payload"]) == (None, "anonymous")


@pytest.mark.parametrize("frame", [{"type": "heartbeat"}, {"type": "heartbeat", "payload": {}}])
async def test_a_heartbeat_is_answered_healthy(server: Server, frame: Frame) -> None:
    async with connect(server) as client:
        assert (await client.granted(frame, "heartbeat_ack"))["status"] == "healthy"


async def test_pings_and_heartbeats_are_answered_while_a_run_goes_on(server: Server) -> None:
    async with connect(server) as client:
        accepted = await at_work(client)
        assert (await client.granted({"type": "ping", "payload": 1}, "pong"))["payload"] == 1
        await client.granted({"type": "heartbeat"}, "heartbeat_ack")
        await client.granted({"type": "stop_agent", "run_id": accepted["run_id"]}, "stop_accepted")
        await client.ended(accepted["run_id"])
