"""The times of stops are measured, and what is not stopped is a failure."""

import re

import pytest

from scripts import stop_times
from scripts.stop_times import Times, main, table

from ..conftest import TestDatabase

pytestmark = pytest.mark.long


def test_a_table_has_a_line_for_each_kind_and_end() -> None:
    told = table([Times(kind="thread", told=[1.0, 3.0, 2.0], ended=[0.5, 0.25, 9.0])])
    assert [line.split() for line in told.splitlines()[2:]] == [
        ["thread:", "agent_stopped", "3", "2.0", "3.0", "3.0"],
        ["thread:", "the", "tool's", "end", "3", "0.5", "9.0", "9.0"],
    ]


@pytest.fixture
def on_database(database: TestDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTWS_DATABASE_URL", database.url)
    monkeypatch.setenv("AGENTWS_MIGRATE_URL", database.owner_url)


@pytest.mark.usefixtures("on_database")
def test_each_kind_of_tool_is_stopped_and_nothing_is_left(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--runs=3"]) == 0
    out = capsys.readouterr().out
    for kind in ("coroutine", "thread", "process"):
        assert re.search(rf"^{kind}: agent_stopped +3 ( +[0-9.]+){{3}}$", out, re.MULTILINE)
        assert re.search(rf"^{kind}: the tool's end +3 ( +[0-9.]+){{3}}$", out, re.MULTILINE)
    assert "nothing was left" in out


@pytest.mark.usefixtures("on_database")
def test_a_process_that_goes_on_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def never(pid: int) -> float:
        raise TimeoutError

    monkeypatch.setattr(stop_times, "_gone", never)
    assert main(["--runs=1"]) == 1
    assert "process: a run or its tool was not stopped" in capsys.readouterr().err


def test_nothing_cannot_be_measured() -> None:
    with pytest.raises(SystemExit):
        main(["--runs=0"])
