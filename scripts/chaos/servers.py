"""A real `agentws serve` on a fixed port that is started again whenever it has ended, until it is closed."""

import asyncio
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from scripts.chaos.processes import die_with_parent, resident_bytes

__all__ = ["ROOT", "ChaosServer"]

ROOT = Path(__file__).parents[2]
_READY = "agentws ready on "
_START_S = 90.0
_DRAIN_S = 40.0
_RESTART_PAUSE_S = 0.1


class ChaosServer:
    """
    Args:
        name: of its log file.
        port: where it listens.
        env: what it is set to, added to an environment without settings.
        clock: variables that shift its clock, asked for anew at each start.

    `counts`: `starts`, `failed_starts` (it ended before it was ready). `unexplained`: how it ended when nobody had
    told it to.
    """

    def __init__(
        self, name: str, port: int, env: Mapping[str, str], log: Path, clock: Callable[[], Mapping[str, str]]
    ) -> None:
        self.name = name
        self.port = port
        self.log = log
        self.ready = asyncio.Event()
        self.counts: Counter[str] = Counter()
        self.unexplained: list[str] = []
        # One fault at a time has a server.
        self.lock = asyncio.Lock()
        self._env = env
        self._clock = clock
        self._process: asyncio.subprocess.Process | None = None
        self._told = False
        self._ended = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Starts it, and again whenever it has ended."""
        self._keeper = asyncio.get_running_loop().create_task(self._keep())

    async def close(self) -> None:
        """Ends it: as SIGTERM ends it, or by SIGKILL where that takes too long."""
        if self._keeper is None:
            return
        self._keeper.cancel()
        await asyncio.gather(self._keeper, return_exceptions=True)
        if self._process is not None and self._process.returncode is None:
            self._signal(signal.SIGCONT)
            self._signal(signal.SIGTERM)
            self._signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(_DRAIN_S):
                    await self._process.wait()
            except TimeoutError:
                self.unexplained.append(f"did not end within {_DRAIN_S:g} s of SIGTERM")
                self._process.kill()
                await self._process.wait()

    async def is_ready(self) -> None:
        """Waits until it serves; TimeoutError where it does not."""
        async with asyncio.timeout(_START_S):
            await self.ready.wait()

    @property
    def memory(self) -> int:
        """The bytes that it holds."""
        return resident_bytes(self._process.pid) if self._process else 0

    async def kill(self) -> None:
        """SIGKILL; returns when it is gone."""
        await self._end(signal.SIGKILL)

    async def drain(self) -> None:
        """SIGTERM; returns when it is gone, and kills it where it does not go."""
        try:
            async with asyncio.timeout(_DRAIN_S):
                await self._end(signal.SIGTERM)
        except TimeoutError:
            self.unexplained.append(f"did not end within {_DRAIN_S:g} s of SIGTERM")
            await self._end(signal.SIGKILL)

    def pause(self) -> None:
        """SIGSTOP."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT)

    async def _end(self, number: signal.Signals) -> None:
        if self._process is None or self._process.returncode is not None:
            return
        self._told = True
        ended = self._ended
        self._signal(number)
        await ended.wait()

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def _keep(self) -> None:
        while True:
            await self._run()
            await asyncio.sleep(_RESTART_PAUSE_S)

    async def _run(self) -> None:
        self._told = False
        self._ended = asyncio.Event()
        self.counts["starts"] += 1
        shift = self._clock()
        module = "scripts.chaos.shifted" if shift else "agentws"
        with self.log.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", module, "serve", "--port", str(self.port)),
                *("--agents", "scripts.chaos.agents:agents"),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                cwd=ROOT,
                env={**_inherited(), **self._env, **shift},
                start_new_session=True,
                preexec_fn=die_with_parent,
            )
        self._process = process
        assert process.stdout is not None
        was_ready = False
        async for line in process.stdout:
            if line.decode().startswith(_READY):
                was_ready = True
                self.ready.set()
        status = await process.wait()
        self.ready.clear()
        self._ended.set()
        if not self._told:
            if was_ready:
                self.unexplained.append(f"ended with status {status}, and nobody had told it to")
            else:
                self.counts["failed_starts"] += 1


def _inherited() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("AGENTWS_")}
