"""What a person sees of the page, and does with it."""

from dataclasses import dataclass, field
from urllib.parse import urlencode

from playwright.async_api import BrowserContext, ConsoleMessage, Locator, Page, expect

__all__ = ["Screen", "answer_to", "words"]


def words(count: int) -> str:
    """A text without arithmetic, of words that tell their place."""
    return " ".join(f"word{number}" for number in range(count))


def answer_to(text: str) -> str:
    """What the demo agent answers where there is nothing to calculate."""
    return f"You wrote {len(text.split())} words in {len(text)} characters: {text}"


@dataclass
class Screen:
    """One tab.

    Args:
        complaints: what the browser wrote to its console as an error or warning, and what scripts threw.
    """

    page: Page
    base: str
    complaints: list[str] = field(default_factory=list)

    @staticmethod
    async def made(context: BrowserContext, base: str) -> "Screen":
        screen = Screen(await context.new_page(), base)

        def heard(message: ConsoleMessage) -> None:
            if message.type in ("error", "warning"):
                screen.complaints.append(message.text)

        screen.page.on("console", heard)
        screen.page.on("pageerror", lambda error: screen.complaints.append(str(error)))
        return screen

    async def visit(self, user: str = "", *, thread: str = "") -> "Screen":
        """Opens the page as a user, and waits until it is connected."""
        query = "?" + urlencode({"user": user}) if user else ""
        await self.page.goto(f"{self.base}/{query}" + (f"#{thread}" if thread else ""))
        await self.connected()
        return self

    async def connected(self) -> None:
        await self.reaches("Connected")

    async def reaches(self, state: str) -> None:
        await expect(self.page.locator("#state")).to_contain_text(state, timeout=20_000)

    @property
    def thread(self) -> str:
        """The id of the thread that is shown; its address ends with it."""
        return str(self.page.url).partition("#")[2]

    @property
    def runs(self) -> Locator:
        return self.page.locator(".run")

    def run(self, number: int = -1) -> Locator:
        return self.runs.nth(number)

    async def ask(self, text: str) -> Locator:
        """Writes a message and sends it by the keyboard; returns its run."""
        count = await self.runs.count()
        await self.page.locator("#text").fill(text)
        await self.page.locator("#text").press("Enter")
        await expect(self.runs).to_have_count(count + 1)
        return self.runs.nth(count)

    async def is_(self, run: Locator, status: str) -> None:
        await expect(run).to_have_attribute("data-status", status, timeout=30_000)

    async def answers(self, run: Locator, text: str) -> None:
        """Waits for a run's end, and compares the whole of its answer."""
        await self.is_(run, "completed")
        await expect(run.locator(".answer")).to_have_text(text, use_inner_text=False)

    async def begins_to_answer(self, run: Locator, word: str) -> None:
        await expect(run.locator(".answer")).to_contain_text(word, timeout=20_000)

    def steps(self, run: Locator, kind: str) -> Locator:
        return run.locator(f'.step[data-kind="{kind}"]')
