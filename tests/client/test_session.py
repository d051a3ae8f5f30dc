"""What a client holds across connections, with literals: no socket, no server."""

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from agentws.client.frames import UnreadableFrame
from agentws.client.reader import Event, Gap
from agentws.client.session import Answered, Gone, Output, Reset, ResumeLater, Session, Trouble
from agentws.wire.answers import CaughtUp, Error, RequestAccepted, Subscribed, ThreadDeleted

from .events import event_frame, frame

ACCEPTED = {
    "type": "request_accepted",
    "timestamp": "now",
    "request_id": "req",
    "thread_id": "t",
    "epoch": "e1",
    "run_id": "r",
    "seq": 4,
    "duplicate": False,
    "status": "running",
    "position": 0,
}
SUBSCRIBED = {
    "type": "subscribed",
    "timestamp": "now",
    "thread_id": "t",
    "epoch": "e1",
    "first_seq": 1,
    "last_seq": 9,
    "after_seq": 4,
    "recovered": True,
}


def sent(session: Session) -> list[dict[str, Any]]:
    """Takes what is to be sent."""

    def taking() -> Iterator[dict[str, Any]]:
        while session.outbox:
            yield msgspec.json.decode(session.outbox.popleft())

    return list(taking())


def told(session: Session, *frames: dict[str, Any]) -> list[Output]:
    return [output for each in frames for output in session.receive(frame(each))]


def piece(seq: int, text: str, offset: int, **fields: Any) -> dict[str, Any]:
    return event_frame(seq, "agent_message", {"text": text, "offset": offset}, **fields)


def error(frame_id: str | None, code: str, *, retryable: bool = False, **fields: Any) -> dict[str, Any]:
    return {"type": "error", "id": frame_id, "code": code, "message": "m", "retryable": retryable, **fields}


def following(session: Session, **fields: Any) -> None:
    """The session follows the thread `t`, of which it holds everything up to 4."""
    frame_id = session.request("subscribe", {"thread_id": "t", "after_seq": 4})
    assert isinstance(told(session, {**SUBSCRIBED, "id": frame_id, **fields})[-1], Answered)
    session.outbox.clear()


def test_a_request_is_a_frame_with_an_id_and_without_what_is_none() -> None:
    session = Session()
    frame_id = session.request("user_message", {"content": "hi", "agent": None, "idempotency_key": "k"})
    asked = {"type": "user_message", "id": frame_id, "payload": {"content": "hi", "idempotency_key": "k"}}
    assert sent(session) == [asked]
    assert session.is_waiting
    (answered,) = told(session, {**ACCEPTED, "id": frame_id})
    assert isinstance(answered, Answered)
    assert isinstance(answered.answer, RequestAccepted)
    assert not session.is_waiting


def test_a_request_without_an_answer_is_sent_again_as_it_was_on_every_connection() -> None:
    session = Session()
    session.request("user_message", {"content": "one", "idempotency_key": "k1"})
    session.request("user_message", {"content": "two", "idempotency_key": "k2"})
    first = sent(session)
    session.connected()
    assert sent(session) == first
    told(session, {**ACCEPTED, "id": first[0]["id"]})
    session.connected()
    assert sent(session)[1:] == first[1:]


def test_a_request_that_nobody_waits_for_is_not_sent_again() -> None:
    session = Session()
    session.forget(session.request("list_threads", {}))
    session.connected()
    assert sent(session) == []


def test_a_start_is_followed_from_its_number_on() -> None:
    session = Session()
    frame_id = session.request("user_message", {"content": "hi"})
    outputs = told(session, piece(5, "early", 0), {**ACCEPTED, "id": frame_id}, piece(5, "a", 0), piece(6, "b", 1))
    assert [output.seq for output in outputs if isinstance(output, Event)] == [5, 6]
    assert session.followed == {"t": ("e1", 6)}


def test_a_start_in_a_thread_that_is_followed_leaves_it_where_it_is() -> None:
    session = Session()
    following(session)
    told(session, piece(5, "a", 0), piece(6, "b", 1))
    told(session, {**ACCEPTED, "id": session.request("user_message", {"content": "hi"}), "seq": 9})
    assert session.followed == {"t": ("e1", 6)}


def test_a_thread_goes_on_where_it_was_before_requests_are_sent_again() -> None:
    session = Session()
    following(session)
    told(session, piece(5, "abc", 0))
    session.request("user_message", {"content": "hi", "idempotency_key": "k"})
    session.connected()
    resume, again = sent(session)
    assert resume["type"] == "subscribe"
    assert resume["payload"] == {"thread_id": "t", "after_seq": 5, "epoch": "e1"}
    assert again["type"] == "user_message"
    outputs = told(
        session,
        {**SUBSCRIBED, "id": resume["id"], "after_seq": 5},
        piece(6, "abcdef", 0, from_seq=5),
        {"type": "caught_up", "id": resume["id"], "timestamp": "now", "thread_id": "t", "seq": 6},
    )
    assert isinstance(outputs[0], Event)
    assert outputs[0].payload == {"text": "def", "offset": 3}
    assert isinstance(outputs[1], CaughtUp)


def test_a_past_that_is_another_one_is_told_anew() -> None:
    session = Session()
    following(session)
    session.connected()
    (resume,) = sent(session)
    outputs = told(
        session,
        {**SUBSCRIBED, "id": resume["id"], "recovered": False, "epoch": "e2", "after_seq": 0},
        piece(2, "of the old one", 0),
        piece(1, "a", 0, epoch="e2"),
    )
    assert outputs[0] == Reset("t", "e2", 0)
    assert [output.seq for output in outputs[1:] if isinstance(output, Event)] == [1]


def test_a_subscription_that_begins_anew_unasked_resets_too() -> None:
    session = Session()
    following(session)
    assert told(session, {**SUBSCRIBED, "id": None, "recovered": False, "epoch": "e2", "after_seq": 0}) == [
        Reset("t", "e2", 0)
    ]
    assert session.followed == {"t": ("e2", 0)}


def test_to_follow_again_goes_back_to_where_it_was_asked() -> None:
    session = Session()
    following(session)
    told(session, piece(5, "a", 0))
    frame_id = session.request("subscribe", {"thread_id": "t"})
    (answered,) = told(session, {**SUBSCRIBED, "id": frame_id, "after_seq": 0})
    assert isinstance(answered, Answered)
    assert isinstance(answered.answer, Subscribed)
    assert session.followed == {"t": ("e1", 0)}


def test_a_repeated_start_whose_thread_is_gone_is_told() -> None:
    session = Session()
    told(session, {**ACCEPTED, "id": session.request("user_message", {"content": "hi"}), "duplicate": True})
    (resume,) = [each for each in sent(session) if each["type"] == "subscribe"]
    assert told(session, error(resume["id"], "thread_not_found")) == [Gone("t", "thread_not_found")]
    assert session.followed == {}


def test_a_server_that_cannot_resume_now_is_asked_later() -> None:
    session = Session()
    following(session)
    session.connected()
    (resume,) = sent(session)
    refusal = error(resume["id"], "database_unavailable", retryable=True, retry_after_ms=2500)
    outputs = told(session, refusal)
    assert isinstance(outputs[0], Trouble)
    assert outputs[1] == ResumeLater("t", 2.5)
    session.resume("t")
    assert sent(session)[0]["payload"] == {"thread_id": "t", "after_seq": 4, "epoch": "e1"}


@pytest.mark.parametrize(
    ("ended", "gone"),
    [
        ({"type": "thread_deleted", "id": None, "timestamp": "now", "thread_id": "t"}, [Gone("t", "deleted")]),
        (
            {"type": "subscription_ended", "timestamp": "now", "thread_id": "t", "reason": "revoked"},
            [Gone("t", "revoked")],
        ),
        ({"type": "thread_deleted", "id": None, "timestamp": "now", "thread_id": "u"}, []),
    ],
)
def test_a_thread_that_is_gone_is_told_once(ended: dict[str, Any], gone: list[Output]) -> None:
    session = Session()
    following(session)
    assert told(session, ended, ended) == gone


def test_a_thread_that_was_deleted_from_here_is_answered_and_no_news() -> None:
    session = Session()
    following(session)
    frame_id = session.request("delete_thread", {"thread_id": "t"})
    deleted = {"type": "thread_deleted", "timestamp": "now", "thread_id": "t"}
    (answered,) = told(session, {**deleted, "id": frame_id}, {**deleted, "id": None})
    assert isinstance(answered, Answered)
    assert session.followed == {}


def test_a_changed_epoch_is_subscribed_to_again() -> None:
    session = Session()
    following(session)
    ended = {"type": "subscription_ended", "timestamp": "now", "thread_id": "t", "reason": "epoch_changed"}
    assert told(session, ended) == []
    assert sent(session)[0]["payload"] == {"thread_id": "t", "after_seq": 4, "epoch": "e1"}


def test_an_error_answers_its_request_or_is_trouble() -> None:
    session = Session()
    frame_id = session.request("list_threads", {})
    (answered, trouble) = told(session, error(frame_id, "not_implemented"), error(None, "token_expired"))
    assert isinstance(answered, Answered)
    assert isinstance(answered.answer, Error)
    assert isinstance(trouble, Trouble)


def test_a_repeated_deletion_that_finds_nothing_has_been_done() -> None:
    session = Session()
    frame_id = session.request("delete_thread", {"thread_id": "t"})
    session.connected()
    (answered,) = told(session, error(frame_id, "thread_not_found"))
    assert isinstance(answered, Answered)
    assert isinstance(answered.answer, ThreadDeleted)
    once = session.request("delete_thread", {"thread_id": "t"})
    (refused,) = told(session, error(once, "thread_not_found"))
    assert isinstance(refused, Answered)
    assert isinstance(refused.answer, Error)


def test_what_is_not_followed_says_nothing() -> None:
    session = Session()
    following(session)
    session.unfollow("t")
    caught_up = {"type": "caught_up", "id": None, "timestamp": "now", "thread_id": "t", "seq": 4}
    assert told(session, piece(5, "a", 0), caught_up, {**SUBSCRIBED, "id": "q77"}) == []


def test_what_cannot_be_trusted_is_raised() -> None:
    session = Session()
    following(session)
    with pytest.raises(Gap):
        told(session, piece(7, "a", 0))
    with pytest.raises(UnreadableFrame):
        told(session, event_frame(5, "agent_message", {"text": "no offset"}))
