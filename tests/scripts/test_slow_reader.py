"""The measurement of slow readers measures, and takes no answer that is not whole."""

from typing import Any

import msgspec
import pytest

from scripts.slow_reader import Answer, SlowReaderError, main

from ..conftest import TestDatabase

pytestmark = pytest.mark.long


def frame(kind: str, seq: int, **fields: Any) -> bytes:
    return msgspec.json.encode({"type": kind, "seq": seq, **fields})


BEGIN = frame("request_accepted", 3)
FIRST = frame("agent_message", 4, payload={"text": "one ", "offset": 0})
MORE = frame("agent_message", 7, from_seq=5, payload={"text": "two", "offset": 4})
END = frame("agent_completed", 8, payload={"response": "one two"})


def test_a_whole_answer_is_taken_also_with_pieces_merged() -> None:
    answer = Answer()
    assert [answer.take(each) for each in (BEGIN, FIRST, MORE, END)] == ["", "one ", "two", None]
    assert answer.text == "one two"


@pytest.mark.parametrize(
    "frames",
    [
        (BEGIN, MORE),
        (BEGIN, FIRST, FIRST),
        (BEGIN, FIRST, frame("agent_message", 5, payload={"text": "two", "offset": 5})),
        (BEGIN, FIRST, frame("agent_completed", 5, payload={"response": "one two"})),
        (BEGIN, FIRST, frame("agent_error", 5, payload={"response": "one "})),
        (frame("error", 0, code="overloaded"),),
    ],
)
def test_an_answer_with_a_hole_a_double_or_another_end_is_none(frames: tuple[bytes, ...]) -> None:
    answer = Answer()
    with pytest.raises(SlowReaderError):
        for each in frames:
            answer.take(each)


def test_it_measures_a_server(
    database: TestDatabase, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AGENTWS_DATABASE_URL", database.url)
    monkeypatch.setenv("AGENTWS_MIGRATE_URL", database.owner_url)
    quick = "--users 3 --words 4 --seconds 0.3 --rounds 1 --bytes 200000 --no-goal"
    assert main(quick.split()) == 0
    told = capfd.readouterr().out
    assert "the slow reader got everything, once, in order" in told
    assert "words 24" in told
