"""A TCP proxy that breaks connections: after so many bytes, or now."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

__all__ = ["Proxy", "proxied"]


@dataclass
class Proxy:
    """`down` and `up` hold, for each connection to come, how many bytes it passes before it breaks; none: all."""

    url: str = ""
    down: list[int] = field(default_factory=list)
    up: list[int] = field(default_factory=list)
    connections: int = 0
    _open: set[asyncio.StreamWriter] = field(default_factory=set)

    def cut(self) -> None:
        """Breaks what is open, without a close."""
        for writer in self._open:
            writer.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, budget: int | None) -> None:
        while piece := await reader.read(4096):
            if budget is not None and len(piece) >= budget:
                writer.write(piece[:budget])
                await writer.drain()
                return
            budget = None if budget is None else budget - len(piece)
            writer.write(piece)
            await writer.drain()

    async def serve(self, host: str, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        down = self.down.pop(0) if self.down else None
        up = self.up.pop(0) if self.up else None
        try:
            far_reader, far_writer = await asyncio.open_connection(host, port)
        except OSError:
            writer.transport.abort()
            return
        self._open |= {writer, far_writer}
        passing = [
            asyncio.ensure_future(self._pass(reader, far_writer, up)),
            asyncio.ensure_future(self._pass(far_reader, writer, down)),
        ]
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait(passing, return_when=asyncio.FIRST_COMPLETED)
        for task in passing:
            task.cancel()
        await asyncio.gather(*passing, return_exceptions=True)
        for each in (writer, far_writer):
            self._open.discard(each)
            # What was written may still be on its way: a close sends it, and then ends the connection.
            each.close()


@contextlib.asynccontextmanager
async def proxied(url: str) -> AsyncIterator[Proxy]:
    """A proxy before the server at `url`."""
    parts = urlsplit(url)
    proxy = Proxy()
    serving: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        serving.add(task)
        await proxy.serve(parts.hostname or "", parts.port or 0, reader, writer)
        serving.discard(task)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    proxy.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield proxy
    finally:
        server.close()
        proxy.cut()
        if serving:
            await asyncio.wait(serving)
