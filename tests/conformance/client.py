"""A small client that trusts nothing: it logs every frame in order, checks each against its row, and waits with a bound
that only a hang reaches."""

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias
from urllib.parse import quote
from uuid import uuid4

from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as open_socket
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from .reader import Reader
from .shapes import EVENTS, TERMINAL, Frame, check_frame

__all__ = [
    "PATIENCE_S",
    "SUBPROTOCOL",
    "Client",
    "JwtServer",
    "Match",
    "Server",
    "connect",
    "dial",
    "fresh",
    "of_run",
    "of_type",
    "user_url",
]

PATIENCE_S = 20.0
SUBPROTOCOL = "agentws.v1.json"
NEVER_ON_THE_WIRE = ("secret-internal-text", "RuntimeError", "ValueError", "Traceback")

Match: TypeAlias = Callable[[Frame], bool]


class Server(Protocol):
    """A running server in dev auth."""

    @property
    def ws_url(self) -> str: ...
    @property
    def http_url(self) -> str: ...


class JwtServer(Server, Protocol):
    """A running server that wants an HS256 token with `sub` and `exp`."""

    @property
    def jwt_secret(self) -> str: ...


def fresh(stem: str) -> str:
    """A name that no other test uses; fits every kind of id."""
    return f"{stem}-{uuid4().hex}"


def user_url(server: Server, user: str) -> str:
    return f"{server.ws_url}?user={quote(user, safe='')}"


def of_type(*kinds: str) -> Match:
    return lambda frame: frame["type"] in kinds


def of_run(run_id: str, *kinds: str) -> Match:
    """Run events of `run_id`, of these types where any are named."""
    return lambda frame: frame["type"] in EVENTS and frame["run_id"] == run_id and (not kinds or frame["type"] in kinds)


class Client:
    """One connection. `log` holds every frame in the order of its coming; `next` takes the first one not yet taken that
    matches, so that an answer and the events around it may be awaited in any order."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.log: list[Frame] = []
        self.established: Frame = {}
        self._untaken: list[Frame] = []
        self._ids = (f"q{number}" for number in itertools.count(1))
        self._unended: set[str] = set()

    @property
    def user_id(self) -> str:
        user_id = self.established["user_id"]
        assert isinstance(user_id, str)
        return user_id

    async def send_text(self, raw: str | bytes) -> None:
        """One text frame, whatever is in it."""
        await self.socket.send(raw, text=True)

    async def send(self, frame: Frame) -> None:
        await self.send_text(json.dumps(frame))

    async def next(self, match: Match, what: str = "such frame") -> Frame:
        """The first frame not yet taken that matches."""
        for index, frame in enumerate(self._untaken):
            if match(frame):
                return self._untaken.pop(index)
        try:
            async with asyncio.timeout(PATIENCE_S):
                while not match(frame := await self._receive()):
                    self._untaken.append(frame)
        except TimeoutError:
            told = [(frame["type"], frame.get("id"), frame.get("code")) for frame in self.log[-30:]]
            raise AssertionError(f"no {what} in {PATIENCE_S} s; the last frames: {told}") from None
        return frame

    async def answer_to(self, frame_id: str | None) -> Frame:
        """The next direct answer or error that carries this `id`."""
        return await self.next(
            lambda frame: "id" in frame and frame["type"] not in EVENTS and frame["id"] == frame_id,
            f"answer to {frame_id}",
        )

    async def post(self, frame: Frame) -> str:
        """Sends with an `id` of its own and returns it."""
        frame_id = next(self._ids)
        await self.send(frame | {"id": frame_id})
        return frame_id

    async def ask(self, frame: Frame) -> Frame:
        """Sends with an `id` of its own; returns the first answer to it."""
        return await self.answer_to(await self.post(frame))

    async def granted(self, frame: Frame, answer_type: str) -> Frame:
        """As `ask`; fails unless the answer is of this type."""
        answer = await self.ask(frame)
        assert answer["type"] == answer_type, f"{frame} was answered {answer}"
        return answer

    async def refused(self, frame: Frame, *codes: str, field: str | None = None) -> Frame:
        """As `ask`; fails unless the answer is an error of one of `codes`, whose `details.field` is `field`."""
        answer = await self.ask(frame)
        assert answer["type"] == "error", f"{frame} was answered {answer}"
        assert answer["code"] in codes, f"{frame} was answered {answer}"
        if field is not None:
            assert answer.get("details", {}).get("field") == field, f"{frame} was answered {answer}"
        return answer

    async def start(self, content: str, **options: Any) -> Frame:
        """A `user_message`, its options in the payload; returns its `request_accepted`."""
        frame = {"type": "user_message", "payload": {"content": content, **options}}
        return await self.granted(frame, "request_accepted")

    async def new_thread(self, thread_id: str | None = None) -> Frame:
        """Makes a thread, or meets it where it exists; returns its description."""
        answer = await self.granted({"type": "create_thread", "payload": {"thread_id": thread_id}}, "thread_created")
        thread: Frame = answer["thread"]
        return thread

    async def event(self, run_id: str, *kinds: str) -> Frame:
        return await self.next(of_run(run_id, *kinds), f"{kinds or 'event'} of {run_id}")

    async def ended(self, run_id: str) -> Frame:
        """The run's terminal event; what came of it before that is taken too."""
        while (event := await self.event(run_id))["type"] not in TERMINAL:
            pass
        return event

    async def run(self, content: str, **options: Any) -> list[Frame]:
        """Starts a run, awaits its end, holds the thread to the dense rule; returns the run's events."""
        accepted = await self.start(content, **options)
        await self.ended(accepted["run_id"])
        reader = self.reader(accepted["thread_id"], after_seq=accepted["seq"], since=accepted)
        return reader.of(accepted["run_id"])

    def reader(self, thread_id: str, *, after_seq: int, since: Frame) -> Reader:
        """A reader of the thread's events logged after the frame `since`."""
        return Reader(after_seq).feed_all(self.events(thread_id, since=since))

    def events(self, thread_id: str, *, since: Frame | None = None, until: Frame | None = None) -> list[Frame]:
        """The thread's run events logged between two frames of the log."""
        start = 0 if since is None else self.position(since) + 1
        end = len(self.log) if until is None else self.position(until)
        return [frame for frame in self.log[start:end] if frame["type"] in EVENTS and frame["thread_id"] == thread_id]

    def position(self, frame: Frame) -> int:
        """Where in the log this very frame stands."""
        return next(index for index, logged in enumerate(self.log) if logged is frame)

    async def replay(self, thread_id: str, **options: Any) -> tuple[Frame, list[Frame]]:
        """Subscribes and awaits `caught_up`; returns `subscribed` and the events between them, which stay untaken."""
        asked = {"type": "subscribe", "payload": {"thread_id": thread_id, **options}}
        subscribed = await self.granted(asked, "subscribed")
        caught_up = await self.answer_to(subscribed["id"])
        assert caught_up["type"] == "caught_up"
        assert caught_up["thread_id"] == subscribed["thread_id"] == thread_id
        events = self.events(thread_id, since=subscribed, until=caught_up)
        assert caught_up["seq"] == (events[-1]["seq"] if events else subscribed["after_seq"])
        return subscribed, events

    async def still_serves(self) -> None:
        """The connection is open and a run on it comes to its end."""
        word = fresh("still")
        events = await self.run(word, agent="echo")
        assert events[-1]["payload"]["response"] == word

    async def closed(self) -> int | None:
        """Awaits the close of the connection by the server; returns its code."""
        with contextlib.suppress(ConnectionClosed):
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    await self._receive()
        return self.socket.close_code

    async def stop_leftovers(self) -> None:
        """Ends what this connection started, so that no test leaves a run to the next."""
        with contextlib.suppress(ConnectionClosed, AssertionError):
            for run_id in sorted(self._unended):
                await self.ask({"type": "stop_agent", "run_id": run_id})

    async def _receive(self) -> Frame:
        raw = await self.socket.recv()
        assert isinstance(raw, str), "server frames are text frames"
        assert not any(leak in raw for leak in NEVER_ON_THE_WIRE), f"an internal text is told: {raw}"
        frame = json.loads(raw)
        assert isinstance(frame, dict), f"no object: {raw}"
        self.log.append(frame)
        check_frame(frame)
        self._note(frame)
        return frame

    def _note(self, frame: Frame) -> None:
        if self.established and "user_id" in frame:
            assert frame["user_id"] == self.user_id, f"told to {self.user_id}: {frame}"
        if frame["type"] == "request_accepted":
            self._unended.add(frame["run_id"])
        elif frame["type"] in TERMINAL:
            self._unended.discard(frame["run_id"])


@contextlib.asynccontextmanager
async def dial(
    url: str,
    *,
    subprotocols: Sequence[str] | None = (SUBPROTOCOL,),
    headers: Mapping[str, str] | None = None,
) -> AsyncIterator[Client]:
    """A connection that has had its `connection_established`."""
    async with open_socket(
        url,
        subprotocols=None if subprotocols is None else [Subprotocol(item) for item in subprotocols],
        additional_headers=headers,
        compression=None,
        proxy=None,
        max_size=None,
        max_queue=None,
    ) as socket:
        client = Client(socket)
        client.established = await client.next(lambda _: True, "first frame")
        assert client.established["type"] == "connection_established"
        try:
            yield client
        finally:
            await client.stop_leftovers()


@contextlib.asynccontextmanager
async def connect(server: Server, user: str | None = None) -> AsyncIterator[Client]:
    """A connection in dev auth, of a user of its own where none is named."""
    async with dial(user_url(server, fresh("user") if user is None else user)) as client:
        assert user is None or client.user_id == user
        yield client
