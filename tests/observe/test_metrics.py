"""Every metric has a test that shows it move; each service has its own; no label holds what a user chose."""

import ast
import re
from pathlib import Path

from agentws.observe.live import Live
from agentws.observe.meters import CLIENT_TYPES
from agentws.observe.metrics import CONTENT_TYPE
from agentws.wire.codec import TYPES

from ..conftest import StartService
from ..peers import peer
from .reading import families, value

# How a family's name goes on in the samples that it has.
SUFFIXES = ("_total", "_count", "_sum", "_bucket")


def shown() -> set[str]:
    """The families whose samples the tests of this directory hold to have moved."""
    names: set[str] = set()
    for file in Path(__file__).parent.glob("test_*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            match node:
                case ast.Call(func=ast.Name(id="moved"), args=[_, ast.Constant(value=str() as sample), *_]):
                    suffix = next((each for each in SUFFIXES if sample.endswith(each)), "")
                    names.add(sample.removesuffix(suffix))
    return names


async def test_every_metric_has_a_test_that_shows_it_move(start_service: StartService) -> None:
    service = await start_service()
    # The pool's size is a setting: its test is one of two services that differ in it.
    assert set(families(service)) == shown() | {"agentws_pool_size"}


async def test_every_metric_says_what_it_is_and_in_which_unit(start_service: StartService) -> None:
    service = await start_service()
    text = service.metrics.render().decode()
    for name, kind in families(service).items():
        assert name.startswith("agentws_")
        helps = re.findall(rf"^# HELP {name}(?:_total)? .*$", text, re.MULTILINE)
        assert len(helps) == 1
        assert helps[0].endswith(".")
        assert kind != "histogram" or name.endswith(("_seconds", "_events"))
    assert CONTENT_TYPE.startswith("text/plain; version=0.0.4")


async def test_two_services_in_a_process_do_not_mix(start_service: StartService) -> None:
    one, other = await start_service(), await start_service()
    async with peer(one) as client:
        await client.run("hi", agent="echo")
    assert value(one, "agentws_runs_ended_total", agent="echo", outcome="completed") == 1
    assert value(other, "agentws_runs_ended_total", agent="echo", outcome="completed") == 0
    assert one.statistics.read()["runs_completed"] == 1
    assert other.statistics.read()["runs_completed"] == 0


async def test_nothing_that_a_user_chose_is_in_them(start_service: StartService) -> None:
    service = await start_service()
    async with peer(service, "user-e1f") as client:
        await client.run("text-a77", agent="tool", run_id="run-b52", idempotency_key="key-c03")
        client.send(type="create_thread", thread_id="thread-d94")
        await client.until_type("thread_created")
        await client.run("text-a77", agent="echo", thread_id="thread-d94")
        client.send(type="type-f60")
        client.send(type="subscribe", thread_id="thread-g71")
        await client.until_type("error")
    text = service.metrics.render().decode()
    assert not [word for word in ("e1f", "a77", "b52", "c03", "d94", "f60", "g71") if word in text]


def test_the_types_of_client_frames_are_all_known() -> None:
    assert set(TYPES) <= CLIENT_TYPES


def test_what_is_alive_is_counted_by_identity_and_kept_by_nobody() -> None:
    class Thing:
        __hash__ = None  # type: ignore[assignment]

        def __eq__(self, other: object) -> bool:
            return True

    live = Live()
    one, two = Thing(), Thing()
    live.add(one)
    live.add(two)
    live.add(two)
    assert len(live) == 2
    del one
    assert len(live) == 1
    del two
    assert len(live) == 0
