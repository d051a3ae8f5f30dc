"""What is counted of the hints between processes moves when that happens."""

import asyncpg

from ..conftest import StartService, TestDatabase
from ..peers import peer
from .reading import moved, until, value


async def test_hints_are_counted_where_they_are_sent_and_where_they_come(start_service: StartService) -> None:
    here, there = await start_service(broker="postgres"), await start_service(broker="postgres")
    await until(lambda: value(here, "agentws_hears_hints") == value(there, "agentws_hears_hints") == 1)
    async with peer(here) as client, peer(there) as other:
        with (
            moved(here, "agentws_hints_sent_total"),
            moved(here, "agentws_notifications_sent_total"),
            moved(there, "agentws_hints_ignored_total"),
        ):
            events = await client.run("hi", agent="echo")
            await until(lambda: value(there, "agentws_hints_ignored_total") > 0)
        thread_id = events[0]["thread_id"]
        other.send(type="subscribe", thread_id=thread_id)
        await other.until_type("caught_up")
        with moved(there, "agentws_hints_received_total"):
            again = await client.run("again", agent="echo", thread_id=thread_id)
            await other.ended(again[0]["run_id"])


async def test_a_line_that_is_made_anew_and_its_echoes_are_counted(
    start_service: StartService, database: TestDatabase
) -> None:
    service = await start_service(broker="postgres")
    await until(lambda: value(service, "agentws_hears_hints") == 1)
    owner = await asyncpg.connect(database.owner_url)
    try:
        with (
            moved(service, "agentws_listening_connections_total", by=1),
            moved(service, "agentws_echo_seconds_count"),
            moved(service, "agentws_echo_seconds_sum"),
        ):
            await owner.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'agentws listen'"
                " AND datname = current_database()"
            )
            await until(lambda: value(service, "agentws_hears_hints") == 0)
            with moved(service, "agentws_hears_hints", by=1):
                await until(lambda: value(service, "agentws_hears_hints") == 1)
    finally:
        await owner.close()
