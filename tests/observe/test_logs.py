"""Log lines: one an event on standard error, libraries from WARNING on, nothing that a stranger could fill it with."""

import logging
import re
from collections.abc import Iterator

import pytest

from agentws.observe.logs import configure

NAMES = ("agentws", "uvicorn.error")


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """What `configure` changes is global: it is put back after each test."""
    root = logging.getLogger()
    handlers, root.handlers = root.handlers, []
    levels = {each: each.level for each in (root, *map(logging.getLogger, NAMES))}
    filters = {each: list(each.filters) for each in map(logging.getLogger, NAMES)}
    yield
    root.handlers = handlers
    for logger, level in levels.items():
        logger.setLevel(level)
    for logger, kept in filters.items():
        logger.filters = kept


def test_a_line_tells_time_level_and_who(capsys: pytest.CaptureFixture[str]) -> None:
    configure()
    logging.getLogger("agentws.edge").info("connection %s opened", "conn-1")
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} INFO    agentws\.edge: connection conn-1 opened\n", err)


@pytest.mark.parametrize(
    ("level", "told"),
    [
        (logging.DEBUG, ["debug", "info", "warning", "error"]),
        (logging.INFO, ["info", "warning", "error"]),
        (logging.ERROR, ["error"]),
    ],
)
def test_the_server_tells_from_its_level_on_and_libraries_from_warning_on(
    level: int, told: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    configure(level)
    for name in ("agentws.runtime", "asyncpg"):
        for severity in ("debug", "info", "warning", "error"):
            getattr(logging.getLogger(name), severity)("%s of %s", severity, name)
    lines = [line.split(": ", 1)[1] for line in capsys.readouterr().err.splitlines()]
    assert lines == [f"{each} of agentws.runtime" for each in told] + ["warning of asyncpg", "error of asyncpg"]


@pytest.mark.parametrize("text", ["a\nb", "a\r\nb", "\n2024-05-06 07:08:09,000 ERROR   agentws: forged", "a\rb"])
def test_what_a_user_sent_begins_no_line_of_its_own(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    configure()
    logging.getLogger("agentws").warning("the user sent %s", text)
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "\r" not in err
    assert text.replace("\r", "\\r").replace("\n", "\\n") in err


def test_an_exception_is_told_with_its_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    configure()
    try:
        raise RuntimeError("what went wrong")
    except RuntimeError:
        logging.getLogger("agentws").exception("a run failed")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].endswith("ERROR   agentws: a run failed")
    assert lines[1] == "    Traceback (most recent call last):"
    assert lines[-1] == "    RuntimeError: what went wrong"


def test_what_a_user_sent_begins_no_line_also_with_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    configure()
    forged = "a\n2026-01-01 00:00:00,000 INFO    agentws: forged \x1b[2J\u2028"
    try:
        raise RuntimeError(forged)
    except RuntimeError:
        logging.getLogger("agentws").exception("run %s failed", forged)
    lines = capsys.readouterr().err.splitlines()
    assert [line.startswith("2026-01-01") for line in lines] == [False] * len(lines)
    assert lines[0].endswith(r"run a\n2026-01-01 00:00:00,000 INFO    agentws: forged \x1b[2J\u2028 failed")
    assert all(line.startswith("    ") for line in lines[1:])


def test_refused_upgrades_do_not_fill_the_log(capsys: pytest.CaptureFixture[str]) -> None:
    configure()
    logger = logging.getLogger("uvicorn.error")
    logger.error("ASGI callable returned without completing handshake.")
    logger.error("another trouble")
    assert [line.split(": ", 1)[1] for line in capsys.readouterr().err.splitlines()] == ["another trouble"]


def test_configuring_again_does_not_tell_everything_twice(capsys: pytest.CaptureFixture[str]) -> None:
    configure()
    configure()
    logging.getLogger("agentws").info("once")
    assert capsys.readouterr().err.count("once") == 1
