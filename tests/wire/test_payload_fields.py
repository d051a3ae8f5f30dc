"""Fields that stand in the payload and beside it, and fields that a type does not know."""

import json

import pytest

from agentws.wire.codec import Head, decode, parse
from agentws.wire.errors import Fault
from agentws.wire.messages import Start


@pytest.mark.parametrize(
    ("payload", "field"), [({"type": "ping", "content": "x"}, "type"), ({"id": "b", "content": "x"}, "id")]
)
def test_a_type_or_id_in_the_payload_is_the_frame_s_or_a_fault(payload: dict[str, str], field: str) -> None:
    head = parse(json.dumps({"type": "chat", "id": "a", "payload": payload}))
    assert isinstance(head, Head)
    with pytest.raises(Fault) as raised:
        decode(head, "ada")
    assert (raised.value.code, raised.value.details) == ("validation_error", {"field": field})


def test_an_id_in_the_payload_alone_is_the_frame_s() -> None:
    head = parse(json.dumps({"type": "chat", "payload": {"id": "b", "content": "x"}}))
    assert isinstance(head, Head)
    assert head.id == "b"
    assert decode(head, "ada").id == "b"


@pytest.mark.parametrize(
    "frame",
    [
        {"type": "start_agent", "user_request": "x", "message": 5, "content": [], "text": {}},
        {"type": "chat", "content": "x", "user_request": 5},
    ],
)
def test_a_text_field_of_another_type_is_an_unknown_field(frame: dict[str, object]) -> None:
    head = parse(json.dumps(frame))
    assert isinstance(head, Head)
    message = decode(head, "ada")
    assert isinstance(message, Start)
    assert message.text == "x"
