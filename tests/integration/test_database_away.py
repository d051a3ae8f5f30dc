"""A database that is not there, goes, and comes back: said plainly, nothing lost, everything goes on."""

import asyncio
import subprocess
import sys
import time

import asyncpg
import httpx

from agentws.store.embedded import EmbeddedPostgres

from ..conformance.client import connect
from ..processes import ROOT
from .conftest import Serve, answered_again


def test_a_database_that_is_down_at_start_is_waited_for_and_named() -> None:
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "agentws", "serve", "--port", "0"],
        env={
            "AGENTWS_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none",
            "AGENTWS_ENV": "production",
            "AGENTWS_JWT_SECRET": "s" * 48,
            "AGENTWS_DATABASE_WAIT_S": "1.5",
        },
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert time.monotonic() - began >= 1.5
    assert "waiting for the database" in done.stderr
    assert "agentws: no database within 1.5 s" in done.stderr
    assert "Traceback" not in done.stderr


async def test_a_database_that_goes_and_comes_back(serve: Serve, postgres: EmbeddedPostgres) -> None:
    server = serve(database_timeout_s="2", lease_ttl_s="60")
    async with connect(server, "ada") as client:
        accepted = await client.start("400", agent="stream")
        await client.event(accepted["run_id"], "agent_message")
        postgres.stop()
        refused = await client.refused({"type": "chat", "payload": {"content": "hi"}}, "database_unavailable")
        assert refused["retryable"] is True
        told = await client.next(
            lambda frame: frame["type"] == "error" and frame["id"] is None, "a word to subscribers"
        )
        assert told["code"] == "database_unavailable"
        async with httpx.AsyncClient() as http:
            assert (await http.get(f"{server.http_url}/readyz", timeout=30)).status_code == 503
            assert (await http.get(f"{server.http_url}/healthz")).status_code == 200
        postgres.start()
        ended = await client.ended(accepted["run_id"])
        assert ended["type"] == "agent_completed"
        reader = client.reader(accepted["thread_id"], after_seq=0, since=accepted)
        assert [event["type"] for event in reader.of(accepted["run_id"])][-1] == "agent_completed"
        assert ended["payload"]["response"] == "".join(f"w{number} " for number in range(400))
        await answered_again(client)


async def test_a_database_away_for_longer_than_the_lease_ends_the_run_once(
    serve: Serve, postgres: EmbeddedPostgres
) -> None:
    server = serve(database_timeout_s="1", lease_ttl_s="2")
    async with connect(server, "ada") as client:
        accepted = await client.start("hi", agent="slow")
        await client.event(accepted["run_id"], "agent_message")
        postgres.stop()
        async with asyncio.timeout(30):
            while not any("the lease was lost" in line for line in server.log):
                await client.refused({"type": "chat", "payload": {"content": "hi"}}, "database_unavailable")
        postgres.start()
        ended = await client.ended(accepted["run_id"])
        assert (ended["type"], ended["payload"]["code"]) == ("agent_error", "worker_lost")
        await answered_again(client)


async def test_a_run_that_may_be_restarted_goes_on_after_a_database_that_was_away_for_longer_than_the_lease(
    serve: Serve, postgres: EmbeddedPostgres
) -> None:
    settings = {"database_timeout_s": "1", "lease_ttl_s": "2", "restart_delay_s": "0.1"}
    server, other = serve(**settings), serve(**settings)
    async with connect(server, "ada") as client:
        accepted = await client.start("hi", agent="phoenix")
        await client.event(accepted["run_id"], "tool_executing")
        postgres.stop()
        async with asyncio.timeout(30):
            while not all(any("the lease was lost" in line for line in each.log) for each in (server, other)):
                await client.refused({"type": "chat", "payload": {"content": "hi"}}, "database_unavailable")
        postgres.start()
        ended = await client.ended(accepted["run_id"])
        assert (ended["type"], ended["attempt"]) == ("agent_completed", 2)
        reader = client.reader(accepted["thread_id"], after_seq=0, since=accepted)
        kinds = [event["type"] for event in reader.of(accepted["run_id"])]
        assert kinds == ["agent_started", "agent_message", "tool_executing", "tool_completed", *kinds[4:]]
        assert kinds[4:] == ["agent_started", "agent_message", "agent_completed"]
        await answered_again(client)


async def test_terminated_backends_are_replaced_and_nothing_is_lost(serve: Serve, postgres: EmbeddedPostgres) -> None:
    server = serve()
    operator = await asyncpg.connect(postgres.url(user="postgres", database="agentws"))
    try:
        async with connect(server, "ada") as client:
            accepted = await client.start("500", agent="stream")
            for _ in range(5):
                await client.event(accepted["run_id"], "agent_message")
                await operator.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'agentws'"
                )
            ended = await client.ended(accepted["run_id"])
            assert ended["payload"]["response"] == "".join(f"w{number} " for number in range(500))
            client.reader(accepted["thread_id"], after_seq=0, since=accepted)
            await answered_again(client)
    finally:
        await operator.close()
