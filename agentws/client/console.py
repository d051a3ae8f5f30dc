"""The terminal of `agentws chat`: a prompt at the bottom that stays while lines are printed above it.

What is complete scrolls away like any output; what may still grow stands right above the prompt.
"""

import os
from collections.abc import Callable, Sequence
from contextlib import suppress

from prompt_toolkit import PromptSession
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.completion import WordCompleter
from prompt_toolkit.formatted_text import FormattedText
from prompt_toolkit.history import InMemoryHistory
from prompt_toolkit.input import Input
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.output import ColorDepth, Output
from prompt_toolkit.renderer import print_formatted_text
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

    async def run(self, enter: Callable[[str], None]) -> None:
        """Hands every line that the user enters to `enter`, until Ctrl-D or `leave`.

        One prompt serves for all of them, so that a key is read by it at every moment.
        """

        def accept(buffer: Buffer) -> bool:
            enter(buffer.text)
            return False

        self._session.default_buffer.accept_handler = accept
        if not self._left:
            with suppress(EOFError):
                await self._session.prompt_async(handle_sigint=False)

    def show(self, lines: Sequence[Line]) -> None:
        """Prints lines above the prompt.

        The terminal stays in the mode that reads each key: one that is pressed now is neither echoed nor lost.
        """
        if not lines:
            return
        app = self._session.app
        if app.is_running:
            app.renderer.erase()
        whole = FormattedText([part for line in lines for part in (*line, ("", "\n"))])
        print_formatted_text(app.output, whole, _STYLE, color_depth=app.color_depth)
        if app.is_running:
            app.renderer.request_absolute_cursor_position()
            app.invalidate()

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
        """Ends `run`."""
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
