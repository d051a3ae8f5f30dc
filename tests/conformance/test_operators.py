"""Section 6, `/metrics` and `/api/stats`: for operators, by token or from the same machine, and without user ids."""

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from .api import anonymous, calling, error_of
from .client import JwtServer, Server, connect, fresh
from .tokens import bearer, token

PATHS = ["/metrics", "/api/stats"]
FORWARDED = ["Forwarded", "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Real-IP"]
STATS_TOKEN = "operators-" + "x" * 32
NAMES = [
    *("messages_processed", "start_agent_requests", "user_messages", "chat_messages", "errors"),
    *("last_processed_time", "received", "duplicates", "frame_errors", "deprecated", "runs_in_flight"),
    *("runs_completed", "runs_failed", "runs_stopped", "connections", "events_sent", "events_replayed"),
    "uptime_seconds",
]

pytestmark = pytest.mark.needs("settings")


@pytest.mark.parametrize("path", PATHS)
async def test_where_no_token_is_set_the_same_machine_may_read(
    server: Server, jwt_server: JwtServer, path: str
) -> None:
    for each in (server, jwt_server):
        async with anonymous(each) as http:
            assert (await http.get(path)).status_code == 200


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("header", FORWARDED)
async def test_a_request_that_came_by_a_proxy_is_not_the_same_machines(server: Server, path: str, header: str) -> None:
    async with anonymous(server) as http:
        error_of(await http.get(path, headers={header: "127.0.0.1"}), "unauthorized")


@pytest.mark.parametrize("path", PATHS)
async def test_where_a_token_is_set_it_is_wanted_also_from_the_same_machine(strict: JwtServer, path: str) -> None:
    user = bearer(token(strict, None, uid=fresh("u"), org="o"))
    async with anonymous(strict) as http:
        assert (await http.get(path, headers=bearer(STATS_TOKEN))).status_code == 200
        for headers in ({}, bearer("wrong"), bearer(STATS_TOKEN[:-1]), bearer(STATS_TOKEN + "x"), user):
            error_of(await http.get(path, headers=headers), "unauthorized")
        error_of(await http.get(path, params={"token": STATS_TOKEN, "stats_token": STATS_TOKEN}), "unauthorized")


@pytest.mark.parametrize("path", PATHS)
async def test_the_token_serves_behind_a_proxy(strict: JwtServer, path: str) -> None:
    async with anonymous(strict) as http:
        headers = bearer(STATS_TOKEN) | {"X-Forwarded-For": "203.0.113.7"}
        assert (await http.get(path, headers=headers)).status_code == 200


async def test_the_operators_token_opens_nothing_of_users(strict: JwtServer) -> None:
    async with anonymous(strict) as http:
        for path in ("/api/me", "/api/threads"):
            error_of(await http.get(path, headers=bearer(STATS_TOKEN)), "unauthorized")


async def test_stats_are_one_flat_object_of_numbers(server: Server) -> None:
    async with calling(server) as api:
        stats = await api.get("/api/stats")
        assert set(NAMES) <= stats.keys()
        for name in NAMES:
            value = stats[name]
            assert isinstance(value, int | float) or (name == "last_processed_time" and value is None), name
        assert all(not isinstance(value, dict | list) for value in stats.values())


async def test_metrics_are_in_the_format_of_prometheus(server: Server) -> None:
    async with anonymous(server) as http:
        response = await http.get("/metrics")
        assert response.headers["Content-Type"].startswith(("text/plain", "application/openmetrics-text"))
        assert [family for family in text_string_to_metric_families(response.text) if family.samples]


async def texts(server: Server) -> str:
    async with anonymous(server) as http:
        responses: list[httpx.Response] = [await http.get(path) for path in PATHS]
        assert [response.status_code for response in responses] == [200, 200]
        return "".join(response.text for response in responses)


async def test_neither_tells_a_user_id_or_a_name_that_a_user_gave(server: Server) -> None:
    async with connect(server) as client, calling(server, client.user_id) as api:
        thread_id, run_id = fresh("secretthread"), fresh("secretrun")
        await client.new_thread(thread_id)
        await client.run("hi", thread_id=thread_id, run_id=run_id)
        await api.get(f"/api/threads/{thread_id}")
        await client.refused({"type": f"type-{client.user_id}"}, "unknown_type")
        await client.refused({"type": "chat", "content": "hi", "agent": f"agent-{client.user_id}"}, "agent_not_found")
        told = await texts(server)
        for name in (client.user_id, thread_id, run_id):
            assert name not in told
