"""A line of a run, also one that its agent or a tool logs, carries the run's ids and no other run's."""

import asyncio
import json
import logging

import pytest

import agentws
from agentws.observe.logs import configure

from ..conformance.client import dial
from ..conformance.tokens import bearer, token
from ..conftest import StartService
from ..peers import peer
from ..processes import ServerProcess
from .reading import until

pytestmark = pytest.mark.usefixtures("logging_as_before")


async def test_each_run_s_lines_carry_its_own_ids_also_when_one_task_works_on_both(
    start_service: StartService, capsys: pytest.CaptureFixture[str]
) -> None:
    gate = asyncio.Event()

    def tool() -> None:
        logging.getLogger("a.tool").warning("in a thread")

    async def chatty(run: agentws.Run) -> None:
        await gate.wait()
        logging.getLogger("an.agent").warning("at work")
        await run.call_tool("tool", tool)

    service = await start_service({"chatty": chatty})
    configure(form="json")
    async with peer(service) as one, peer(service) as other:
        first = await one.ask("first")
        second = await other.ask("second", thread_id=first["thread_id"])
        assert second["status"] == "queued"
        gate.set()
        await other.ended(second["run_id"])
        connection_id = one.frames[0]["connection_id"]
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    told = [line for line in lines if line["logger"] in ("an.agent", "a.tool")]
    assert [(line["logger"], line["run_id"], line["request_id"]) for line in told] == [
        (logger, run["run_id"], run["request_id"]) for run in (first, second) for logger in ("an.agent", "a.tool")
    ]
    assert {line["thread_id"] for line in told} == {first["thread_id"]}
    # The first run's connection is known where it was accepted; the second was claimed by the end of the first.
    assert [line.get("connection_id") for line in told] == [connection_id, connection_id, None, None]
    assert not [line for line in lines if "ada" in json.dumps(line)]


async def test_what_fails_is_logged_with_a_correlation_id_of_its_own(
    start_service: StartService, capsys: pytest.CaptureFixture[str]
) -> None:
    service = await start_service()
    configure(form="json")
    async with peer(service) as client:
        events = [await client.run("hi", agent="fail") for _ in range(2)]
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    failed = [line for line in lines if "exception" in line]
    assert [line["run_id"] for line in failed] == [each[0]["run_id"] for each in events]
    assert all("secret-internal-text" in line["exception"] for line in failed)
    assert len({line["correlation_id"] for line in failed}) == 2


async def test_a_server_in_staging_logs_json(jwt_server: ServerProcess) -> None:
    async with dial(jwt_server.ws_url, headers=bearer(token(jwt_server, "ada"))):
        await until(lambda: any("opened" in line for line in jwt_server.log))
    assert all({"timestamp", "level", "logger", "event"} <= json.loads(line).keys() for line in jwt_server.log)
