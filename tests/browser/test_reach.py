"""The page reaches everybody: by keyboard, by screen reader, on a phone, below a prefix, and with few bytes."""

import asyncio
import os
import sys
from typing import Any

import pytest
from playwright.async_api import Page, expect

from agentws.store.embedded import EmbeddedPostgres

from ..processes import ROOT, ServerProcess
from .conftest import HERE, OpenTab, environment
from .screen import Screen, words

AXE = HERE / "node_modules" / "axe-core" / "axe.min.js"
WIDE = {"viewport": {"width": 1280, "height": 800}}
PHONE = {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 2, "is_mobile": True, "has_touch": True}
LOOKS: dict[str, dict[str, Any]] = {
    "light": {**WIDE, "color_scheme": "light"},
    "dark": {**WIDE, "color_scheme": "dark"},
    "phone": {**PHONE, "color_scheme": "light"},
    "phone, dark": {**PHONE, "color_scheme": "dark"},
}
MOST_BYTES = 50_000


async def findings(page: Page) -> list[str]:
    """What axe-core finds that keeps somebody out. Its own script is put in past the page's policy."""
    await page.evaluate(AXE.read_text("utf-8"))
    found: dict[str, Any] = await page.evaluate("axe.run(document, { resultTypes: ['violations'] })")
    return [
        f"{each['id']}: {[node['target'] for node in each['nodes']]}"
        for each in found["violations"]
        if each["impact"] in ("serious", "critical")
    ]


@pytest.mark.parametrize("look", LOOKS)
async def test_axe_finds_nothing_serious(open_tab: OpenTab, quick: ServerProcess, user: str, look: str) -> None:
    screen = await (await open_tab(quick, **LOOKS[look])).visit(user)
    page = screen.page
    assert await findings(page) == []
    run = await screen.ask("what is 1 / 0?")
    await screen.is_(run, "completed")
    await screen.is_(
        await screen.ask(f"{words(30)}\n\n- a list with `code`\n\n```\nmore\n```\n\n{words(300)}"), "completed"
    )
    await run.locator(".trace > summary").click()
    assert await findings(page) == []
    if "phone" in look:
        await page.get_by_role("button", name="Threads").click()
        assert await findings(page) == []
        await page.keyboard.press("Escape")
    await page.locator("#frames-toggle").click()
    await page.locator("#frame-list summary").last.click()
    assert await findings(page) == []


async def test_axe_finds_nothing_serious_while_offline_and_signed_out(
    open_tab: OpenTab, slow: ServerProcess, guarded: ServerProcess, user: str
) -> None:
    screen = await (await open_tab(complains=True)).visit(user)
    await screen.begins_to_answer(await screen.ask(words(300)), "word5")
    assert await findings(screen.page) == []
    await screen.page.context.set_offline(True)
    await screen.reaches("Offline")
    assert await findings(screen.page) == []
    out = await open_tab(guarded, complains=True)
    await out.page.goto(guarded.http_url)
    await out.reaches("Signed out")
    assert await findings(out.page) == []


async def tab_to(screen: Screen, selector: str) -> None:
    """Presses Tab until an element has the focus, and sees that the focus shows."""
    for _ in range(40):
        await screen.page.keyboard.press("Tab")
        if await screen.page.evaluate("selector => document.activeElement.matches(selector)", selector):
            shown = "document.activeElement.closest('.composer:has(textarea:focus)') ?? document.activeElement"
            style = await screen.page.evaluate(f"getComputedStyle({shown}).outlineStyle")
            assert style == "solid"
            return
    raise AssertionError(f"no Tab reaches {selector}")


async def test_all_is_done_by_keyboard(open_tab: OpenTab, quick: ServerProcess, user: str) -> None:
    screen = await (await open_tab(quick)).visit(user)
    keys = screen.page.keyboard
    await expect(screen.page.locator("#text")).to_be_focused()
    await keys.type("what is")
    await keys.press("Shift+Enter")
    await keys.type("6 * 7?")
    await keys.press("Enter")
    await screen.answers(screen.run(), "6 * 7 = 42")
    await expect(screen.page.locator("#text")).to_be_focused()
    await tab_to(screen, "#new")
    await tab_to(screen, "#threads a")
    await tab_to(screen, "#frames-toggle")
    await keys.press("Enter")
    await expect(screen.page.locator("#frames-close")).to_be_focused()
    await keys.press("Escape")
    await expect(screen.page.locator("#frames")).to_be_hidden()
    await expect(screen.page.locator("#frames-toggle")).to_be_focused()
    await tab_to(screen, '.step[data-kind="tool"] summary')
    await keys.press("Enter")
    await expect(screen.run().locator("pre").last).to_have_text("42")
    await tab_to(screen, "#text")


async def test_a_link_skips_to_the_message_field(open_tab: OpenTab, quick: ServerProcess, user: str) -> None:
    screen = await (await open_tab(quick)).visit(user)
    await tab_to(screen, "#skip")
    await expect(screen.page.get_by_role("link", name="Skip to the message field")).to_be_in_viewport()
    await screen.page.keyboard.press("Enter")
    await expect(screen.page.locator("#text")).to_be_focused()


async def test_a_screen_reader_is_told_the_answer_once_and_not_word_by_word(open_tab: OpenTab, user: str) -> None:
    screen = await (await open_tab()).visit(user)
    await screen.page.evaluate(
        """() => {
            window.said = [];
            const say = document.getElementById("say");
            const note = () => said.push(say.textContent);
            new MutationObserver(note).observe(say, { childList: true, characterData: true, subtree: true });
        }"""
    )
    text = words(40)
    await screen.is_(await screen.ask(text), "completed")
    said: list[str] = await screen.page.evaluate("window.said")
    assert sum("word39" in each for each in said) == 1
    assert any("text_statistics" in each for each in said)
    assert len(said) < 6
    live = "el => el.closest('[aria-live], [role=status], [role=log], [role=alert]')?.id ?? null"
    assert await screen.run().locator(".answer").evaluate(live) is None


async def test_the_threads_are_a_drawer_on_a_phone(open_tab: OpenTab, quick: ServerProcess, user: str) -> None:
    screen = await (await open_tab(quick, **PHONE)).visit(user)
    page = screen.page
    await screen.is_(await screen.ask("what is 1 + 1?"), "completed")
    await expect(page.locator("#side")).to_be_hidden()
    menu = page.get_by_role("button", name="Threads")
    await menu.click()
    await expect(page.get_by_role("link", name="what is 1 + 1?")).to_be_visible()
    await expect(page.locator("#main")).to_have_attribute("inert", "")
    await page.keyboard.press("Escape")
    await expect(page.locator("#side")).to_be_hidden()
    await expect(menu).to_be_focused()
    await menu.click()
    await page.get_by_role("button", name="New thread").click()
    await expect(page.locator("#side")).to_be_hidden()
    await expect(screen.runs).to_have_count(0)
    assert await page.evaluate("document.documentElement.scrollWidth") == 390


async def test_a_theme_that_was_chosen_stays(open_tab: OpenTab, quick: ServerProcess, user: str) -> None:
    screen = await (await open_tab(quick, color_scheme="light")).visit(user)
    paper = "getComputedStyle(document.body).backgroundColor"
    light = await screen.page.evaluate(paper)
    for name in ("light", "dark"):
        await screen.page.locator("#theme").click()
        await expect(screen.page.locator("#theme")).to_contain_text(name)
    dark = await screen.page.evaluate(paper)
    assert dark != light
    await screen.page.reload()
    await screen.connected()
    assert await screen.page.evaluate(paper) == dark


async def test_nothing_moves_for_whom_motion_is_too_much(open_tab: OpenTab, user: str) -> None:
    screen = await (await open_tab(reduced_motion="reduce")).visit(user)
    await screen.begins_to_answer(await screen.ask(words(100)), "word3")
    assert await screen.page.evaluate("document.getAnimations().length") == 0


async def test_the_page_is_small(open_tab: OpenTab, quick: ServerProcess, user: str) -> None:
    screen = await (await open_tab(quick)).visit(user)
    sizes: dict[str, list[int]] = await screen.page.evaluate(
        """() => Object.fromEntries(
            [...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")]
                .map((each) => [new URL(each.name).pathname, [each.transferSize, each.decodedBodySize]]))"""
    )
    assert {"/", "/page.css", "/theme.js", "/page.js", "/agentws.js"} <= sizes.keys()
    # All that is transferred; and, not compressed, what the first paint waits for, which are not the modules.
    assert 0 < sum(transferred for transferred, _ in sizes.values()) < MOST_BYTES
    assert 0 < sum(sizes[path][1] for path in ("/", "/page.css", "/theme.js")) < MOST_BYTES


async def test_the_page_works_below_a_prefix(
    open_tab: OpenTab, cluster: EmbeddedPostgres, template: str, user: str
) -> None:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("AGENTWS_")}
    host = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "uvicorn", "tests.browser.mounted:app", "--port", "0"),
        env={**inherited, **await environment(cluster, template)},
        cwd=ROOT,
        stderr=asyncio.subprocess.PIPE,
    )
    assert host.stderr is not None
    try:
        while b"running on" not in (line := await host.stderr.readline()):
            assert line, "the host did not start"
        screen = await open_tab()
        screen.base = line.decode().partition("running on ")[2].split()[0] + "/inside"
        await screen.visit(user)
        await screen.answers(await screen.ask("what is 6 * 7?"), "6 * 7 = 42")
        await screen.page.close()
    finally:
        host.terminate()
        await host.communicate()
