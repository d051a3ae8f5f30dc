"""WebSocket pings at a steady interval; a peer that has answered none of two is closed (section 1)."""

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

__all__ = ["KeptAlive"]

_MOST_MISSED = 2


class KeptAlive(WebSocketsSansIOProtocol):
    """uvicorn's protocol, which by itself sends no second ping before the first is answered.

    It is to be configured with a `ws_ping_interval` and no `ws_ping_timeout`.
    """

    _missed = 0

    def send_keepalive_ping(self) -> None:
        self._missed = 0 if self.pending_ping_payload is None else self._missed + 1
        if self._missed >= _MOST_MISSED:
            self.keepalive_timeout()
        else:
            super().send_keepalive_ping()
