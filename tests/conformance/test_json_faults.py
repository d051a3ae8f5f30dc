"""Section 1, the row JSON, and the first column of the error table: what cannot be read is answered, costs nothing, and
leaves the connection open."""

import json

import pytest

from .client import Client, Server, connect
from .shapes import Frame

BROKEN = [
    "",
    "   ",
    "{",
    '{"type": "ping"',
    '{"type": "ping"}}',
    '{"type": "ping"} {"type": "ping"}',
    '{"type": "ping",}',
    "{'type': 'ping'}",
    '{type: "ping"}',
    '{"type": "ping", "payload": 01}',
    '{"type": "ping", "payload": +1}',
    '{"type": "ping", "payload": .5}',
    '{"type": "ping", "payload": [1,]}',
    '{"type": "ping", "payload": tru}',
    '{"type": "ping"} // why',
    '{"type": "ping", "payload": "a\nb"}',
    '{"type": "ping", "payload": "\\x41"}',
    '{"type": "ping", "payload": "\\u12"}',
    "hello",
]

UNREADABLE = {
    "NaN": "NaN",
    "Infinity": "Infinity",
    "minus Infinity": "-Infinity",
    "1e400": "1e400",
    "-1e400": "-1e400",
    "2**64": str(2**64),
    "-2**63 - 1": str(-(2**63) - 1),
    "a googol in digits": "1" + "0" * 100,
    "lone high surrogate": r'"\ud800"',
    "lone low surrogate": r'"a\udc00b"',
    "surrogates the wrong way round": r'"\udc00\ud800"',
    "lone surrogate in a name": r'{"\ud800": 1}',
    "NUL": r'"a\u0000b"',
    "NUL in a name": r'{"a\u0000b": 1}',
    "the same name twice": '{"a": 1, "a": 2}',
    "the same name spelt twice": r'{"a": 1, "\u0061": 2}',
    "the same name twice, deep": '{"x": [{"a": 1, "a": 1}]}',
    "lists of depth 70": "[" * 70 + "]" * 70,
    "objects of depth 70": '{"a":' * 70 + "1" + "}" * 70,
    "lists of depth 100000": "[" * 100_000 + "]" * 100_000,
}


async def refusal_of(client: Client, raw: str) -> Frame:
    """The error that answers an unreadable frame; its `id` is not looked at."""
    await client.send_text(raw)
    return await client.next(lambda frame: frame["type"] == "error", f"error for {raw[:60]}")


@pytest.mark.parametrize("raw", BROKEN)
async def test_broken_json_is_invalid_json(server: Server, raw: str) -> None:
    async with connect(server) as client:
        refusal = await refusal_of(client, raw)
        assert (refusal["code"], refusal["id"]) == ("invalid_json", None)
        await client.still_serves()


@pytest.mark.parametrize("raw", ["[]", '[{"type": "ping"}]', '"ping"', "5", "-0.5", "true", "null"])
async def test_json_that_is_no_object_is_not_an_object(server: Server, raw: str) -> None:
    async with connect(server) as client:
        refusal = await refusal_of(client, raw)
        assert (refusal["code"], refusal["id"]) == ("not_an_object", None)
        await client.still_serves()


@pytest.mark.parametrize("value", UNREADABLE.values(), ids=UNREADABLE.keys())
async def test_an_unreadable_value_in_a_ping_is_refused(server: Server, value: str) -> None:
    async with connect(server) as client:
        refusal = await refusal_of(client, '{"type": "ping", "payload": ' + value + "}")
        assert refusal["code"] in {"invalid_json", "validation_error"}
        await client.still_serves()


@pytest.mark.parametrize("value", UNREADABLE.values(), ids=UNREADABLE.keys())
async def test_an_unreadable_value_in_a_start_is_refused(server: Server, value: str) -> None:
    raw = '{"type": "user_message", "payload": {"content": "hi", "context": {"a": VALUE}}}'
    async with connect(server) as client:
        refusal = await refusal_of(client, raw.replace("VALUE", value))
        assert refusal["code"] in {"invalid_json", "validation_error"}
        await client.still_serves()
        assert sum(frame["type"] == "request_accepted" for frame in client.log) == 1


@pytest.mark.parametrize("text", [r"a\ud800b", r"a\u0000b"], ids=["lone surrogate", "NUL"])
async def test_an_unreadable_text_starts_nothing(server: Server, text: str) -> None:
    async with connect(server) as client:
        refusal = await refusal_of(client, '{"type": "user_message", "content": "' + text + '"}')
        assert refusal["code"] in {"invalid_json", "validation_error"}
        await client.still_serves()


async def test_the_same_name_twice_at_the_top_is_refused(server: Server) -> None:
    async with connect(server) as client:
        refusal = await refusal_of(client, '{"type": "ping", "type": "ping"}')
        assert refusal["code"] in {"invalid_json", "validation_error"}
        await client.still_serves()


@pytest.mark.parametrize(
    "value",
    [2**63 - 1, -(2**63), 2**53 + 1, 1.5, -0.25, 1e308, 5e-300, '🎈 \\ " / \b\f\n\r\t \u2028 \x7f', [[[]]], {"": {}}],
)
async def test_every_other_json_value_comes_back_as_it_was(server: Server, value: object) -> None:
    async with connect(server) as client:
        assert (await client.granted({"type": "ping", "payload": value}, "pong"))["payload"] == value


async def test_a_frame_of_depth_64_is_read(server: Server) -> None:
    async with connect(server) as client:
        raw = "[" * 63 + "]" * 63
        await client.send_text('{"type": "ping", "id": "deep", "payload": ' + raw + "}")
        assert (await client.answer_to("deep"))["payload"] == json.loads(raw)


async def test_white_space_around_a_frame_and_escaped_pairs_are_read(server: Server) -> None:
    async with connect(server) as client:
        await client.send_text(' \r\n\t{ "type" : "ping", "id":"w", "payload" : "\\ud83c\\udf88" }\n ')
        assert (await client.answer_to("w"))["payload"] == "🎈"


async def test_many_faults_on_one_connection_leave_it_working(server: Server) -> None:
    async with connect(server) as client:
        for raw in ["{", "[]", "{}", '{"type": 5}', '{"type": "nonsense"}', '{"type": "ping", "payload": NaN}']:
            await refusal_of(client, raw)
        await client.still_serves()
