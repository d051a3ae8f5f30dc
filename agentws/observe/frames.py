"""What comes and goes over connections, told to metrics and statistics; a frame that starts a run counts once."""

import time
from collections.abc import Hashable
from types import TracebackType

from agentws.observe.meters import EdgeMeter
from agentws.observe.statistics import Statistics
from agentws.wire.answers import Error, ServerMessage
from agentws.wire.errors import Fault
from agentws.wire.messages import STARTS

__all__ = ["FrameTally", "StartFate"]


class StartFate:
    """A block in which a start is carried out; how it is left says what became of the start.

    Left by a fault it was refused; by any other exception it is in doubt, once `run` is set; else it was accepted.
    """

    def __init__(self, meter: EdgeMeter, statistics: Statistics, kind: str) -> None:
        self.run: Hashable = None
        self.duplicate = False
        self._meter = meter
        self._statistics = statistics
        self._kind = kind
        self._began = 0.0

    def __enter__(self) -> "StartFate":
        self._began = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self._meter.start(self._kind, "duplicate" if self.duplicate else "accepted")
            self._meter.accepted(time.monotonic() - self._began)
            if self.duplicate:
                self._statistics.duplicate()
        elif isinstance(error, Fault) or self.run is None:
            self._meter.start(self._kind, "refused")
            self._statistics.refused()
        else:
            self._meter.start(self._kind, "in_doubt")
            self._statistics.in_doubt(self.run)


class FrameTally:
    def __init__(self, meter: EdgeMeter, statistics: Statistics) -> None:
        self.meter = meter
        self._statistics = statistics

    def came(self, frame_type: str | None, *, deprecated: bool = False) -> None:
        """A client frame was read.

        Args:
            frame_type: after aliases; None: it has none that is known.
            deprecated: it came under another name of its type.
        """
        self.meter.received(frame_type)
        if deprecated:
            self._statistics.deprecated()
        if frame_type in STARTS:
            self._statistics.received()

    def rejected(self, frame_type: str | None) -> None:
        """A frame was answered with an error before anything was done with it."""
        if frame_type is not None and frame_type in STARTS:
            self.meter.start(frame_type, "refused")
            self._statistics.refused()
        else:
            self._statistics.frame_refused()

    def failed(self, frame_type: str) -> None:
        """A command was answered with an error; a start has counted already, by its `start` block."""
        if frame_type not in STARTS:
            self._statistics.frame_refused()

    def start(self, kind: str) -> StartFate:
        """The block in which a start is carried out, to its answer."""
        return StartFate(self.meter, self._statistics, kind)

    def sent(self, frame: ServerMessage) -> None:
        """A frame other than a run event was queued for a connection."""
        self.meter.sent(str(frame.__struct_config__.tag))
        if isinstance(frame, Error):
            self.meter.error(frame.code)
