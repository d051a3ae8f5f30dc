"""What users and agents write never becomes more than text, and a token never more than a header."""

from datetime import UTC, datetime, timedelta

import jwt
import pytest
from playwright.async_api import expect

from ..processes import ServerProcess
from .conftest import OpenTab
from .screen import answer_to

VERBATIM = [
    "<script>window.pwned = true</script><img src=x onerror='window.pwned = true'><svg/onload=window.pwned=true>",
    '"><iframe srcdoc="<script>parent.pwned = true</script>"></iframe></textarea><style>body{display:none}</style>',
    "[click](javascript:window.pwned=true) ![image](https://example.org/a.png) <a href=javascript:alert()>a</a>",
    "__proto__ constructor toString {{constructor.constructor('window.pwned = true')()}} ${window.pwned = true}",
    "\u202egnp.exe \u2066hidden\u2069 שלום עולם &lt;b&gt;not bold&lt;/b&gt; &amp; \ufeff\u200b end",
    "a line\n  another, indented\n\n<!-- a third --> ]]> <?php ?> \U0001f469\u200d\U0001f680",
]


@pytest.mark.parametrize("text", VERBATIM)
async def test_hostile_text_is_shown_as_it_was_written(
    open_tab: OpenTab, quick: ServerProcess, user: str, text: str
) -> None:
    screen = await (await open_tab(quick)).visit(user)
    run = await screen.ask(text)
    await screen.is_(run, "completed")
    assert await run.locator(".question").evaluate("el => el.textContent") == text
    shown = await run.locator(".answer").evaluate("el => [...el.children].map(each => each.textContent).join('\\n\\n')")
    assert shown == answer_to(text)
    tags = await run.locator(".answer").evaluate("el => [...el.querySelectorAll('*')].map(each => each.tagName)")
    assert set(tags) == {"P"}
    await screen.page.locator("#frames-toggle").click()
    await screen.page.locator("#frame-list summary").last.click()
    await screen.page.reload()
    await screen.connected()
    assert await screen.run().locator(".question").evaluate("el => el.textContent") == text
    assert await screen.page.evaluate("window.pwned") is None


async def test_markup_of_an_answer_makes_harmless_elements_only(
    open_tab: OpenTab, quick: ServerProcess, user: str
) -> None:
    text = "x\n\n- **bold <img src=x onerror=window.pwned=true>**\n- `<script>`\n\n"
    text += "```html\n<script>window.pwned=true\n```\n\n# title"
    screen = await (await open_tab(quick)).visit(user)
    run = await screen.ask(text)
    await screen.is_(run, "completed")
    tags = await run.locator(".answer").evaluate("el => [...el.querySelectorAll('*')].map(each => each.tagName)")
    assert set(tags) == {"P", "UL", "LI", "STRONG", "CODE", "PRE"}
    await expect(run.locator("strong")).to_have_text("bold <img src=x onerror=window.pwned=true>")
    await expect(run.locator("pre code")).to_have_text("<script>window.pwned=true")
    assert await screen.page.evaluate("window.pwned") is None


async def test_the_browser_itself_refuses_markup_and_scripts_that_are_not_the_pages(
    open_tab: OpenTab, quick: ServerProcess, user: str
) -> None:
    screen = await (await open_tab(quick, complains=True)).visit(user)
    refused = await screen.page.evaluate(
        """() => {
            const tries = [
                () => { document.body.innerHTML = "<p>" },
                () => { document.createElement("script").text = "window.pwned = true" },
                () => { setTimeout("window.pwned = true") },
            ];
            return tries.map((each) => { try { each(); return "ran"; } catch (error) { return error.name; } });
        }"""
    )
    assert refused == ["TypeError"] * 3
    load = """async (url) => { try { await fetch(url); return "sent"; } catch { return "refused"; } }"""
    assert await screen.page.evaluate(load, "http://127.0.0.1:9/elsewhere") == "refused"
    assert any("Content Security Policy" in each for each in screen.complaints)


def token(server: ServerProcess, user: str, **lives: float) -> str:
    claims = {"sub": user, "exp": datetime.now(UTC) + timedelta(**(lives or {"hours": 1}))}
    return jwt.encode(claims, server.jwt_secret, "HS256")


async def test_a_server_that_wants_a_token_is_signed_in_to(
    open_tab: OpenTab, guarded: ServerProcess, user: str
) -> None:
    screen = await open_tab(guarded, complains=True)
    await screen.page.goto(guarded.http_url)
    await screen.reaches("Signed out")
    await expect(screen.page.locator("#ask")).to_be_hidden()
    for wrong in ("not a token", token(guarded, user, hours=-1)):
        await screen.page.get_by_label("Token").fill(wrong)
        await screen.page.get_by_role("button", name="Sign in").click()
        await expect(screen.page.locator("#sign-in-why")).to_contain_text("token")
        await expect(screen.page.locator("#sign-in")).to_be_visible()
    await screen.page.get_by_label("Token").fill(token(guarded, user))
    await screen.page.get_by_role("button", name="Sign in").click()
    await screen.connected()
    await expect(screen.page.locator("#name")).to_have_text(user)
    await screen.answers(await screen.ask("what is 6 * 7?"), "6 * 7 = 42")
    # It is kept for this tab, and nowhere where it would outlive it or be sent along.
    assert await screen.page.evaluate("JSON.stringify([document.cookie, { ...localStorage }, location.href])") == (
        f'["",{{}},"{guarded.http_url}/#{screen.thread}"]'
    )
    await screen.page.reload()
    await screen.connected()
    await screen.answers(screen.run(), "6 * 7 = 42")
    await screen.page.get_by_role("button", name="Sign out").click()
    await screen.reaches("Signed out")
    await expect(screen.runs).to_have_count(0)
    assert await screen.page.evaluate("sessionStorage.length") == 0


async def test_a_token_that_expires_ends_the_session_on_the_page(
    open_tab: OpenTab, guarded: ServerProcess, user: str
) -> None:
    screen = await open_tab(guarded, complains=True)
    await screen.page.goto(guarded.http_url)
    await screen.page.get_by_label("Token").fill(token(guarded, user, seconds=5))
    await screen.page.get_by_role("button", name="Sign in").click()
    await screen.connected()
    await screen.answers(await screen.ask("what is 6 * 7?"), "6 * 7 = 42")
    await screen.reaches("Signed out")
    await expect(screen.page.locator("#sign-in-why")).to_contain_text("expired")
    await expect(screen.run()).to_be_hidden()
    await expect(screen.page.locator("#threads li")).to_have_count(0)
    # Whoever signs in again is where they were; another user is not.
    await screen.page.get_by_label("Token").fill(token(guarded, user))
    await screen.page.get_by_role("button", name="Sign in").click()
    await screen.answers(screen.run(), "6 * 7 = 42")
    await screen.page.get_by_role("button", name="Sign out").click()
    await screen.page.get_by_label("Token").fill(token(guarded, f"{user}-other"))
    await screen.page.get_by_role("button", name="Sign in").click()
    await screen.connected()
    await expect(screen.runs).to_have_count(0)
    await expect(screen.page.locator("#threads li")).to_have_count(0)
