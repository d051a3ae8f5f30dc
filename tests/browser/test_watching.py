"""A run on the screen: asked, watched, stopped, and the same after a reload and in a second tab."""

import re

from playwright.async_api import expect

from ..processes import ServerProcess
from .conftest import OpenTab
from .screen import answer_to, words


async def test_a_run_is_watched_from_its_thinking_to_its_answer(open_tab: OpenTab, user: str) -> None:
    screen = await (await open_tab()).visit(user)
    run = await screen.ask("what is 12 * (3 + 4)?")
    await screen.answers(run, "12 * (3 + 4) = 84")
    await expect(screen.steps(run, "thinking")).to_contain_text("12 * (3 + 4)")
    tool = screen.steps(run, "tool")
    await expect(tool.locator(".name")).to_have_text("calculator")
    await expect(tool.locator(".time")).to_have_text(re.compile(r"\d+ ms|< 1 ms"))
    await tool.locator("summary").click()
    await expect(tool.locator("pre").nth(0)).to_have_text('{\n  "expression": "12 * (3 + 4)"\n}')
    await expect(tool.locator("pre").nth(1)).to_have_text("84")
    kinds = [await step.get_attribute("data-kind") for step in await run.locator(".step").all()]
    assert kinds == ["thinking", "tool", "answer"]


async def test_the_bars_of_a_run_follow_one_another(open_tab: OpenTab, user: str) -> None:
    screen = await (await open_tab()).visit(user)
    text = words(20)
    run = await screen.ask(text)
    await screen.answers(run, answer_to(text))
    boxes = [await bar.bounding_box() for bar in await run.locator(".span").all()]
    lefts = [box["x"] for box in boxes if box]
    assert len(lefts) == 3
    assert lefts == sorted(lefts)
    track = await run.locator(".track").first.bounding_box()
    last = boxes[-1]
    assert track and last
    assert last["width"] > track["width"] / 2, "20 words take half a second, of which the answer is the most"


async def test_a_tool_that_fails_is_shown_as_failed(open_tab: OpenTab, quick: ServerProcess, user: str) -> None:
    screen = await (await open_tab(quick)).visit(user)
    run = await screen.ask("what is 1 / 0?")
    await screen.is_(run, "completed")
    await expect(screen.steps(run, "tool")).to_have_attribute("data-status", "failed")
    await expect(run.locator(".fault")).to_be_visible()


async def test_a_run_is_stopped_and_keeps_what_it_had_said(open_tab: OpenTab, user: str) -> None:
    screen = await (await open_tab()).visit(user)
    text = words(400)
    run = await screen.ask(text)
    await screen.begins_to_answer(run, "word10")
    await screen.page.get_by_role("button", name="Stop").click()
    await screen.is_(run, "stopped")
    await expect(run.locator(".end")).to_contain_text("Stopped by you")
    said = await run.locator(".answer").inner_text()
    assert 0 < len(said) < len(answer_to(text))
    assert answer_to(text).startswith(said)
    await expect(screen.page.locator("#stop")).to_be_hidden()


async def test_a_second_message_waits_for_the_first_and_can_be_taken_back(open_tab: OpenTab, user: str) -> None:
    screen = await (await open_tab()).visit(user)
    first = await screen.ask(words(60))
    await screen.begins_to_answer(first, "word3")
    second = await screen.ask("what is 2 + 2?")
    third = await screen.ask("what is 3 + 3?")
    await screen.is_(second, "queued")
    await expect(third.locator(".end")).to_contain_text("number 2 in line")
    await third.get_by_role("button", name="Cancel").click()
    await screen.is_(third, "stopped")
    await screen.answers(first, answer_to(words(60)))
    await screen.answers(second, "2 + 2 = 4")


async def test_a_reload_in_the_middle_goes_on_and_ends_with_the_whole_answer_once(open_tab: OpenTab, user: str) -> None:
    screen = await (await open_tab()).visit(user)
    text = words(120)
    await screen.begins_to_answer(await screen.ask(text), "word10")
    await screen.page.reload()
    await screen.connected()
    await screen.answers(screen.run(), answer_to(text))
    await expect(screen.runs).to_have_count(1)
    await expect(screen.run().locator(".question")).to_have_text(text)
    await expect(screen.steps(screen.run(), "tool")).to_have_count(1)


async def test_two_tabs_of_a_user_show_the_same_run(open_tab: OpenTab, user: str) -> None:
    first = await (await open_tab()).visit(user)
    text = words(100)
    run = await first.ask(text)
    await first.begins_to_answer(run, "word5")
    second = await (await open_tab()).visit(user, thread=first.thread)
    await second.is_(second.run(), "running")
    await second.page.get_by_role("button", name="Stop").click()
    await first.is_(run, "stopped")
    await second.is_(second.run(), "stopped")
    assert await run.locator(".answer").inner_text() == await second.run().locator(".answer").inner_text()
    again = await second.ask("what is 6 * 7?")
    await second.answers(again, "6 * 7 = 42")
    await first.answers(first.run(1), "6 * 7 = 42")


async def test_two_users_never_see_each_others_text(open_tab: OpenTab, quick: ServerProcess, user: str) -> None:
    ada = await (await open_tab(quick)).visit(f"{user}-ada")
    await ada.answers(await ada.ask("a secret of ada"), answer_to("a secret of ada"))
    bob = await (await open_tab(quick)).visit(f"{user}-bob", thread=ada.thread)
    await expect(bob.page.locator(".note.error")).to_contain_text("no such thread")
    await bob.answers(await bob.ask("a word of bob"), answer_to("a word of bob"))
    await expect(bob.runs).to_have_count(1)
    assert "secret" not in await bob.page.locator("body").inner_text()
    assert "bob" not in await ada.page.locator("#main").inner_text()


async def test_naming_another_user_leaves_nothing_of_the_first(
    open_tab: OpenTab, quick: ServerProcess, user: str
) -> None:
    screen = await (await open_tab(quick)).visit(f"{user}-ada")
    await screen.answers(await screen.ask("a secret of ada"), answer_to("a secret of ada"))
    await screen.page.get_by_label("You are").fill(f"{user}-bob")
    await screen.page.get_by_label("You are").press("Enter")
    await screen.connected()
    await expect(screen.runs).to_have_count(0)
    assert "secret" not in await screen.page.locator("body").inner_text()
    assert f"user={user}-bob" in screen.page.url
    await screen.answers(await screen.ask("a word of bob"), answer_to("a word of bob"))
    await screen.page.reload()
    await screen.connected()
    await expect(screen.page.get_by_label("You are")).to_have_value(f"{user}-bob")


async def test_a_long_answer_is_shown_whole_and_only_its_end_is_followed(
    open_tab: OpenTab, quick: ServerProcess, user: str
) -> None:
    screen = await (await open_tab(quick)).visit(user)
    text = words(3000)
    run = await screen.ask(text)
    await screen.answers(run, answer_to(text))
    end = "el => el.scrollHeight - el.scrollTop - el.clientHeight"
    talk = screen.page.locator("#talk")
    assert await talk.evaluate(end) < 48
    await talk.evaluate("el => { el.scrollTop = 0 }")
    await expect(screen.page.locator("#jump")).to_be_visible()
    # Another tab's question arrives below; who reads above is left alone.
    other = await (await open_tab(quick)).visit(user, thread=screen.thread)
    await other.answers(other.run(), answer_to(text))
    await other.answers(await other.ask("what is 1 + 1?"), "1 + 1 = 2")
    await screen.is_(screen.run(1), "completed")
    assert await talk.evaluate("el => el.scrollTop") == 0
    await screen.page.locator("#jump").click()
    await expect(screen.page.locator("#jump")).to_be_hidden()
    assert await talk.evaluate(end) < 48
