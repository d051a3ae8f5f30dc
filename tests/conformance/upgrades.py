"""An upgrade that is refused: its status, its headers, and the error frame in its body."""

import json
from collections.abc import Mapping, Sequence

import pytest
from websockets.datastructures import Headers
from websockets.exceptions import InvalidStatus

from .client import dial
from .shapes import Frame, check_frame

__all__ = ["assert_unauthorized", "refusal"]


async def refusal(
    url: str, *, headers: Mapping[str, str] | None = None, subprotocols: Sequence[str] | None = None
) -> tuple[int, Headers, Frame]:
    """Status, headers and JSON body of an upgrade that is refused."""
    with pytest.raises(InvalidStatus) as caught:
        async with dial(url, headers=headers, subprotocols=subprotocols):
            pass
    response = caught.value.response
    assert response.headers["Content-Type"].startswith("application/json")
    body: Frame = json.loads(response.body or b"")
    assert (body["type"], body["id"]) == ("error", None)
    check_frame(body)
    return response.status_code, response.headers, body


async def assert_unauthorized(
    url: str, *, headers: Mapping[str, str] | None = None, subprotocols: Sequence[str] | None = None
) -> None:
    status, _, body = await refusal(url, headers=headers, subprotocols=subprotocols)
    assert (status, body["code"]) == (401, "unauthorized")
