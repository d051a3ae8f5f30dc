"""The benchmark measures what it says, and takes no run that is not as promised."""

import math
import tempfile
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import msgspec
import pytest

from scripts.bench_check import Measured, Stage, aligned, main, ratios, stage_table, top_functions
from scripts.bench_load import Broken, Order, Round, RunCheck, Seen, percentile, split_frames

TEXT = "what is asked"


def seen(kind: str, seq: int, *, user: str = "ada", **payload: Any) -> Seen:
    return msgspec.convert({"type": kind, "seq": seq, "user_id": user, "payload": payload}, Seen)


def frames_of_a_run() -> list[Seen]:
    return [
        msgspec.convert({"type": "request_accepted", "seq": 6}, Seen),
        seen("agent_started", 7, message=TEXT),
        seen("agent_thinking", 8),
        seen("tool_executing", 9),
        seen("tool_completed", 10, result={"text": TEXT[::-1], "returned": 5.0}),
        seen("agent_message", 11),
        seen("agent_completed", 12, response=TEXT),
    ]


def take_all(frames: list[Seen], executing_at: float = 4.0) -> RunCheck:
    """The check of a run whose frames ended it with the last of them."""
    check = RunCheck("ada", TEXT)
    ended = [check.take(frame, executing_at) for frame in frames]
    assert ended == [False] * (len(frames) - 1) + [True]
    return check


@pytest.mark.parametrize(("executing_at", "early"), [(4.0, True), (5.0, False), (6.0, False)])
def test_a_whole_run_is_taken_and_tells_whether_the_tool_was_shown_while_it_worked(
    executing_at: float, early: bool
) -> None:
    assert take_all(frames_of_a_run(), executing_at).early is early


def test_a_merged_event_covers_its_numbers() -> None:
    frames = frames_of_a_run()
    frames[2].from_seq, frames[2].seq = 8, 9
    for frame in frames[3:]:
        frame.seq += 1
    take_all(frames)


@pytest.mark.parametrize(
    ("place", "instead", "why"),
    [
        (0, seen("agent_started", 7, message=TEXT), "instead of events"),
        (0, msgspec.convert({"type": "error", "code": "overloaded"}, Seen), "overloaded"),
        (1, seen("agent_started", 7, message="what another asked"), "what another asked"),
        (1, seen("agent_started", 7, message=TEXT, user="bob"), "an event of bob"),
        (2, seen("agent_thinking", 9), "9 after 7"),
        (2, seen("tool_executing", 8), "where agent_thinking belongs"),
        (4, seen("tool_completed", 10, result={"text": TEXT, "returned": 5.0}), "tool_completed"),
        (4, seen("tool_completed", 10, result=None), "tool_completed"),
        (5, seen("agent_error", 11), "agent_error"),
        (6, seen("agent_completed", 12, response=""), "agent_completed"),
    ],
)
def test_a_run_that_is_not_as_promised_is_broken(place: int, instead: Seen, why: str) -> None:
    frames = frames_of_a_run()
    frames[place] = instead
    with pytest.raises(Broken, match=why):
        take_all(frames)


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536])
def test_frames_of_every_length_are_split_and_the_rest_is_kept(size: int) -> None:
    header = bytes([0x81, size]) if size < 126 else b"\x81\x7e" + size.to_bytes(2) if size < 65536 else b"\x81\x7f"
    whole = header + (size.to_bytes(8) if size >= 65536 else b"") + b"x" * size
    ping = b"\x89\x02hi"
    assert split_frames(whole + ping) == ([(1, b"x" * size), (9, b"hi")], b"")
    for cut in {1, 2, 3, len(whole) // 2, len(whole) - 1} & set(range(len(whole))):
        assert split_frames(ping + whole[:cut]) == ([(9, b"hi")], whole[:cut])


@pytest.mark.parametrize("data", [b"\x01\x02hi", b"\x81\x82maskhi"])
def test_a_frame_that_is_a_fragment_or_masked_is_broken(data: bytes) -> None:
    with pytest.raises(Broken):
        split_frames(data)


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [([], 0.5, 0.0), ([7.0], 0.95, 7.0), ([3.0, 1.0, 2.0], 0.5, 2.0), ([float(n) for n in range(1, 101)], 0.95, 95.0)],
)
def test_a_percentile_is_one_of_the_values(values: list[float], share: float, expected: float) -> None:
    assert percentile(values, share) == expected


def measured(rate: float) -> Measured:
    told = Round(runs=10, rate=rate, all_runs=12, early=0.5, client_ms=0.1, p50_ms=rate / 100, p95_ms=rate / 10)
    return Measured(round=told, wal=4000.4, commits=3.0, server_ms=math.nan)


STAGE = Stage(
    title="two turns",
    order=Order(users=2, agent="bench", seconds=1, lead_s=0),
    rounds={
        "floor-2": [measured(100), measured(1000), measured(500)],
        "floor-3": [measured(50), measured(800), measured(400)],
        "agentws": [measured(40), measured(200), measured(300)],
    },
)


def test_a_ratio_is_of_one_turn() -> None:
    assert ratios(STAGE, "agentws", "floor-3") == [0.8, 0.25, 0.75]


def test_a_table_tells_medians_ranges_and_the_medians_of_the_ratios() -> None:
    title, head, *lines, told = stage_table(STAGE).splitlines()
    assert title == "two turns"
    assert head.split()[:3] == ["runs/s", "p50", "ms"]
    assert [line.split()[:5] for line in lines] == [
        ["floor-2", "500", "(100–1000)", "5.0", "50.0"],  # noqa: RUF001
        ["floor-3", "400", "(50–800)", "4.0", "40.0"],  # noqa: RUF001
        ["agentws", "200", "(40–300)", "2.0", "20.0"],  # noqa: RUF001
    ]
    assert "agentws / floor-3: 0.75 (0.25–0.80)" in told  # noqa: RUF001
    assert "agentws / floor-2: 0.40 (0.20–0.60)" in told  # noqa: RUF001


def test_columns_are_aligned() -> None:
    assert aligned([("", "n"), ("one", "1"), ("three", "300")]) == "         n\none      1\nthree  300"


def test_a_function_is_ranked_by_the_samples_that_end_in_it() -> None:
    lines = ["main (a.py);work (b c.py) 6", "main (a.py) 1", "main (a.py);idle (a.py);work (b c.py) 2", "idle (a.py) 1"]
    assert top_functions("\n".join(lines), 2) == [("work (b c.py)", 0.8), ("main (a.py)", 0.1)]
    assert top_functions("", 2) == []


@pytest.mark.parametrize("option", ["--users=0", "--rounds=0", "--seconds=0"])
def test_nothing_cannot_be_measured(option: str) -> None:
    with pytest.raises(SystemExit):
        main([option])


def test_all_servers_are_measured_and_nothing_is_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []

    def make_directory(**where: Any) -> str:
        made.append(mkdtemp(**where))
        return made[-1]

    monkeypatch.setattr(tempfile, "mkdtemp", make_directory)
    file = tmp_path / "figures.json"
    assert main(["--users=2", "--rounds=1", "--seconds=0.4", "--no-profile", f"--json={file}"]) == 0
    assert made
    assert not any(Path(directory).exists() for directory in made)
    out = capsys.readouterr().out
    figures = msgspec.json.decode(file.read_bytes())
    assert [stage["order"]["users"] for stage in figures["stages"]] == [2, 1, 2]
    for stage in figures["stages"]:
        assert stage["title"] in out
        for name, commits in (("floor-2", 2), ("floor-3", 3), ("agentws", 3)):
            (one,) = stage["rounds"][name]
            assert one["round"]["runs"] > 0
            assert round(one["commits"]) == commits
    # With one commit more the thread's row is written once more.
    assert round(figures["rows"]["floor-3"]) == round(figures["rows"]["floor-2"]) + 1
    assert figures["rows"]["agentws"] > figures["rows"]["floor-3"]
    assert figures["profile"] is None
