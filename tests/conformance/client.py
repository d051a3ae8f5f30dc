"""A small WebSocket client that trusts nothing: it logs every frame in order and checks each against its row."""

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as open_socket
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from .servers import JwtServer, Server
from .shapes import EVENTS, TERMINAL, Frame
from .tokens import bearer, token
from .told import PATIENCE_S, Match, Told, fresh, of_run, of_type

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

SUBPROTOCOL = "agentws.v1.json"


def user_url(server: Server, user: str) -> str:
    """The endpoint for a user in dev auth."""
    return f"{server.ws_url}?user={quote(user, safe='')}"


class Client(Told):
    """One connection."""

    def __init__(self, socket: ClientConnection) -> None:
        super().__init__()
        self.socket = socket
        self.established: Frame = {}
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

    async def stop(self, **named: str) -> Frame:
        return await self.granted({"type": "stop_agent", "payload": named}, "stop_accepted")

    async def new_thread(self, thread_id: str | None = None, **fields: Any) -> Frame:
        """Makes a thread, or meets it where it exists; returns its description."""
        payload = {"thread_id": thread_id, **fields}
        answer = await self.granted({"type": "create_thread", "payload": payload}, "thread_created")
        thread: Frame = answer["thread"]
        return thread

    async def run(self, content: str, **options: Any) -> list[Frame]:
        """Starts a run, awaits its end, holds the thread to the dense rule; returns the run's events."""
        accepted = await self.start(content, **options)
        await self.ended(accepted["run_id"])
        reader = self.reader(accepted["thread_id"], after_seq=accepted["seq"], since=accepted)
        return reader.of(accepted["run_id"])

    async def replay(self, thread_id: str, **options: Any) -> tuple[Frame, list[Frame]]:
        """Subscribes and awaits `caught_up`; returns `subscribed` and the events between them, which stay untaken."""
        asked = {"type": "subscribe", "payload": {"thread_id": thread_id, **options}}
        subscribed = await self.granted(asked, "subscribed")
        assert subscribed["thread_id"] == thread_id
        return subscribed, await self.caught_up(subscribed, subscribed["after_seq"])

    async def caught_up(self, answer: Frame, after_seq: int) -> list[Frame]:
        """Awaits the `caught_up` of the subscription that `answer` announced; returns the events between them."""
        caught_up = await self.answer_to(answer["id"])
        assert caught_up["type"] == "caught_up"
        events = self.events(caught_up["thread_id"], since=answer, until=caught_up)
        assert caught_up["seq"] == (events[-1]["seq"] if events else after_seq)
        return events

    async def still_serves(self) -> None:
        """The connection is open and a run on it comes to its end."""
        word = fresh("still")
        accepted = await self.start(word)
        assert word in (await self.ended(accepted["run_id"]))["payload"]["response"]

    async def closed(self) -> int | None:
        """Awaits the close of the connection by the server; returns its code."""
        with contextlib.suppress(ConnectionClosed):
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    await self.receive()
        return self.socket.close_code

    async def stop_leftovers(self) -> None:
        """Ends what this connection started, so that no test leaves a run to the next."""
        with contextlib.suppress(ConnectionClosed, AssertionError):
            for run_id in sorted(self._unended):
                await self.ask({"type": "stop_agent", "run_id": run_id})

    async def read(self) -> str:
        raw = await self.socket.recv()
        assert isinstance(raw, str), "server frames are text frames"
        return raw

    def noted(self, frame: Frame) -> None:
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
async def connect(
    server: Server,
    user: str | None = None,
    *,
    subprotocols: Sequence[str] | None = (SUBPROTOCOL,),
    headers: Mapping[str, str] | None = None,
) -> AsyncIterator[Client]:
    """A connection of a user, of one of its own where none is named, by the credentials that the server wants."""
    name = fresh("user") if user is None else user
    url, sent = server.ws_url, dict(headers or {})
    if server.jwt_secret:
        sent |= bearer(token(server, name))
    else:
        url = user_url(server, name)
    async with dial(url, subprotocols=subprotocols, headers=sent) as client:
        assert client.user_id == name
        yield client
