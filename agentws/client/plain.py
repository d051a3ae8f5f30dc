"""`agentws chat` without a terminal: messages from an argument or from lines of standard input.

Standard output gets the answers and nothing else, free of control codes; notes go to standard error.
"""

import asyncio
import codecs
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator

import msgspec

from agentws.client.connection import Client
from agentws.client.errors import ClientError, Refused
from agentws.client.fold import RunFold
from agentws.client.link import Connected, Lost, Update
from agentws.client.reader import Event
from agentws.client.session import Gone, Reset, Trouble
from agentws.client.text import one_line, safe
from agentws.wire.answers import CaughtUp

__all__ = ["INTERRUPTED", "lines_of", "talk"]

INTERRUPTED = 130
"""The exit status after Ctrl-C."""


async def talk(
    client: Client, messages: AsyncIterator[str], *, thread_id: str | None, agent: str | None, verbose: bool, live: bool
) -> int:
    """Sends each message when the one before is answered; returns the exit status: 1 where one failed.

    Args:
        thread_id: the thread to go on with; None: a new one.
        verbose: tells thinking and tools on standard error.
        live: prints an answer as it comes; else when it is whole, so that what is written is exactly the answer.
    """
    conversation = _Conversation(client, thread_id, agent, verbose=verbose, live=live)
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task is not None
    loop.add_signal_handler(signal.SIGINT, conversation.interrupt, task)
    try:
        async for message in messages:
            if message.strip():
                await conversation.say(message)
            if conversation.interrupted:
                break
    except asyncio.CancelledError:
        if not conversation.interrupted:
            raise
        task.uncancel()
    finally:
        loop.remove_signal_handler(signal.SIGINT)
        conversation.close()
    if conversation.interrupted:
        return INTERRUPTED
    return 1 if conversation.failed else 0


class _Conversation:
    def __init__(self, client: Client, thread_id: str | None, agent: str | None, *, verbose: bool, live: bool) -> None:
        self.failed = False
        self.interrupted = False
        self._client = client
        self._thread_id = thread_id
        self._agent = agent
        self._verbose = verbose
        self._live = live
        self._run_id: str | None = None
        self._stopping: asyncio.Task[None] | None = None
        # The thread is told anew, and this run was not among what was told yet.
        self._missing = False

    def close(self) -> None:
        if self._stopping is not None:
            self._stopping.cancel()

    def interrupt(self, task: "asyncio.Task[object]") -> None:
        """Ctrl-C: stops the run; a second one, or one without a run, leaves."""
        if self._run_id is None or self.interrupted:
            task.cancel()
        else:
            self._stopping = asyncio.get_running_loop().create_task(self._stop(self._run_id))
        self.interrupted = True

    async def _stop(self, run_id: str) -> None:
        try:
            await self._client.stop(run_id=run_id)
        except ClientError as error:
            _note(str(error))

    async def say(self, message: str) -> None:
        try:
            accepted = await self._client.start(message, thread_id=self._thread_id, agent=self._agent)
        except Refused as refused:
            self.failed = True
            _note(str(refused))
            return
        self._thread_id, self._run_id = accepted.thread_id, accepted.run_id
        fold = RunFold(accepted.run_id)
        while fold.end is None:
            lost = self._take(await self._client.__anext__(), fold)
            if lost is not None:
                self.failed, self._run_id = True, None
                _note(lost)
                return
        self._run_id = None
        self._finish(fold)

    def _take(self, update: Update, fold: RunFold) -> str | None:
        """Takes what happened; returns why there will be no answer, None while there may be one."""
        match update:
            case Event() if update.run_id == fold.run_id:
                self._missing = False
                fold.feed(update)
                self._show(update)
            case Gone(reason=reason):
                return f"the thread is gone ({reason})"
            case Reset():
                self._missing = True
                fold.text = ""
                _note("the thread is told anew")
            case CaughtUp() if self._missing:
                return "the thread's past was changed; the message is not part of it any more"
            case Trouble(error=error):
                _note(error.message)
            case Lost(why=why, retry_in_s=retry_in_s):
                _note(f"{why}; trying again in {retry_in_s:.1f} s")
            case Connected():
                _note("connected again")
        return None

    def _show(self, event: Event) -> None:
        payload = event.payload
        match event.type:
            case "agent_message" if self._live:
                print(safe(payload["text"]), end="", flush=True)
            case "agent_started" if event.attempt > 1:
                print("\n" if self._live else "", end="", flush=True)
                _note(f"it is started again (attempt {event.attempt}); what was written before does not count")
            case "agent_queued":
                _note(f"queued, position {payload['position']}")
            case "agent_thinking" if self._verbose:
                print(safe(payload["reasoning"]), file=sys.stderr, flush=True)
            case "tool_executing" if self._verbose:
                _note(f"{payload['tool_name']} {msgspec.json.encode(payload['parameters']).decode()}")
            case "tool_completed" if self._verbose:
                _note(f"{payload['tool_name']} {payload['outcome']} in {payload['duration_ms']} ms")

    def _finish(self, fold: RunFold) -> None:
        assert fold.end is not None
        response = safe(fold.response)
        if not self._live:
            rest = response
        else:
            shown = safe(fold.text)
            rest = response.removeprefix(shown) if response.startswith(shown) else f"\n{response}"
        # An answer ends its line, so that the next one begins one.
        print(rest, end="" if response.endswith("\n") or not response else "\n", flush=True)
        payload = fold.end.payload
        if fold.end.type == "agent_error":
            self.failed = True
            _note(f"{payload['code']}: {payload['message']}")
        elif fold.end.type == "agent_stopped":
            _note(f"stopped ({payload['reason']})")


def _note(text: str) -> None:
    print(f"agentws: {one_line(text)}", file=sys.stderr, flush=True)


async def lines_of(descriptor: int) -> AsyncIterator[str]:
    """The lines that come from a file descriptor, as they come.

    A thread of its own reads, because a plain file cannot be waited for; it holds no lock when the process ends.
    """
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[bytes] = asyncio.Queue()
    more = threading.Semaphore(1)

    def read() -> None:
        while True:
            more.acquire()
            piece = os.read(descriptor, 65536)
            try:
                loop.call_soon_threadsafe(queue.put_nowait, piece)
            except RuntimeError:
                return  # The loop is closed: nobody waits for lines any more.
            if not piece:
                return

    threading.Thread(target=read, daemon=True).start()
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    rest = ""
    while piece := await queue.get():
        *lines, rest = (rest + decoder.decode(piece)).split("\n")
        for line in lines:
            yield line.removesuffix("\r")
        more.release()
    rest += decoder.decode(b"", final=True)
    if rest:
        yield rest
