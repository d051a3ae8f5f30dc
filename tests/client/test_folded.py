"""A client holds and shows the same of events that were merged, also of one that begins before what it holds."""

import json
from collections.abc import Iterable

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from agentws.client.fold import RunFold
from agentws.client.frames import read
from agentws.client.reader import Cursor
from agentws.client.reader import Event as Told
from agentws.client.view import ThreadView
from agentws.core.fold import merge
from agentws.core.framing import frame

from ..histories import Event, threads


class Client:
    """What a client makes of a thread: runs put together, and lines of a terminal."""

    def __init__(self) -> None:
        self.runs: dict[str, RunFold] = {}
        self.lines: list[str] = []
        self._cursor = Cursor(epoch="e", seq=0)
        self._view = ThreadView(20)

    @property
    def seq(self) -> int:
        return self._cursor.seq

    def take(self, events: Iterable[Event]) -> "Client":
        for each in events:
            told = read(frame(*each))
            assert isinstance(told, Told)
            if (new := self._cursor.take(told)) is not None:
                self.runs.setdefault(new.run_id, RunFold(new.run_id)).feed(new)
                self.lines += ["".join(text for _, text in line) for line in self._view.feed(new)]
        return self

    def held(self) -> list[object]:
        runs = [(run.attempt, run.text, run.thinking, run.tools, run.response) for run in self.runs.values()]
        return [json.loads(msgspec.json.encode(runs)), self.lines]


@settings(database=None, deadline=None)
@given(threads(), st.integers(0, 60))
def test_a_client_makes_the_same_of_merged_events(events: list[Event], after: int) -> None:
    whole = Client().take(events).held()
    merged = merge(events)
    assert Client().take(merged).held() == whole
    resumed = Client().take(events[:after])
    assert resumed.take(event for event in merged if event[1].seq > resumed.seq).held() == whole
