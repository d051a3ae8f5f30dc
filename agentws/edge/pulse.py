"""How far a peer has come in taking what it was sent, as TCP knows it: a peer that takes something is alive.

Linux tells; where a system does not, everything counts as taken.
"""

import socket
import struct
import sys
from asyncio import Transport
from typing import NamedTuple

__all__ = ["Pulse", "Taken", "hold_little"]

if sys.platform == "linux":
    import fcntl
    import termios

_HIGH_WATER, _LOW_WATER = 64 * 1024, 16 * 1024
_UNSENT = 64 * 1024
# Of struct tcp_info: segments in flight, and the bytes that the peer has acknowledged.
_INFO_SIZE = 256
_UNACKED, _ACKED = (struct.Struct("=I"), 24), (struct.Struct("=Q"), 120)
_INT = struct.Struct("=i")
_TCP = (socket.AF_INET, socket.AF_INET6)


class Taken(NamedTuple):
    """What a peer's kernel has acknowledged, what is still on its way to it, in bytes, and whether it has no room."""

    acknowledged: int
    waiting: int
    has_no_room: bool


_UNKNOWN = Taken(0, 0, has_no_room=False)


def hold_little(transport: Transport) -> None:
    """Bounds what is held for a peer below the application: here, and in the kernel what it has not yet sent.

    The kernel's buffer grows with the peer's speed to several MiB, and stays so when the peer stops reading.
    """
    transport.set_write_buffer_limits(high=_HIGH_WATER, low=_LOW_WATER)
    opened = transport.get_extra_info("socket")
    if sys.platform == "linux" and opened.family in _TCP:
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT)


class Pulse:
    """What a transport's peer takes."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def look(self) -> Taken:
        """How far the peer has come by now."""
        opened = self._transport.get_extra_info("socket")
        if sys.platform != "linux" or opened.family not in _TCP:
            return _UNKNOWN
        try:
            info = opened.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_SIZE)
            [queued] = _INT.unpack(fcntl.ioctl(opened.fileno(), termios.TIOCOUTQ, bytes(_INT.size)))
        except OSError:
            # It has been closed, which will be told.
            return _UNKNOWN
        if len(info) < _ACKED[1] + _ACKED[0].size:
            return _UNKNOWN
        [in_flight] = _UNACKED[0].unpack_from(info, _UNACKED[1])
        [acknowledged] = _ACKED[0].unpack_from(info, _ACKED[1])
        waiting = queued + self._transport.get_write_buffer_size()
        return Taken(acknowledged, waiting, has_no_room=queued > 0 and not in_flight)
