"""A line that breaks: dropped, offline, a server that is killed or restarted, an answer that was lost."""

import json
import signal

from playwright.async_api import WebSocketRoute, expect

from ..processes import ServerProcess
from .conftest import OpenTab
from .screen import Screen, answer_to, words


async def test_a_dropped_connection_comes_back_and_nothing_is_lost_or_doubled(open_tab: OpenTab, user: str) -> None:
    screen = await (await open_tab()).visit(user)
    text = words(120)
    run = await screen.ask(text)
    await screen.begins_to_answer(run, "word5")
    for word in ("word20", "word50"):
        await screen.page.get_by_role("button", name="Drop my connection").click()
        await screen.reaches("Reconnecting")
        await screen.begins_to_answer(run, word)
    await screen.connected()
    await expect(screen.page.locator(".note").first).to_contain_text("Resumed")
    await screen.answers(run, answer_to(text))
    await expect(screen.runs).to_have_count(1)
    await expect(screen.steps(run, "tool")).to_have_count(1)


async def test_a_tab_that_was_offline_shows_all_that_happened_meanwhile(open_tab: OpenTab, user: str) -> None:
    screen = await (await open_tab(complains=True)).visit(user)
    text = words(400)
    run = await screen.ask(text)
    await screen.begins_to_answer(run, "word5")
    await screen.page.context.set_offline(True)
    await screen.reaches("Offline")
    await expect(screen.page.locator("#drop")).to_be_disabled()
    await screen.page.context.set_offline(False)
    await screen.connected()
    await screen.answers(run, answer_to(text))


async def test_a_message_written_offline_is_sent_once_when_the_line_is_back(open_tab: OpenTab, user: str) -> None:
    screen = await (await open_tab(complains=True)).visit(user)
    await screen.answers(await screen.ask("what is 1 + 1?"), "1 + 1 = 2")
    await screen.page.context.set_offline(True)
    await screen.reaches("Offline")
    first = await screen.ask("what is 2 + 2?")
    second = await screen.ask("what is 3 + 3?")
    await screen.is_(first, "sending")
    await expect(second.locator(".end")).to_contain_text("Sending")
    await screen.page.context.set_offline(False)
    await screen.answers(first, "2 + 2 = 4")
    await screen.answers(second, "3 + 3 = 6")
    await screen.page.reload()
    await screen.connected()
    await expect(screen.runs).to_have_count(3)
    await expect(screen.page.locator(".question")).to_have_text(["what is 1 + 1?", "what is 2 + 2?", "what is 3 + 3?"])


async def test_a_server_that_was_killed_ends_the_run_and_answers_what_was_asked_meanwhile(
    open_tab: OpenTab, slow: ServerProcess, user: str
) -> None:
    screen = await (await open_tab(complains=True)).visit(user)
    text = words(400)
    run = await screen.ask(text)
    await screen.begins_to_answer(run, "word10")
    slow.kill()
    try:
        await screen.reaches("Reconnecting")
        waiting = await screen.ask("what is 20 + 22?")
    finally:
        slow.start()
    await screen.connected()
    await screen.is_(run, "failed")
    await screen.answers(waiting, "20 + 22 = 42")
    said = await run.locator(".answer").inner_text()
    assert "word10" in said
    assert answer_to(text).startswith(said)
    await expect(run.locator(".outcome")).not_to_be_empty()


async def test_a_server_that_restarts_is_announced_and_found_again(
    open_tab: OpenTab, slow: ServerProcess, user: str
) -> None:
    screen = await (await open_tab(complains=True)).visit(user)
    run = await screen.ask(words(400))
    await screen.begins_to_answer(run, "word5")
    slow.signal(signal.SIGTERM)
    try:
        await screen.reaches("Server restarts")
        await screen.reaches("Reconnecting")
    finally:
        slow.wait()
        slow.start()
    await screen.connected()
    await screen.answers(await screen.ask("what is 4 + 5?"), "4 + 5 = 9")


async def lose_first(screen: Screen, wanted: str, *, and_the_line: bool) -> list[str]:
    """Loses the first frame of a type on its way to the page, perhaps with the line; returns the types sent."""
    sent: list[str] = []
    lost: list[WebSocketRoute] = []

    async def handle(route: WebSocketRoute) -> None:
        server = route.connect_to_server()

        def upwards(message: str | bytes) -> None:
            sent.append(json.loads(message)["type"])
            server.send(message)

        async def downwards(message: str | bytes) -> None:
            if json.loads(message)["type"] == wanted and not lost:
                lost.append(route)
                if and_the_line:
                    await server.close()
                    await route.close(code=3000)
            elif not (lost and and_the_line and route is lost[0]):
                route.send(message)

        route.on_message(upwards)
        server.on_message(downwards)

    await screen.page.route_web_socket("**/ws*", handle)
    return sent


async def test_a_start_whose_answer_was_lost_is_repeated_and_runs_once(
    open_tab: OpenTab, quick: ServerProcess, user: str
) -> None:
    screen = await open_tab(quick)
    sent = await lose_first(screen, "request_accepted", and_the_line=True)
    await screen.visit(user)
    await screen.answers(await screen.ask("what is 5 + 5?"), "5 + 5 = 10")
    assert sent.count("user_message") == 2
    await screen.page.reload()
    await screen.connected()
    await screen.answers(screen.run(), "5 + 5 = 10")
    await expect(screen.runs).to_have_count(1)


async def test_a_hole_in_the_events_is_noticed_and_filled(open_tab: OpenTab, user: str) -> None:
    screen = await open_tab()
    sent = await lose_first(screen, "tool_completed", and_the_line=False)
    await screen.visit(user)
    text = words(20)
    run = await screen.ask(text)
    await screen.answers(run, answer_to(text))
    await expect(screen.steps(run, "tool")).to_have_attribute("data-status", "done")
    assert sent.count("subscribe") == 2
