"""A way to the database that can go silent, as a line does whose other end is gone without a word."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

__all__ = ["SilentProxy", "silenced"]


@dataclass
class SilentProxy:
    """Passes bytes on while `passes` is set, else they are gone; `url` is the database's through it."""

    url: str
    passes: asyncio.Event = field(default_factory=asyncio.Event)
    connections: int = 0
    drops: bytes = b""
    """Messages of the server that begin with this byte are not passed on."""

    async def serve(self, socket: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        far_reader, far_writer = await asyncio.open_unix_connection(socket)
        passing = [
            asyncio.ensure_future(self._pass(reader, far_writer)),
            asyncio.ensure_future(self._pass_messages(far_reader, writer)),
        ]
        try:
            await asyncio.wait(passing, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in passing:
                task.cancel()
            await asyncio.gather(*passing, return_exceptions=True)
            writer.close()
            far_writer.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(65536):
            if self.passes.is_set():
                writer.write(piece)
                await writer.drain()

    async def _pass_messages(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # No TLS is asked for on a socket of this machine, so that from the first byte on all are messages.
        while True:
            head = await reader.readexactly(5)
            body = await reader.readexactly(int.from_bytes(head[1:]) - 4)
            if self.passes.is_set() and head[:1] != self.drops:
                writer.write(head + body)
                await writer.drain()


@contextlib.asynccontextmanager
async def silenced(url: str) -> AsyncIterator[SilentProxy]:
    """A proxy before the database at `url`, which is on a Unix socket."""
    parts = urlsplit(url)
    (directory,) = parse_qs(parts.query)["host"]
    serving: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        serving.add(task)
        # asyncio's own server logs what is raised here, also where it was cancelled.
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await proxy.serve(f"{directory}/.s.PGSQL.5432", reader, writer)
        serving.discard(task)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    proxy = SilentProxy(f"postgresql://{parts.username}@127.0.0.1:{port}{parts.path}?sslmode=disable")
    proxy.passes.set()
    try:
        yield proxy
    finally:
        server.close()
        for task in tuple(serving):
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)
