"""Frames of the server as the client reads them."""

import pytest

from agentws.client.frames import ThreadList, UnreadableFrame, read
from agentws.client.reader import Event
from agentws.wire.answers import Error

from .events import event_frame, frame

THREAD = {
    "thread_id": "t",
    "title": None,
    "metadata": {"a": [1]},
    "created_at": "c",
    "updated_at": "u",
    "epoch": "e",
    "last_seq": 3,
    "running_run_id": None,
}


def test_an_event_keeps_fields_that_are_not_known() -> None:
    made = read(frame(event_frame(3, "agent_dreams", {"of": "sheep"}, mood="calm", from_seq=2)))
    assert isinstance(made, Event)
    assert (made.type, made.first, made.seq, made.frame["mood"]) == ("agent_dreams", 2, 3, "calm")


def test_answers_are_structs_and_unknown_fields_are_ignored() -> None:
    error = {"type": "error", "id": None, "code": "new_code", "message": "m", "retryable": True, "more": 1}
    assert read(frame(error)) == Error(id=None, code="new_code", message="m", retryable=True)
    listed = read(frame({"type": "thread_list", "id": "q", "timestamp": "n", "threads": [THREAD], "next_before": None}))
    assert isinstance(listed, ThreadList)
    assert listed.threads[0].metadata == {"a": [1]}


def test_a_type_that_is_not_known_says_nothing() -> None:
    assert read('{"type": "thread_dreamt", "id": null}') is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no json",
        "[]",
        b"\xff",
        '{"type": "subscribed", "id": null}',
        '{"type": "agent_message", "event_id": "x", "seq": "one"}',
    ],
)
def test_what_does_not_fit_is_said(text: str | bytes) -> None:
    with pytest.raises(UnreadableFrame):
        read(text)
