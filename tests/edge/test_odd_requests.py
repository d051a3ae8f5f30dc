"""Requests that no client of ours sends are refused as the protocol says, and are no failures of the server."""

import logging

import httpx
import pytest
from starlette.types import Message

from agentws.app import Service, create_app

from ..peers import peer


@pytest.mark.parametrize("limit", ["0000199999999", "00001999999999999", "1001", "0", "-1", "", "9" * 5000])
async def test_a_page_of_events_has_no_other_limits_than_those_of_the_protocol(service: Service, limit: str) -> None:
    async with peer(service) as client:
        thread_id = (await client.ask("hi", agent="echo"))["thread_id"]
    transport = httpx.ASGITransport(create_app(service.settings, service=service))
    async with httpx.AsyncClient(transport=transport, base_url="http://agentws.test") as http:
        answer = await http.get(f"/api/threads/{thread_id}/events", params={"user": "ada", "limit": limit})
    assert (answer.status_code, answer.json()["code"]) == (400, "validation_error")
    assert answer.json()["details"] == {"field": "limit"}


async def test_a_cursor_of_another_list_is_not_valid(service: Service) -> None:
    async with peer(service) as client:
        for thread_id in ("t", "u"):
            client.send(type="create_thread", thread_id=thread_id)
        client.send(type="list_threads", limit=1)
        cursor = (await client.until_type("thread_list"))["next_before"]
        client.send(type="get_thread_history", thread_id="t", before=cursor)
        error = await client.until_type("error")
        assert (error["code"], error["details"]) == ("validation_error", {"field": "before"})


async def test_a_client_that_goes_away_within_its_body_is_no_failure(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    come: list[Message] = [
        {"type": "http.request", "body": b'{"type": ', "more_body": True},
        {"type": "http.disconnect"},
    ]

    async def receive() -> Message:
        return come.pop(0)

    async def send(message: Message) -> None: ...

    scope = {
        "type": "http", "method": "POST", "path": "/api/runs", "headers": [], "query_string": b"user=ada",
    }  # fmt: skip
    await create_app(service.settings, service=service)(scope, receive, send)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
    assert service.statistics.read()["received"] == 0
