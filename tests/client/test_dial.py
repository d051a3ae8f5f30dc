"""Where a client connects to."""

import pytest

from agentws.client.dial import websocket_url


@pytest.mark.parametrize(
    ("url", "user", "endpoint"),
    [
        ("http://127.0.0.1:8000", None, "ws://127.0.0.1:8000/ws"),
        ("https://agents.example/", None, "wss://agents.example/ws"),
        ("https://agents.example/mount/", None, "wss://agents.example/mount/ws"),
        ("ws://x/ws", "ada", "ws://x/ws?user=ada"),
        ("http://[::1]:8000", "a b&c=ü", "ws://[::1]:8000/ws?user=a%20b%26c%3D%C3%BC"),
        ("http://x/?a=1&user=old", "new", "ws://x/ws?a=1&user=new"),
        ("http://x/?user=kept", None, "ws://x/ws?user=kept"),
    ],
)
def test_a_server_is_found_at_its_endpoint(url: str, user: str | None, endpoint: str) -> None:
    assert websocket_url(url, user=user) == endpoint
