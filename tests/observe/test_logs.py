"""Log lines: one an event on standard error, libraries from WARNING on, nothing that a stranger could fill it with."""

import asyncio
import json
import logging
import re
from typing import Any

import pytest
import structlog

from agentws.observe.logs import bound, configure

pytestmark = pytest.mark.usefixtures("logging_as_before")


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


# As JSON


def told(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """The lines so far; each is an object."""
    return [json.loads(line) for line in capsys.readouterr().err.split("\n")[:-1]]


def test_as_json_a_line_is_an_object(capsys: pytest.CaptureFixture[str]) -> None:
    configure(form="json")
    logging.getLogger("agentws.edge").info("connection %s opened", "conn-1")
    (line,) = told(capsys)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("timestamp"))
    assert line == {"level": "info", "logger": "agentws.edge", "event": "connection conn-1 opened"}


@pytest.mark.parametrize(
    "text", ["a\nb", '", "level": "error", "x": "', "a\r\n{}", "\u2028", "\x1b[2J", "\ud800", "\\", "{'a': 1}"]
)
def test_as_json_what_a_user_sent_is_neither_a_line_nor_a_field(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    configure(form="json")
    try:
        raise RuntimeError(text)
    except RuntimeError:
        logging.getLogger("agentws").exception("the user sent %s", text)
    (line,) = told(capsys)
    assert set(line) == {"timestamp", "level", "logger", "event", "exception"}
    assert line["event"] == f"the user sent {text}"
    assert line["exception"].startswith("Traceback (most recent call last):\n")
    assert line["exception"].endswith(f"RuntimeError: {text}".rstrip("\n"))


def test_a_field_cannot_take_the_place_of_what_the_server_says(capsys: pytest.CaptureFixture[str]) -> None:
    configure(form="json")
    with bound(run_id="run-1"):
        structlog.get_logger("agentws").warning("hi", run_id="run-2", level="debug", logger="x", timestamp="never")
    (line,) = told(capsys)
    assert (line["run_id"], line["level"], line["logger"]) == ("run-1", "warning", "agentws")
    assert line["timestamp"] != "never"


# Ids


@pytest.mark.parametrize("form", ["text", "json"])
def test_lines_carry_the_ids_that_are_bound_and_no_others(form: Any, capsys: pytest.CaptureFixture[str]) -> None:
    configure(form=form)
    log = logging.getLogger("asyncpg")
    with bound(connection_id="conn-1"):
        with bound(run_id="run-1", request_id="req-1", connection_id=None):
            log.warning("of a run")
        log.warning("of a connection")
    log.warning("of nobody")
    lines = capsys.readouterr().err.splitlines()
    if form == "text":
        assert [line.split(": ", 1)[1] for line in lines] == [
            "of a run [request_id=req-1 run_id=run-1]",
            "of a connection [connection_id=conn-1]",
            "of nobody",
        ]
    else:
        ids = [{name: value for name, value in json.loads(line).items() if name.endswith("_id")} for line in lines]
        assert ids == [{"run_id": "run-1", "request_id": "req-1"}, {"connection_id": "conn-1"}, {}]


def test_a_correlation_id_is_a_field_and_what_else_a_library_adds_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    configure(form="json")
    logging.getLogger("agentws").error("no", extra={"correlation_id": "c-1", "websocket": object(), "run_id": "x"})
    (line,) = told(capsys)
    assert {name: value for name, value in line.items() if name not in ("timestamp", "level", "logger", "event")} == {
        "correlation_id": "c-1"
    }


def test_ids_end_with_their_block_also_when_it_fails(capsys: pytest.CaptureFixture[str]) -> None:
    configure(form="json")
    with pytest.raises(RuntimeError), bound(run_id="run-1"):
        raise RuntimeError
    logging.getLogger("agentws").info("after it")
    assert "run_id" not in told(capsys)[0]


async def test_what_is_begun_in_a_block_keeps_its_ids(capsys: pytest.CaptureFixture[str]) -> None:
    configure(form="json")
    go_on = asyncio.Event()

    async def work() -> None:
        await go_on.wait()
        await asyncio.to_thread(logging.getLogger("agentws").info, "later")

    with bound(run_id="run-1"):
        task = asyncio.create_task(work())
    with bound(run_id="run-2"):
        go_on.set()
        await task
    (line,) = told(capsys)
    assert line["run_id"] == "run-1"


# structlog's own loggers, which an agent may use


def test_structlog_s_loggers_come_out_the_same_way(capsys: pytest.CaptureFixture[str]) -> None:
    configure()
    log = structlog.get_logger("agentws.mine")
    with bound(run_id="run-1"), structlog.contextvars.bound_contextvars(run_id="run-3", step="one"):
        log.info("found %d", 3, city="Oslo\nForged", run_id="run-2")
        log.debug("not told")
    try:
        raise RuntimeError("what went wrong")
    except RuntimeError:
        log.exception("failed")
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert out == ""
    assert lines[0].endswith(r"INFO    agentws.mine: found 3 [city=Oslo\nForged run_id=run-1 step=one]")
    assert lines[1].endswith("ERROR   agentws.mine: failed")
    assert lines[2] == "    Traceback (most recent call last):"
    assert lines[-1] == "    RuntimeError: what went wrong"
