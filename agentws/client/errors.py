"""What can go wrong for a client: the connection cannot be made or kept, or the server refuses a request.

ClientError           any of them
├── ConnectFailed     the first connection could not be made
├── Closed            the connection is over and is not made again
└── Refused           the server answered a request with an error
"""

from agentws.wire.answers import Error

__all__ = ["ClientError", "Closed", "ConnectFailed", "Refused"]


class ClientError(Exception):
    """Why the client could not do what it was asked; the text is for people."""


class ConnectFailed(ClientError):
    """The first connection could not be made."""


class Closed(ClientError):
    """The connection is over and is not made again."""


class Refused(ClientError):
    """The server's refusal of one request.

    Args:
        error: the frame: `code`, `message`, `retryable`, and what else it says.
    """

    def __init__(self, error: Error) -> None:
        super().__init__(f"{error.code}: {error.message}")
        self.error = error

    @property
    def code(self) -> str:
        return self.error.code
