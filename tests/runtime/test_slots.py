"""Whatever becomes of a run here, the slot that it had is free again."""

from typing import Any

import pytest

import agentws
from agentws.runtime.worker import Worker

from ..conftest import StartService
from ..peers import peer


async def answer(run: agentws.Run) -> str:
    return "here"


async def test_work_that_is_dropped_before_its_first_step_gives_its_slot_back(
    start_service: StartService, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = Worker.start

    def start(worker: Worker, *args: Any, **how: Any) -> None:
        plain(worker, *args, **how)
        # The lease is lost in the same turn of the loop, as after a pause.
        worker.abandon_all()

    service = await start_service({"answer": answer}, max_runs=1)
    async with peer(service) as client:
        with monkeypatch.context() as patched:
            patched.setattr(Worker, "start", start)
            await client.ask("hi")
            assert service.worker is not None
            await service.worker.idle()
        assert service.worker.free == 1
        client.send(type="create_thread", thread_id="other")
        accepted = await client.ask("hi", thread_id="other")
        assert accepted["position"] == 0
        events = await client.ended(accepted["run_id"])
        assert events[-1]["type"] == "agent_completed"
