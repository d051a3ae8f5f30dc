"""A real server process for tests: started, waited for, killed, started again."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["ServerProcess", "running"]

ROOT = Path(__file__).parent.parent
START_S = 60.0
_READY = "agentws ready on "


@dataclass
class ServerProcess:
    """`agentws serve` on a free port. `env` is added to a clean environment."""

    env: Mapping[str, str]
    arguments: tuple[str, ...] = ("--agents", "tests.sample_agents:agents")
    jwt_secret: str = ""
    http_url: str = ""
    log: list[str] = field(default_factory=list)
    _process: "subprocess.Popen[str] | None" = None

    @property
    def ws_url(self) -> str:
        return self.http_url.replace("http://", "ws://") + "/ws"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> "ServerProcess":
        """Starts it and waits for its ready line."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("AGENTWS_")}
        process = subprocess.Popen(
            [sys.executable, "-m", "agentws", "serve", "--port", "0", *self.arguments],
            env={**inherited, "AGENTWS_DEMO_WORDS_PER_S": "0", "AGENTWS_POOL_SIZE": "4", **self.env},
            cwd=ROOT,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self._process = process
        threading.Thread(target=self._collect, args=(process,), daemon=True).start()
        timer = threading.Timer(START_S, process.kill)
        timer.start()
        assert process.stdout is not None
        line = process.stdout.readline()
        timer.cancel()
        if not line.startswith(_READY):
            process.wait(10)
            raise AssertionError(f"the server did not start: {line!r}\n" + "".join(self.log))
        self.http_url = line.removeprefix(_READY).strip()
        return self

    def _collect(self, process: "subprocess.Popen[str]") -> None:
        assert process.stderr is not None
        with process.stderr:
            self.log.extend(process.stderr)

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        self.signal(signal.SIGKILL)
        self.wait()

    def wait(self, timeout: float = 30.0) -> int:
        assert self._process is not None
        status = self._process.wait(timeout)
        if self._process.stdout is not None:
            self._process.stdout.close()
        return status

    def stop(self) -> int:
        """Asks it to go, and hurries it; returns its exit status."""
        if self._process is None:
            return 0
        if self._process.poll() is None:
            self.signal(signal.SIGTERM)
            try:
                return self.wait(1.0)
            except subprocess.TimeoutExpired:
                self.signal(signal.SIGTERM)
        try:
            return self.wait()
        except subprocess.TimeoutExpired:
            self.kill()
            raise


@contextmanager
def running(env: Mapping[str, str], *arguments: str) -> Iterator[ServerProcess]:
    """A server that is stopped at the block's end."""
    server = ServerProcess(env, arguments or ("--agents", "tests.sample_agents:agents"))
    server.start()
    try:
        yield server
    finally:
        server.stop()
