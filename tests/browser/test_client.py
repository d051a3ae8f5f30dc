"""The JavaScript client on its own: events folded into runs, requests repeated, errors, what it refuses to send."""

import asyncio
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Page

from ..processes import ServerProcess
from .conftest import OpenTab

EVENT = {"event_id": "e", "timestamp": "2026-01-01T00:00:00.000Z", "run_id": "r", "attempt": 1, "agent_name": "demo"}


def event(type_: str, run_id: str = "r", attempt: int = 1, **payload: Any) -> dict[str, Any]:
    return {**EVENT, "type": type_, "run_id": run_id, "attempt": attempt, "payload": payload}


def piece(text: str, offset: int, attempt: int = 1) -> dict[str, Any]:
    return event("agent_message", attempt=attempt, text=text, offset=offset)


STARTED = event("agent_started", status="started", message="hello")
AGAIN = event("agent_started", attempt=2, status="started", message="hello")
OTHER = event("agent_completed", response="other", duration_ms=1)
FAILED = event("agent_error", code="c", message="m", retryable=False, response=None, duration_ms=1)
FOLDED: list[tuple[str, list[dict[str, Any]], str]] = [
    ("pieces follow one another", [piece("ab", 0), piece("c", 2)], "abc"),
    ("a merged piece begins before", [piece("ab", 0), piece("abcd", 0)], "abcd"),
    ("offsets count code points", [piece("\U0001f680é", 0), piece("\U0001f680é!", 0), piece("?", 3)], "\U0001f680é!?"),
    ("a piece that is held already", [piece("abc", 0), piece("b", 1)], "abc"),
    ("a piece whose beginning is missing", [piece("c", 2)], ""),
    ("another attempt begins anew", [piece("ab", 0), AGAIN, piece("x", 0, 2)], "x"),
    ("another text is returned", [piece("ab", 0), OTHER], "other"),
    ("an error without a text leaves what was said", [piece("ab", 0), FAILED], "ab"),
    ("an unknown type is passed over", [event("agent_dreamt", what="sheep"), piece("a", 0)], "a"),
]


@pytest_asyncio.fixture(loop_scope="session")
async def page(open_tab: OpenTab, quick: ServerProcess, user: str) -> Page:
    """A page of the server, as the user, to import the client into."""
    return (await (await open_tab(quick)).visit(user)).page


@pytest.mark.parametrize(("events", "text"), [each[1:] for each in FOLDED], ids=[each[0] for each in FOLDED])
async def test_an_answer_is_joined_from_its_pieces(page: Page, events: list[dict[str, Any]], text: str) -> None:
    fold = """async (events) => {
        const { ThreadLog } = await import("./agentws.js");
        const log = new ThreadLog();
        return events.map((each) => log.apply(each).text).at(-1);
    }"""
    assert await page.evaluate(fold, [STARTED, *events]) == text


async def test_a_run_may_have_any_id_and_thinking_is_joined_step_by_step(page: Page) -> None:
    events = [
        event("agent_started", "__proto__", message="hello"),
        event("agent_thinking", "__proto__", reasoning="ab", step=1, offset=0),
        event("agent_thinking", "__proto__", reasoning="cd", step=1, offset=2),
        event("agent_thinking", "__proto__", reasoning="other", step=2, offset=0),
        event("agent_stopped", "__proto__", reason="user", response=None, duration_ms=5),
    ]
    fold = """async (events) => {
        const { ThreadLog } = await import("./agentws.js");
        const log = new ThreadLog();
        for (const each of events) log.apply(each);
        const run = log.runs.get("__proto__");
        return [run.status, run.reason, run.entries.map((each) => each.text), {}.status === undefined];
    }"""
    assert await page.evaluate(fold, events) == ["stopped", "user", ["abcd", "other"], True]


async def test_what_tools_did_in_an_earlier_attempt_stays(page: Page) -> None:
    events = [
        STARTED,
        event("agent_thinking", reasoning="first", step=1, offset=0),
        event("tool_executing", execution_id="x", tool_name="send", parameters={}),
        event("tool_completed", execution_id="x", outcome="unknown", result=None, error=None, duration_ms=3),
        event("agent_started", attempt=2, message="hello"),
        event("agent_thinking", attempt=2, reasoning="second", step=1, offset=0),
    ]
    fold = """async (events) => {
        const { ThreadLog } = await import("./agentws.js");
        const log = new ThreadLog();
        const run = events.map((each) => log.apply(each)).at(-1);
        return run.entries.map((each) => each.text ?? each.status);
    }"""
    assert await page.evaluate(fold, events) == ["unknown", "second"]


async def test_of_runs_that_began_before_a_history_page_only_those_that_go_on_are_taken(page: Page) -> None:
    told = [
        {"run_id": "shown", "role": "user", "content": "q", "status": "queued", "seq": 9, "created_at": "2026-01-01"}
    ]
    events = [
        {**event("agent_completed", "ended", response="old", duration_ms=1), "seq": 6},
        {**event("agent_started", "goes-on", message="older"), "seq": 7},
        {**event("agent_message", "goes-on", text="x", offset=0), "seq": 8},
        {**event("agent_queued", "shown", position=1), "seq": 9},
        {**event("agent_queued", "new", position=2), "seq": 11},
    ]
    fold = """async ([messages, events]) => {
        const { ThreadLog } = await import("./agentws.js");
        const log = new ThreadLog();
        const history = { messages, last_seq: 10, resume_after: 5 };
        log.seed(history);
        const taken = events.map((each) => log.apply(each) !== null);
        return [ThreadLog.startOf(history), taken, [...log.runs.values()].map((run) => [run.run_id, run.text])];
    }"""
    runs = [["goes-on", "x"], ["shown", ""], ["new", ""]]
    assert await page.evaluate(fold, [told, events]) == [5, [False, True, True, True, True], runs]


CONNECT = """
    const { AgentClient } = await import("./agentws.js");
    const client = new AgentClient({ url: `${location.origin.replace("http", "ws")}/ws${location.search}` });
    const until = (name, wanted) => new Promise((done) => {
        client.addEventListener(name, ({ detail }) => wanted(detail) && done(detail));
    });
    client.connect();
"""


async def ran(page: Page, script: str) -> Any:
    async with asyncio.timeout(60):
        return await page.evaluate("async () => {" + CONNECT + script + "}")


async def test_requests_made_before_the_connection_are_answered_and_a_key_runs_once(page: Page) -> None:
    both = await ran(
        page,
        """
        const made = await client.createThread({ title: "mine" });
        const options = { thread_id: made.thread_id, idempotency_key: "key-1" };
        const answers = await Promise.all([client.start("hello", options), client.start("hello", options)]);
        client.close();
        return [answers.map((each) => each.duplicate), answers[0].run_id === answers[1].run_id];
        """,
    )
    assert both == [[False, True], True]


async def test_an_error_frame_is_an_exception_that_says_what_it_knows(page: Page) -> None:
    error = await ran(
        page,
        """
        const error = await client.start("hello", { thread_id: "nowhere" }).catch((error) => error);
        client.close();
        return [error.constructor.name, error.code, error.retryable, error.message.length > 0];
        """,
    )
    assert error == ["AgentError", "thread_not_found", False, True]


async def test_what_the_server_would_close_the_line_for_is_not_sent(page: Page) -> None:
    error = await ran(
        page,
        """
        await until("state", (state) => state.name === "connected");
        const error = await client.start("\\u00e9".repeat(600000)).catch((error) => error);
        const state = client.state.name;
        client.close();
        return [error.code, state];
        """,
    )
    assert error == ["message_too_large", "connected"]


async def test_events_are_handed_out_once_and_in_order_over_many_drops(page: Page) -> None:
    seen = await ran(
        page,
        """
        const seen = [];
        client.addEventListener("event", ({ detail }) => {
            for (let seq = detail.from_seq ?? detail.seq; seq <= detail.seq; seq += 1) seen.push(seq);
            if (seen.length % 7 === 0) client.drop();
        });
        const { thread_id } = await client.createThread();
        await client.follow(thread_id);
        let ended = 0;
        const all = until("event", (event) => event.type === "agent_completed" && ++ended === 5);
        for (let i = 0; i < 5; i += 1) client.start(`question ${i}`, { thread_id });
        await all;
        client.close();
        return seen;
        """,
    )
    assert len(seen) >= 5 * 5
    assert sorted(set(seen)) == list(range(1, len(set(seen)) + 1))
    assert seen == sorted(seen)


async def test_after_close_nothing_is_tried_any_more(page: Page) -> None:
    outcome = await ran(
        page,
        """
        const waiting = client.start("hello").catch((error) => error.code);
        client.close();
        return [await waiting, client.state.name];
        """,
    )
    assert outcome == ["connection_lost", "closed"]
