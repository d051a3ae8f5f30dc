"""What an agent is handed: its run."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from agentws.core.context import UserExecutionContext
from agentws.core.run import Message

__all__ = ["Run"]


class Run(Protocol):
    """One run, as its agent sees it. All that it writes becomes numbered events of the user's thread, in order."""

    @property
    def text(self) -> str:
        """What the user asked."""

    @property
    def context(self) -> UserExecutionContext:
        """Whose run it is; cannot be changed."""

    @property
    def cancelled(self) -> bool:
        """Whether the run is stopping; for tools in threads, which cannot be cancelled. See `agentws.stopping` too."""

    async def think(self, reasoning: str) -> None:
        """Writes one step of reasoning: `agent_thinking`."""

    async def write(self, text: str) -> None:
        """Writes a piece of the answer: `agent_message`. Pieces that follow one another quickly are gathered."""

    async def call_tool(
        self, name: str, tool: Callable[..., Any] | Callable[..., Awaitable[Any]], /, **parameters: Any
    ) -> Any:
        """Calls `tool(**parameters)` between `tool_executing`, which is committed first, and `tool_completed`.

        A synchronous tool runs in a thread, which cannot be cancelled: when the run is stopped the tool is told
        (`cancelled`), waited for while the run has time to end, and then left.

        Args:
            name: the tool's name on the wire.
            tool: a function; its result has to be something that JSON can hold.
            parameters: its arguments, which are shown to the user.

        Returns:
            What the tool returned.

        Raises:
            Exception: what the tool raised, after it was told as `success: false`; the agent may go on.
        """

    async def emit(self, name: str, value: Any) -> None:
        """Writes an event of the agent's own: `agent_event`.

        Args:
            name: namespaced: "app.thing".
            value: anything JSON can hold, at most 64 KiB encoded.

        Raises:
            ValueError: if the name is not namespaced, or the value is too large or cannot be encoded.
        """

    async def progress(self, progress: float | None = None, message: str | None = None) -> None:
        """Tells how far the tool is that is running in this task: `tool_progress`.

        Args:
            progress: from 0 to 1.
            message: for the user.

        Raises:
            RuntimeError: outside a tool.
            ValueError: if `progress` is outside 0 to 1.
        """

    async def history(self, limit: int = 50, before: Message | None = None) -> Sequence[Message]:
        """Earlier messages of the thread, oldest first.

        Args:
            limit: how many at most, 1 to 1000; the newest are taken.
            before: a message of an earlier call, to page back from.
        """
