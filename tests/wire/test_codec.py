"""Bytes to structs and back: what is refused, with which code, in which order; and what is written."""

import json
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentws.wire.codec import Head, Rejected, clean, decode, encode, encode_text, parse, timestamp
from agentws.wire.errors import Fault
from agentws.wire.messages import ClientMessage, CreateThread, Heartbeat, Ping, Start, StopAgent, Subscribe

Fields = dict[str, Any]
quick = settings(database=None, deadline=None, max_examples=60)


def refusal(text: str) -> tuple[str, str | None, dict[str, Any] | None]:
    """Code, id and details of what `parse` or `decode` says against a text."""
    head = parse(text)
    if isinstance(head, Rejected):
        return head.fault.code, head.id, head.fault.details
    with pytest.raises(Fault) as caught:
        decode(head, "me")
    return caught.value.code, head.id, caught.value.details


def code_of(frame: Fields) -> tuple[str, str | None]:
    """Code, and the field that it names."""
    code, _, details = refusal(json.dumps(frame))
    return code, (details or {}).get("field")


def decoded(frame: Fields) -> ClientMessage:
    head = parse(json.dumps(frame))
    assert isinstance(head, Head), head
    return decode(head, "me")


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            " ",
            "{",
            '{"type":"ping"',
            '{"type":"ping"}}',
            '{"type":"ping",}',
            "{'type':'ping'}",
            "hello",
            "\ufeff{}",
        ),
        *('{"type":"ping"} {}', '{"type":"ping","payload":01}', '{"type":"ping","payload":"a\nb"}', "\ud800", "nul"),
        *('{"type":"ping","payload":NaN}', '{"type":"ping","payload":-Infinity}', '{"type":"ping","payload":1e400}'),
        *('{"type":"ping","payload":"\\ud800"}', '{"type":"ping","payload":"\udfff"}', '{"type":"ping","\\udc00":1}'),
        *('{"type":"ping","payload":"\\u0000"}', '{"type":"ping","payload":{"a\\u0000":1}}', '{"id":"\\u0000"}'),
        *('{"type":"ping","payload":"\\\\\\u0000"}', '{"type":"ping","payload":[{"a":["\\u0000"]}]}'),
        *('{"type":"ping","payload":18446744073709551616}', '{"type":"ping","payload":-9223372036854775809}'),
        *('{"type":"ping","payload":[[1' + "0" * 100 + "]]}", '{"type":"ping","payload":1' + "0" * 5000 + "}"),
        *('{"type":"ping","type":"ping"}', '{"type":"ping","payload":{"a":1,"a":2}}', '{"a":1,"\\u0061":2}'),
        *('{"type":"ping","payload":[{"a" :{"b":1,"b":1}}]}', '[{"a":1,"a":1}]', '{"x\\"":1,"x\\"" :2}'),
        *("[" * 65 + "]" * 65, '{"a":' * 65 + "1" + "}" * 65, '{"type":' + "[" * 100_000 + "]" * 100_000 + "}"),
    ],
    ids=lambda text: ascii(text)[:60],
)
def test_what_is_no_sound_json_is_invalid_json(text: str) -> None:
    assert refusal(text) == ("invalid_json", None, None)


@pytest.mark.parametrize(
    "text", ["[]", '[{"type":"ping"}]', '"ping"', "5", "-0.5", "true", "null", "[" * 64 + "]" * 64]
)
def test_other_json_than_an_object_is_not_an_object(text: str) -> None:
    assert refusal(text) == ("not_an_object", None, None)


@pytest.mark.parametrize(
    "value",
    [
        *(2**63 - 1, -(2**63), 2**53 + 1, 1.5, -0.25, 1e308, 5e-300, 12345678901234567890.5, True, False, None),
        *(
            "",
            "\\u0000",
            "\\\\u0000",
            '"a":',
            '{"a":1,"a":2}',
            "[" * 200,
            "9" * 50,
            "🎈 \\ / \b\f\n\r\t \u2028 \x7f\x01",
        ),
        *([], {}, [[[]]], {"": {}}, {"a": 1, "b": {"a": 1}}, [{"a": 1}, {"a": 1}], {"type": "x", "thread_id": 5}),
    ],
    ids=lambda value: ascii(value)[:60],
)
def test_every_other_value_is_read_as_it_is(value: object) -> None:
    message = decoded({"type": "ping", "payload": {"inside": value}})
    assert isinstance(message, Ping)
    assert message.payload == {"inside": value}


def test_a_frame_of_depth_64_is_read() -> None:
    deep = json.loads("[" * 63 + "]" * 63)
    assert decoded({"type": "ping", "payload": deep}) == Ping(type="ping", payload=deep)


# A NUL is refused; what looks like one, or like a name, is not.
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])) | st.sampled_from(
    ['\\u0000":', '"":']
)
NUMBER = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBER | TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["a", "", '"', '":', "\\"]), inner),
    max_leaves=10,
)


@quick
@given(VALUES)
def test_sound_json_comes_back_as_it_was(value: object) -> None:
    for text in (json.dumps({"type": "ping", "payload": [value]}), encode_text({"type": "ping", "payload": [value]})):
        head = parse(text)
        assert isinstance(head, Head)
        assert head.fields["payload"] == [value]


@quick
@given(VALUES, st.sampled_from(["a", '":', "\\", "\\u0000", "é"]))
def test_a_name_given_twice_is_always_found(value: object, name: str) -> None:
    twin = f"{json.dumps(name)} :{json.dumps(value)}"
    head = parse(f'{{"type":"ping","payload":[{{{twin},"x":[],{twin}}}]}}')
    assert isinstance(head, Rejected) and head.fault.code == "invalid_json"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("{}", "missing_type"),
        ('{"type":null}', "missing_type"),
        ('{"payload":{"type":"ping"}}', "missing_type"),
        ('{"type":5}', "validation_error"),
        ('{"type":["ping"]}', "validation_error"),
        ('{"type":""}', "unknown_type"),
        ('{"type":"PING"}', "unknown_type"),
        ('{"type":"ping "}', "unknown_type"),
        ('{"type":"handshake_acknowledged","thread_id":"t"}', "unknown_type"),
        ('{"type":"agent_started"}', "reserved_type"),
    ],
)
def test_the_type_is_checked_before_all_else(text: str, code: str) -> None:
    wrong = text[:-1] + (", " if len(text) > 2 else "") + '"id":"i","user_id":"other"}'
    assert refusal(wrong)[:2] == (code, "i")


@pytest.mark.parametrize("bad", ["", " ", "a b", "x" * 129, "ü", "a\n", 5, 0, 1.5, True, False, [], {}])
@pytest.mark.parametrize("kind", ["ping", "heartbeat", "chat", "nonsense"])
def test_an_id_of_the_wrong_form_is_not_told_back(kind: str, bad: object) -> None:
    code, told, details = refusal(json.dumps({"type": kind, "id": bad, "user_id": "other"}))
    assert told is None
    expected = ("unknown_type", None) if kind == "nonsense" else ("validation_error", {"field": "id"})
    assert (code, details) == expected


@pytest.mark.parametrize("frame_id", ["a", "7", "x" * 128, "AZaz09._:-", None])
def test_an_id_of_the_right_form_is_kept(frame_id: str | None) -> None:
    assert decoded({"type": "heartbeat", "id": frame_id}) == Heartbeat(type="heartbeat", id=frame_id)


@pytest.mark.parametrize("payload", ["text", "", 5, 0, True, False, [], [{"content": "hi"}]])
@pytest.mark.parametrize("kind", ["chat", "start_agent", "stop_agent", "subscribe", "create_thread", "heartbeat"])
def test_a_payload_that_is_no_object_is_refused(kind: str, payload: object) -> None:
    frame = {"type": kind, "content": "hi", "user_request": "hi", "thread_id": "t", "payload": payload}
    assert code_of(frame) == ("validation_error", "payload")


@pytest.mark.parametrize("payload", ["text", "", 5, 0, True, False, [], [None], {"user_id": "data"}, {"a": None}])
def test_a_ping_carries_any_value(payload: object) -> None:
    assert decoded({"type": "ping", "id": "i", "payload": payload, "b": 1}) == Ping(
        type="ping", id="i", payload=payload
    )


@pytest.mark.parametrize("fields", [{}, {"a": 1}, {"text": "hi", "thread_id": 5, "x": [None]}])
def test_a_ping_without_payload_carries_its_other_fields(fields: Fields) -> None:
    nothings: list[Fields] = [{}, {"payload": None}]
    for nothing in nothings:
        assert decoded({"type": "ping", "id": "i", **fields, **nothing}) == Ping(type="ping", id="i", payload=fields)


IDS = {"thread_id": "t", "user_id": "me", "run_id": "r", "idempotency_key": "k"}


NULLS = dict.fromkeys(IDS)


@pytest.mark.parametrize(("top", "inside"), [(IDS, {}), ({}, IDS), (IDS, IDS), (NULLS, IDS), (IDS, NULLS)])
def test_ids_are_read_at_the_top_and_in_the_payload(top: Fields, inside: Fields) -> None:
    message = decoded({"type": "chat", **top, "payload": {"content": "hi", **inside}})
    assert {name: getattr(message, name) for name in IDS} == IDS


def test_beside_a_payload_nothing_else_is_read_at_the_top() -> None:
    top = {"content": 5, "text": "top", "agent": 5, "context": "no", "if_busy": "no", "subscribe": 5, "request_id": 5}
    message = decoded({"type": "chat", **top, "payload": {"content": "hi"}})
    assert message == decoded({"type": "chat", "content": "hi"})


def test_unknown_fields_are_ignored() -> None:
    frame = {"type": "subscribe", "thread_id": "t", "colour": [1], "title": 5, "content": 5}
    assert decoded(frame) == Subscribe(type="subscribe", thread_id="t")


GOOD: Fields = {"content": "hi", "user_request": "hi"}


@pytest.mark.parametrize("kind", ["chat", "start_agent", "stop_agent", "subscribe", "unsubscribe", "create_thread"])
def test_two_different_threads_are_ambiguous(kind: str) -> None:
    frame = {"type": kind, "thread_id": "a", "payload": GOOD | {"thread_id": "b"}}
    assert code_of(frame) == ("ambiguous_thread", None)


@pytest.mark.parametrize("field", ["run_id", "idempotency_key"])
def test_two_different_values_of_another_id_name_its_field(field: str) -> None:
    assert code_of({"type": "chat", field: "a", "payload": GOOD | {field: "b"}}) == ("validation_error", field)


@pytest.mark.parametrize(
    "frame",
    [
        {"user_id": "other"},
        {"payload": {"user_id": "other"}},
        {"user_id": "other", "payload": {}},
        {"user_id": "me", "payload": {"user_id": "other"}},
        {"user_id": "other", "payload": {"user_id": "me"}},
        {"user_id": ""},
    ],
)
@pytest.mark.parametrize("kind", ["chat", "start_agent", "stop_agent", "subscribe", "create_thread", "heartbeat"])
def test_another_users_id_is_identity_mismatch_before_values_are_looked_at(kind: str, frame: Fields) -> None:
    assert code_of({"type": kind, **frame}) == ("identity_mismatch", None)


def test_another_users_id_beside_what_a_ping_carries_is_refused() -> None:
    assert code_of({"type": "ping", "user_id": "other", "payload": 1}) == ("identity_mismatch", None)


@pytest.mark.parametrize(
    "frame",
    [
        {"type": "chat", "content": "hi", "context": {"user_id": "other"}},
        {"type": "create_thread", "metadata": {"user_id": "other"}},
    ],
)
def test_another_users_id_inside_context_and_metadata_is_data(frame: Fields) -> None:
    assert isinstance(decoded(frame), Start | CreateThread)


# Each frame breaks its own rule and all later ones; the first that fails answers.
ORDER: list[tuple[Fields, tuple[str, str | None]]] = [
    ({"id": "a b", "agent": 5, "user_id": "other"}, ("validation_error", "id")),
    ({"agent": 5, "user_id": "other", "thread_id": "a"}, ("validation_error", "agent")),
    ({"user_id": "other", "thread_id": "a"}, ("identity_mismatch", None)),
    ({"thread_id": "a"}, ("ambiguous_thread", None)),
    ({}, ("validation_error", "content")),
]


@pytest.mark.parametrize(("fields", "expected"), ORDER)
def test_the_first_check_that_fails_answers(fields: Fields, expected: tuple[str, str | None]) -> None:
    top = {name: value for name, value in fields.items() if name != "agent"}
    inside = {"agent": fields.get("agent"), "thread_id": "b", "if_busy": "never", "run_id": "a b"}
    assert code_of({"type": "chat", **top, "payload": inside}) == expected


TEXTS: list[tuple[str, Fields, str | None]] = [
    ("chat", {"message": "a", "content": "b", "text": "c"}, "a"),
    ("chat", {"content": "b", "text": "c"}, "b"),
    ("chat", {"text": "c"}, "c"),
    ("chat", {"message": "", "content": " \t\n\u2003", "text": " c "}, " c "),
    ("chat", {"message": None, "content": "b"}, "b"),
    ("user_message", {"message": "\n", "content": "b"}, "b"),
    ("start_agent", {"user_request": " a "}, " a "),
    ("chat", {"user_request": "a"}, None),
    ("chat", {}, None),
    ("user_message", {"message": "", "content": " ", "text": "\t"}, None),
    ("start_agent", {}, None),
    ("start_agent", {"user_request": "  "}, None),
    ("start_agent", {"message": "a", "content": "b", "text": "c"}, None),
]


@pytest.mark.parametrize(("kind", "fields", "text"), TEXTS)
def test_the_text_is_the_first_that_is_not_blank(kind: str, fields: Fields, text: str | None) -> None:
    if text is None:
        missing = "user_request" if kind == "start_agent" else "content"
        assert code_of({"type": kind, **fields}) == ("validation_error", missing)
        return
    message = decoded({"type": kind, **fields})
    assert isinstance(message, Start)
    assert message.text == text


@pytest.mark.parametrize("field", ["message", "content", "text"])
@pytest.mark.parametrize("bad", [5, True, [], {}, ["hi"]])
def test_a_text_of_a_wrong_type_is_named_also_beside_another_text(field: str, bad: object) -> None:
    fields = {"message": "a", "content": "b", "text": "c"} | {field: bad}
    assert code_of({"type": "chat", **fields}) == ("validation_error", field)


@pytest.mark.parametrize(
    ("frame", "field"),
    [
        ({"type": "chat", "content": "hi", "if_busy": "never"}, "if_busy"),
        ({"type": "chat", "content": "hi", "if_busy": ""}, "if_busy"),
        ({"type": "chat", "content": "hi", "on_disconnect": "Stop"}, "on_disconnect"),
        *(
            ({"type": "chat", "content": "hi", name: "a b"}, name)
            for name in ("thread_id", "run_id", "idempotency_key")
        ),
        *(({"type": "stop_agent", name: "x" * 129}, name) for name in ("thread_id", "run_id", "request_id")),
        ({"type": "stop_agent"}, "run_id"),
        ({"type": "stop_agent", "reason": "enough"}, "run_id"),
        ({"type": "subscribe"}, "thread_id"),
        ({"type": "unsubscribe"}, "thread_id"),
        ({"type": "unsubscribe", "thread_id": ""}, "thread_id"),
        ({"type": "create_thread", "thread_id": "a/b"}, "thread_id"),
        ({"type": "subscribe", "thread_id": "t", "after_seq": -1}, "after_seq"),
        ({"type": "subscribe", "thread_id": "t", "after_seq": 1.5}, "after_seq"),
    ],
)
def test_a_value_that_is_not_allowed_is_named(frame: Fields, field: str) -> None:
    assert code_of(frame) == ("validation_error", field)


@pytest.mark.parametrize("after_seq", [0, 1, 2**63 - 1])
def test_a_number_within_its_range_is_kept(after_seq: int) -> None:
    message = decoded({"type": "subscribe", "thread_id": "t", "after_seq": after_seq})
    assert isinstance(message, Subscribe)
    assert message.after_seq == after_seq


@pytest.mark.parametrize("name", ["run_id", "request_id", "thread_id"])
def test_each_of_three_ids_is_enough_for_a_stop(name: str) -> None:
    assert decoded({"type": "stop_agent", name: "x"}) == StopAgent(type="stop_agent", **{name: "x"})


@pytest.mark.parametrize(
    ("dirty", "cleaned"),
    [
        ("", ""),
        ("é🎈\n", "é🎈\n"),
        ("a\0b", "a\ufffdb"),
        ("a\ud800b", "a\ufffdb"),
        ("\udfff\ud83d", "\ufffd\ufffd"),
        ("\ud83c\udf88", "🎈"),
        ("\0\ud800", "\ufffd\ufffd"),
    ],
)
def test_what_no_database_can_hold_is_replaced(dirty: str, cleaned: str) -> None:
    assert clean(dirty) == cleaned


@quick
@given(st.text(st.characters()))
def test_cleaned_text_can_always_be_kept(text: str) -> None:
    cleaned = clean(text)
    assert "\0" not in cleaned
    assert msgspec.json.decode(encode(cleaned)) == cleaned


def test_text_is_written_as_text_of_the_same_json() -> None:
    assert encode_text({"a": "é"}) == encode({"a": "é"}).decode() == '{"a":"é"}'


@pytest.mark.parametrize("value", [object(), "\ud800", {(1, 2): 3}])
def test_what_is_no_json_is_not_written(value: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        encode(value)


@pytest.mark.parametrize(
    ("at", "text"),
    [
        (datetime(2024, 5, 6, 7, 8, 9, 123999, tzinfo=UTC), "2024-05-06T07:08:09.123Z"),
        (datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC), "2024-05-06T07:08:09.000Z"),
        (datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC), "9999-12-31T23:59:59.000Z"),
    ],
)
def test_a_time_has_milliseconds_and_z(at: datetime, text: str) -> None:
    assert timestamp(at) == text


def test_the_time_now_is_in_utc() -> None:
    told = datetime.fromisoformat(timestamp())
    assert told.utcoffset() == UTC.utcoffset(None)
    assert abs((datetime.now(UTC) - told).total_seconds()) < 60
