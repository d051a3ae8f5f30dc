"""The terminal of `agentws chat`: a prompt at the bottom that stays while lines are printed above it.

What is complete scrolls away like any output; what may still grow stands right above the prompt.
"""

import os
from collections.abc import AsyncIterator, Callable, Sequence

from prompt_toolkit import PromptSession, print_formatted_text
from prompt_toolkit.application import run_in_terminal
from prompt_toolkit.completion import WordCompleter
from prompt_toolkit.formatted_text import FormattedText
from prompt_toolkit.history import InMemoryHistory
from prompt_toolkit.input import Input
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.output import ColorDepth, Output
from prompt_toolkit.styles import Style

from agentws.client.text import cut, one_line
from agentws.client.view import PROMPT, Line

__all__ = ["Console"]

MOST_LIVE_LINES = 6
REFRESH_S = 0.5

_STYLE = Style.from_dict(
    {
        "user": "bold",
        "prompt": "bold",
        "thinking": "ansibrightblack italic",
        "note": "ansibrightblack",
        "tool": "ansicyan",
        "warning": "ansiyellow",
        "error": "ansired",
        "bottom-toolbar": "noreverse ansibrightblack",
    }
)


class Console:
    """
    Args:
        commands: what is completed at the beginning of the line, on Tab.
        status: the line below the prompt.
        live: what stands above the prompt.
        interrupt: what Ctrl-C does; is told whether the line holds text, and says whether to clear it.
        source, sink: where keys come from and what is drawn goes; the process's terminal where None.
    """

    def __init__(
        self,
        *,
        commands: Sequence[str],
        status: Callable[[], str],
        live: Callable[[], list[Line]],
        interrupt: Callable[[bool], bool],
        source: Input | None = None,
        sink: Output | None = None,
    ) -> None:
        self._status = status
        self._live = live
        self._interrupt = interrupt
        self._left = False
        self._history = InMemoryHistory()
        self._session: PromptSession[str] = PromptSession(
            message=self._message,
            history=self._history,
            completer=WordCompleter(list(commands), sentence=True),
            complete_while_typing=False,
            bottom_toolbar=self._toolbar,
            key_bindings=self._keys(),
            erase_when_done=True,
            refresh_interval=REFRESH_S,
            style=_STYLE,
            color_depth=ColorDepth.DEPTH_1_BIT if os.environ.get("NO_COLOR") else None,
            input=source,
            output=sink,
        )

    @property
    def width(self) -> int:
        """Cells of a line; one is left free, because some terminals wrap when the last one is used."""
        return max(10, self._session.app.output.get_size().columns - 1)

    async def lines(self) -> AsyncIterator[str]:
        """The lines that the user enters, until Ctrl-D or `leave`."""
        while not self._left:
            try:
                line = await self._session.prompt_async(handle_sigint=False)
            except EOFError:
                return
            yield line

    async def show(self, lines: Sequence[Line]) -> None:
        """Prints lines above the prompt."""

        def write() -> None:
            for line in lines:
                print_formatted_text(
                    FormattedText(line),
                    style=_STYLE,
                    output=self._session.app.output,
                    color_depth=self._session.app.color_depth,
                )

        if lines:
            await run_in_terminal(write)

    def remember(self, texts: Sequence[str]) -> None:
        """Lets the user go back to earlier inputs with the up arrow."""
        for text in texts:
            self._history.append_string(text)

    def refresh(self) -> None:
        """Draws the prompt and what stands around it again."""
        self._session.app.invalidate()

    def interrupted(self) -> None:
        """Does what Ctrl-C does."""
        buffer = self._session.default_buffer
        if self._interrupt(bool(buffer.text)):
            buffer.reset()

    def leave(self) -> None:
        """Ends `lines`."""
        self._left = True
        if self._session.app.is_running and not self._session.app.is_done:
            self._session.app.exit(exception=EOFError)

    def _message(self) -> FormattedText:
        fragments: Line = []
        for line in self._live()[-MOST_LIVE_LINES:]:
            fragments += [*line, ("", "\n")]
        return FormattedText([*fragments, ("class:prompt", PROMPT)])

    def _toolbar(self) -> str:
        return cut(one_line(self._status()), self.width)

    def _keys(self) -> KeyBindings:
        keys = KeyBindings()

        @keys.add("c-c")
        def _(event: KeyPressEvent) -> None:
            self.interrupted()

        return keys
