"""Threads on the page: listed by title, opened again with their runs, renamed, deleted, and found by going back."""

from playwright.async_api import expect

from ..processes import ServerProcess
from .conftest import OpenTab
from .screen import Screen, answer_to


async def asked(screen: Screen, *texts: str) -> list[str]:
    """Asks each text in a thread of its own; returns the threads' ids."""
    threads = []
    for text in texts:
        await screen.page.get_by_role("button", name="New thread").click()
        await screen.answers(await screen.ask(text), answer_to(text))
        threads.append(screen.thread)
    return threads


async def test_threads_are_listed_latest_first_and_opened_with_their_steps(
    open_tab: OpenTab, quick: ServerProcess, user: str
) -> None:
    screen = await (await open_tab(quick)).visit(user)
    one, two = await asked(screen, "first question", "second question")
    links = screen.page.locator("#threads a bdi")
    await expect(links).to_have_text(["second question", "first question"])
    await screen.page.get_by_role("link", name="first question").click()
    await screen.answers(screen.run(), answer_to("first question"))
    await expect(screen.steps(screen.run(), "tool")).to_have_count(1)
    assert screen.thread == one
    await screen.page.go_back()
    await screen.answers(screen.run(), answer_to("second question"))
    await expect(screen.runs).to_have_count(1)
    assert screen.thread == two
    await screen.ask("once more in the second")
    await screen.page.get_by_role("link", name="first question").click()
    await screen.answers(screen.run(), answer_to("first question"))
    await screen.ask("once more in the first")
    await expect(links).to_have_text(["first question", "second question"])


async def test_a_thread_is_renamed_for_every_tab(open_tab: OpenTab, quick: ServerProcess, user: str) -> None:
    screen = await (await open_tab(quick)).visit(user)
    await asked(screen, "what is this called?")
    title = 'My <b>"thread"</b> \u202e of mine'
    await screen.page.get_by_role("button", name="Rename the thread").click()
    await expect(screen.page.get_by_label("Title of the thread")).to_be_focused()
    await screen.page.get_by_label("Title of the thread").fill(title)
    await screen.page.keyboard.press("Enter")
    await expect(screen.page.locator("h1")).to_have_text(title)
    other = await (await open_tab(quick)).visit(user)
    await expect(other.page.locator("#threads a bdi")).to_have_text([title])
    await screen.page.get_by_role("button", name="Rename the thread").click()
    await screen.page.get_by_label("Title of the thread").fill("not this")
    await screen.page.keyboard.press("Escape")
    await expect(screen.page.locator("h1")).to_have_text(title)


async def test_a_thread_is_deleted_after_a_question_and_everywhere(
    open_tab: OpenTab, quick: ServerProcess, user: str
) -> None:
    screen = await (await open_tab(quick)).visit(user)
    keep, drop = await asked(screen, "to be kept", "to be deleted")
    other = await (await open_tab(quick)).visit(user, thread=drop)
    await other.answers(other.run(), answer_to("to be deleted"))
    await screen.page.get_by_role("link", name="to be deleted").hover()
    await screen.page.get_by_role("button", name="Delete to be deleted").click()
    await expect(screen.page.get_by_role("dialog")).to_contain_text("to be deleted")
    await screen.page.get_by_role("button", name="Keep it").click()
    await expect(screen.runs).to_have_count(1)
    await screen.page.get_by_role("button", name="Delete to be deleted").click()
    await screen.page.get_by_role("button", name="Delete", exact=True).click()
    await expect(screen.page.locator("#threads a bdi")).to_have_text(["to be kept"])
    await expect(screen.runs).to_have_count(0)
    await expect(other.page.locator(".note")).to_contain_text("was deleted")
    await expect(other.runs).to_have_count(0)
    await screen.visit(user, thread=keep)
    await screen.answers(screen.run(), answer_to("to be kept"))


async def test_earlier_messages_come_when_they_are_asked_for(
    open_tab: OpenTab, quick: ServerProcess, user: str
) -> None:
    screen = await (await open_tab(quick)).visit(user)
    await screen.page.evaluate(
        """async (user) => {
            const { AgentClient } = await import("./agentws.js");
            const client = new AgentClient({ url: `${location.origin.replace("http", "ws")}/ws?user=${user}` });
            client.connect();
            await client.createThread({ thread_id: "thr-long" });
            for (let i = 0; i < 60; i += 1) await client.start(`question ${i}`, { thread_id: "thr-long" });
            client.close();
        }""",
        user,
    )
    other = await (await open_tab(quick)).visit(user, thread="thr-long")
    await other.answers(other.run(), answer_to("question 59"))
    shown = [text for text in await other.page.locator(".question").all_text_contents() if text]
    assert shown == [f"question {number}" for number in range(60 - len(shown), 60)]
    assert len(shown) < 60
    for run in await other.runs.all():
        await other.is_(run, "completed")
    await other.page.reload()
    await other.connected()
    await expect(other.runs).to_have_count(25)
    while await other.page.locator("#earlier").is_visible():
        count = await other.runs.count()
        await other.page.locator("#earlier").click()
        await expect(other.runs).not_to_have_count(count)
    await expect(other.page.locator(".question")).to_have_text([f"question {number}" for number in range(60)])
    await other.answers(other.run(0), answer_to("question 0"))


async def test_many_threads_are_listed_in_pages(open_tab: OpenTab, quick: ServerProcess, user: str) -> None:
    screen = await (await open_tab(quick)).visit(user)
    await screen.page.evaluate(
        """async (user) => {
            const { AgentClient } = await import("./agentws.js");
            const client = new AgentClient({ url: `${location.origin.replace("http", "ws")}/ws?user=${user}` });
            client.connect();
            for (let i = 0; i < 70; i += 1) await client.createThread({ title: `thread ${i}` });
            client.close();
        }""",
        user,
    )
    await screen.page.reload()
    await screen.connected()
    links = screen.page.locator("#threads li")
    await expect(links).to_have_count(50)
    await screen.page.get_by_role("button", name="Older threads").click()
    await expect(links).to_have_count(70)
    await expect(screen.page.get_by_role("button", name="Older threads")).to_be_hidden()
