"""One WebSocket connection to the server: where it goes, with which credentials, and what its refusal means."""

import ipaddress
import re
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI
from websockets.typing import Subprotocol

from agentws.client.errors import ConnectFailed
from agentws.client.frames import UnreadableFrame, read
from agentws.client.retry import Verdict, after_close, after_status
from agentws.wire.answers import ConnectionEstablished

__all__ = ["SUBPROTOCOL", "NoConnection", "dial", "ended_by", "websocket_url"]

SUBPROTOCOL = "agentws.v1.json"
OPEN_TIMEOUT_S = 10.0
CLOSE_TIMEOUT_S = 2.0
MAX_FRAME_BYTES = 64 * 1024 * 1024
# A peer from which nothing is heard for the sum of both is given up.
PING_INTERVAL_S = 10.0
PING_TIMEOUT_S = 20.0

_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]+")
_SCHEMES = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}


class NoConnection(Exception):
    """A connection ended, or could not be made.

    Args:
        why: for people.
        verdict: what follows.
        after_s: the least pause that the server asks for, in seconds.
    """

    def __init__(self, why: str, verdict: Verdict, *, after_s: float = 0.0) -> None:
        super().__init__(why)
        self.verdict = verdict
        self.after_s = after_s


def websocket_url(url: str, *, user: str | None = None) -> str:
    """The endpoint of a server.

    Args:
        url: where the server is, http(s) or ws(s), with its mount; the endpoint itself is taken too.
        user: a user's name for a server in dev auth.

    Raises:
        ConnectFailed: if it is no such URL.
    """
    try:
        parts = urlsplit(url)
        if parts.scheme not in _SCHEMES or not parts.hostname or parts.port == 0:
            raise ValueError
    except ValueError:
        raise ConnectFailed(f"{url!r} is no URL of a server; it has the form http://HOST:PORT") from None
    path = parts.path.rstrip("/")
    if not path.endswith("/ws"):
        path += "/ws"
    query = [(name, value) for name, value in parse_qsl(parts.query) if user is None or name != "user"]
    if user is not None:
        query.append(("user", user))
    return urlunsplit((_SCHEMES[parts.scheme], parts.netloc, path, urlencode(query, quote_via=quote), ""))


async def dial(endpoint: str, token: str | None) -> tuple[ClientConnection, ConnectionEstablished]:
    """Makes a connection and waits for the server's first frame.

    Args:
        endpoint: what `websocket_url` made.
        token: a JWT, or None.

    Raises:
        NoConnection: if there is none; it says whether to try again.
    """
    protocols = [Subprotocol(SUBPROTOCOL)]
    if token is not None:
        if not _TOKEN.fullmatch(token):
            raise NoConnection("the token is no JWT", Verdict.FINAL)
        protocols.append(Subprotocol(f"bearer.{token}"))
    try:
        socket = await connect(
            endpoint,
            subprotocols=protocols,
            compression=None,
            proxy=None if _is_here(endpoint) else True,
            max_size=MAX_FRAME_BYTES,
            open_timeout=OPEN_TIMEOUT_S,
            close_timeout=CLOSE_TIMEOUT_S,
            ping_interval=PING_INTERVAL_S,
            ping_timeout=PING_TIMEOUT_S,
        )
    except InvalidStatus as error:
        raise _refused(error) from None
    except InvalidURI as error:
        raise NoConnection(str(error), Verdict.FINAL) from None
    except (OSError, TimeoutError, EOFError, InvalidHandshake) as error:
        raise NoConnection(_why(error), Verdict.RECONNECT) from None
    try:
        established = read(await socket.recv())
    except ConnectionClosed as closed:
        raise ended_by(closed) from None
    except UnreadableFrame as error:
        await socket.close()
        raise NoConnection(f"this is no agentws server: {error}", Verdict.FINAL) from None
    except BaseException:
        await socket.close()
        raise
    if not isinstance(established, ConnectionEstablished):
        await socket.close()
        raise NoConnection("this is no agentws server", Verdict.FINAL)
    return socket, established


def ended_by(closed: ConnectionClosed) -> NoConnection:
    """What a close says: why, and what follows."""
    code = _close_code(closed)
    if code is None:
        return NoConnection("the connection broke", after_close(None))
    reason = closed.rcvd.reason if closed.rcvd else ""
    return NoConnection(f"closed with {code}{f' ({reason})' if reason else ''}", after_close(code))


def _close_code(closed: ConnectionClosed) -> int | None:
    """The code with which a connection was closed; None where it broke without one.

    A code that this side gave counts where it found the server's frames to be at fault.
    """
    if closed.rcvd is not None:
        return closed.rcvd.code
    return closed.sent.code if closed.sent is not None and closed.sent.code in (1007, 1009) else None


def _refused(error: InvalidStatus) -> NoConnection:
    status = error.response.status_code
    pause = error.response.headers.get("Retry-After", "")
    why = {
        401: "the credentials are missing, not valid or expired",
        403: "this connection is forbidden",
        404: "there is no agentws server at this URL",
        503: "the server is full or going away",
    }.get(status, f"the server answered with HTTP status {status}")
    return NoConnection(why, after_status(status), after_s=float(pause) if pause.isdecimal() else 0.0)


def _why(error: Exception) -> str:
    match error:
        case ConnectionRefusedError():
            return "connection refused"
        case TimeoutError():
            return "no answer in time"
        case OSError(strerror=str(reason)):
            return reason
        case _:
            return str(error) or type(error).__name__


def _is_here(endpoint: str) -> bool:
    host = urlsplit(endpoint).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
