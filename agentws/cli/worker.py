"""One of the processes that serve a port: what it is it was handed, and it does not outlive its parent."""

import logging
import os
import socket
import threading
import time
from contextlib import suppress

from agentws.app import Service
from agentws.cli.control import HURRY, MAKE_ROOM, Answer, Handover
from agentws.cli.options import EXPECTED
from agentws.cli.server import Server, leave_tools, load_agents
from agentws.observe.logs import configure
from agentws.settings import Settings

__all__ = ["serve_as_worker"]

log = logging.getLogger("agentws")

_ENDING_S = 20.0  # for all that follows the time that runs are given


def serve_as_worker(descriptor: int) -> int:
    """Serves until it is told to go or its parent is gone; returns the exit status.

    Args:
        descriptor: this process's end of the pair of sockets to its parent.
    """
    control = socket.socket(fileno=descriptor)
    control.set_inheritable(False)
    # Unbuffered: a thread that waits in a buffered one would stop the interpreter from ending.
    said = control.makefile("rb", buffering=0)
    if not (line := said.readline()):
        return 1
    handover = Handover.of(line)
    settings = handover.settings
    configure(settings.log_level.upper(), form=settings.log_format or "text", worker=handover.worker)
    sockets = [socket.socket(fileno=each) for each in handover.sockets]
    for each in sockets:
        each.set_inheritable(False)

    def answer(failure: str | None) -> None:
        with suppress(OSError):  # the parent is gone, which is seen elsewhere
            control.sendall(Answer(failure=failure).line())

    try:
        service = Service(settings, load_agents(handover.agents), worker=handover.worker)
        # A service manager may signal a worker and its parent at once, so that two signals are no hurry here.
        server = Server(service, on_ready=lambda _: answer(None), hurried_by_signals=False)
        # A thread, since an agent may block the event loop.
        threading.Thread(target=_heed_parent, args=(said, server, settings), daemon=True).start()
        server.run(sockets)
        if server.failure is not None:
            raise server.failure
    except EXPECTED as error:
        answer(str(error))
        return 1
    leave_tools()
    return 0


def _heed_parent(said: socket.SocketIO, server: Server, settings: Settings) -> None:
    with suppress(OSError):
        for line in said:
            if line == HURRY:
                server.hurry()
            elif line == MAKE_ROOM:
                server.leave_port()
    log.error("the parent is gone; this worker drains and ends")
    server.leave_port()
    time.sleep(settings.drain_grace_s + settings.database_timeout_s + _ENDING_S)
    os._exit(1)
