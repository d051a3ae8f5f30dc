"""The checker of the chaos harness finds each breach of the protocol in a recording, and none in a good one."""

from collections.abc import Callable
from typing import Any

import pytest

from scripts.chaos.checker import check
from scripts.chaos.record import Recording
from tests.scripts.chaos_scene import LAST, USER, Frame, Scene, event, record, scene, start

Breach = Callable[[Scene], object]


def change(frame: Frame, **fields: Any) -> None:
    """Changes the payload of an event, or the fields of another frame."""
    (frame["payload"] if "event_id" in frame else frame).update(fields)


def every(told: Scene, seq: int, **payload: Any) -> None:
    for each in told.everywhere(seq):
        change(each, **payload)


def each_frame(told: Scene, seq: int, **fields: Any) -> None:
    for each in told.everywhere(seq):
        each.update(fields)


def instead(told: Scene, seq: int, other: Frame) -> None:
    """Another event at that number, wherever it was told."""
    for each in told.everywhere(seq):
        each.clear()
        each.update(other)


def after(told: Scene, connection: str, seq: int, *frames: Frame) -> None:
    place = told.at(connection, seq) + 1
    told[connection][place:place] = frames


def drop(told: Scene, connection: str, kind: str, number: int = 0) -> None:
    told[connection].remove(told.told(connection, kind, number))


def at_the_end(told: Scene, *events: Frame) -> None:
    """Further events of `main`, as the last reading has them; the other readers do not matter then."""
    for connection in ("final", "page"):
        subscribed = told.told(connection, "subscribed")
        subscribed["last_seq"] = LAST + len(events)
        after(told, connection, LAST, *events)
    told.told("final", "caught_up")["seq"] = LAST + len(events)


def error(told: Scene, connection: str, kind: str, code: str, *, retryable: bool = False) -> None:
    """A question more, and an error for an answer."""
    failed = {"type": "error", "id": "qe", "code": code, "message": "No.", "retryable": retryable}
    told[connection] += [{"sent": True, "type": kind, "id": "qe", "thread_id": "main"}, failed]


def start_again(told: Scene, answer: Frame, **content: Any) -> None:
    told["repeated"] += [
        {**start("run-1", "q9"), **content},
        {**told.told("repeated", "request_accepted"), **answer, "id": "q9"},
    ]


def swap(told: Scene, connection: str, first: int, second: int) -> None:
    frames = told[connection]
    frames[first], frames[second] = frames[second], frames[first]


def unlive(told: Scene, run_id: str = "run-9", **changes: Any) -> Frame:
    """The start of one more run, at the end."""
    text = {"status": "started", "message": changes.pop("message", "nobody's")}
    return {**event(LAST + 1, "agent_started", run_id, **text), **changes}


def gap(told: Scene) -> None:
    del told["resumed"][told.at("resumed", 10)]


def twice(told: Scene) -> None:
    after(told, "live", 10, dict(told["live"][told.at("live", 10)]))


def overlapping(told: Scene) -> None:
    merged = told["resumed"][told.at("resumed", 8)]
    told["live"][told.at("live", 8)] = dict(merged)


def after_unsubscribing(told: Scene) -> None:
    after(
        told,
        "live",
        12,
        {"type": "unsubscribed", "id": "q9", "timestamp": "2026-01-01T00:00:00.000Z", "thread_id": "main"},
    )


def accepted_late(told: Scene) -> None:
    place = told["live"].index(told.told("live", "request_accepted", 1))
    swap(told, "live", place, place + 1)


def caught_up_early(told: Scene) -> None:
    place = told["resumed"].index(told.told("resumed", "caught_up"))
    swap(told, "resumed", place, place - 1)


def lost_and_not_restarted(told: Scene) -> None:
    response = told["live"][told.at("live", 10)]["payload"]["response"]
    lost = {"code": "worker_lost", "message": "Lost.", "retryable": True, "response": response, "duration_ms": 1}
    instead(told, 10, event(10, "agent_error", "run-1", **lost))


def started_again(told: Scene) -> None:
    again = event(12, "agent_started", "run-2", status="started", message=told["live"][-3]["payload"]["message"])
    instead(told, 12, {**again, "attempt": 2})


def two_at_work(told: Scene) -> None:
    instead(told, 9, event(9, "agent_started", "run-2", status="started", message=start("run-2", "q")["message"]))


def behind_its_place(told: Scene) -> None:
    for connection in told:
        for each in told[connection]:
            if "event_id" in each and each["seq"] in (9, 11):
                each["run_id"] = {9: "run-3", 11: "run-3"}[each["seq"]]
    instead(told, 9, event(9, "agent_event", "run-1", name="chaos.note", value=1))


def interrupting(told: Scene) -> None:
    told.asked("live", "chat", 2)["if_busy"] = "interrupt"


def stopped_late(told: Scene) -> None:
    told.told("live", "stop_accepted").update(run_ids=["run-2"])
    told.asked("live", "stop_agent")["run_id"] = "run-2"


def without_end(told: Scene) -> None:
    told.without(13)
    for connection in ("final", "page"):
        told.told(connection, "subscribed")["last_seq"] = 12
    told.told("final", "caught_up")["seq"] = 12


def another_epoch(told: Scene) -> None:
    for connection in ("final", "page"):
        for each in told[connection]:
            if each.get("epoch") == "e1":
                each["epoch"] = "e2"


def ran_twice(told: Scene) -> None:
    at_the_end(told, unlive(told, "run-2b", message=start("run-2", "q")["message"]))


def refused_and_ran(told: Scene) -> None:
    answer = told.told("live", "request_accepted", 1)
    place = told["live"].index(answer)
    told["live"][place] = {"type": "error", "id": "q3", "code": "thread_busy", "message": "Busy.", "retryable": True}


def uncalled(recording: Recording) -> None:
    recording.tool_calls[0]["call"] = 99


BREACHES: list[tuple[str, str, Breach]] = [
    ("fields", "an event without request_id", lambda told: told["live"][told.at("live", 2)].pop("request_id")),
    (
        "fields",
        "an event without payload field",
        lambda told: [each["payload"].pop("step") for each in told.everywhere(2)],
    ),
    ("fields", "an answer without position", lambda told: told.told("live", "request_accepted").pop("position")),
    ("fields", "a time without milliseconds", lambda told: each_frame(told, 5, timestamp="2026-01-01T00:00:05Z")),
    ("fields", "a tool event without tool_name", lambda told: told["live"][told.at("live", 5)].pop("tool_name")),
    ("fields", "tool_completed without results", lambda told: told["live"][told.at("live", 6)].pop("results")),
    ("fields", "a thread without title", lambda told: told.told("live", "thread_created")["thread"].pop("title")),
    ("fields", "limits without a time", lambda told: told["live"].append({"type": "draining"})),
    ("frames", "established second", lambda told: swap(told, "resumed", 0, 2)),
    ("isolation", "another's event", lambda told: told["live"][told.at("live", 2)].update(user_id="chaos-1-2")),
    ("isolation", "another's connection", lambda told: change(told["live"][0], user_id="chaos-1-2")),
    ("errors", "not found without reason", lambda told: error(told, "live", "unsubscribe", "thread_not_found")),
    ("errors", "an error of no catalogue", lambda told: error(told, "live", "subscribe", "oops")),
    ("errors", "retryable otherwise", lambda told: error(told, "live", "subscribe", "database_unavailable")),
    ("errors", "an internal error", lambda told: error(told, "live", "ping", "internal_error", retryable=True)),
    ("errors", "a limit without a time", lambda told: error(told, "live", "ping", "rate_limited", retryable=True)),
    ("closes", "too many connections", lambda told: told["live"].append({"closed": 4409})),
    ("dense", "a number left out", gap),
    ("once", "a number twice", twice),
    ("once", "a merged event over what was told", overlapping),
    ("subscriptions", "an event after unsubscribing", after_unsubscribing),
    ("epochs", "an event of another epoch", lambda told: told["live"][told.at("live", 12)].update(epoch="e0")),
    (
        "epochs",
        "made anew as it was",
        lambda told: told.told("deleting", "thread_created", 1)["thread"].update(epoch="g1"),
    ),
    ("recovered", "another epoch, recovered", lambda told: change(told.asked("resumed", "subscribe"), epoch="e0")),
    ("subscribed", "from where nobody asked", lambda told: change(told.told("resumed", "subscribed"), after_seq=5)),
    ("caught_up", "before all was told", caught_up_early),
    ("caught_up", "never", lambda told: drop(told, "resumed", "caught_up")),
    ("live", "a connection left behind", lambda told: told["resumed"].pop()),
    ("unchanged", "another response", lambda told: change(told["live"][told.at("live", 13)], response="other")),
    ("unchanged", "another id", lambda told: told["live"][told.at("live", 7)].update(event_id="other")),
    (
        "unchanged",
        "another time",
        lambda told: told["page"][told.at("page", 11)].update(timestamp="2026-01-01T00:00:12.000Z"),
    ),
    (
        "unchanged",
        "a merged piece that ends elsewhere",
        lambda told: change(told["resumed"][told.at("resumed", 8)], text="<"),
    ),
    ("unchanged", "a merge of what is never merged", lambda told: each_frame(told, 10, from_seq=9)),
    ("nothing lost", "the last number is gone", lambda told: told["final"].pop(told.at("final", LAST))),
    ("nothing lost", "an epoch is gone", another_epoch),
    ("pages", "pages end before", lambda told: told["page"].pop()),
    ("one end", "two ends", lambda told: instead(told, 12, {**told["live"][-1], "seq": 12, "event_id": "twelve"})),
    ("one end", "an event after the end", lambda told: each_frame(told, 11, run_id="run-1")),
    ("ends", "no end", without_end),
    (
        "ends",
        "no end in a thread that is gone",
        lambda told: change(told.told("deleting", "request_accepted", 1), status="running"),
    ),
    ("times", "back in time", lambda told: each_frame(told, 9, timestamp="2026-01-01T00:00:01.000Z")),
    ("text", "a letter of the answer", lambda told: every(told, 7, text="<chaos-1-2")),
    ("text", "another thought", lambda told: every(told, 2, reasoning="else")),
    ("text", "another question", lambda told: every(told, 1, message="else")),
    ("plan", "another response", lambda told: every(told, 13, response="other")),
    ("plan", "a hole in the text", lambda told: every(told, 8, offset=11)),
    (
        "plan",
        "a tool before its thought",
        lambda told: instead(told, 2, event(2, "agent_event", "run-1", name="a.b", value=1)),
    ),
    ("attempts", "the second first", lambda told: each_frame(told, 1, attempt=2)),
    ("attempts", "again what must not", started_again),
    ("attempts", "lost and not again", lost_and_not_restarted),
    ("attempts", "an event of another attempt", lambda told: each_frame(told, 7, attempt=2)),
    ("tools", "other parameters", lambda told: every(told, 5, parameters={})),
    ("tools", "another execution ends", lambda told: every(told, 6, execution_id="x2")),
    (
        "tools",
        "another result",
        lambda told: [each["payload"].update(result={"found": 1}) for each in told.everywhere(6)],
    ),
    ("plan", "a tool left open", lambda told: instead(told, 6, event(6, "agent_message", "run-1", text="<", offset=0))),
    ("stops", "nobody stopped it", lambda told: change(told.asked("live", "stop_agent"), run_id="run-9")),
    ("stops", "another was stopped", lambda told: change(told.told("live", "stop_accepted"), run_ids=["run-1"])),
    ("stops", "stopped, and went on", stopped_late),
    ("keys", "a key with two runs", lambda told: change(told.told("repeated", "request_accepted"), request_id="req-0")),
    ("keys", "accepted twice", lambda told: change(told.told("repeated", "request_accepted"), duplicate=False)),
    ("keys", "other content accepted", lambda told: change(told.asked("repeated", "chat"), agent="echo")),
    ("keys", "two keys with one run", lambda told: change(told.asked("repeated", "chat"), idempotency_key="other")),
    (
        "keys",
        "a conflict with itself",
        lambda told: start_again(told, {"type": "error", "code": "idempotency_conflict"}),
    ),
    ("keys", "run twice, told once", ran_twice),
    ("keys", "refused, and run", refused_and_ran),
    ("starts", "never started", lambda told: at_the_end(told, unlive(told))),
    ("accepted", "another number", lambda told: change(told.told("live", "request_accepted", 1), seq=1)),
    ("accepted", "its event before it", accepted_late),
    (
        "accepted",
        "queued without a position",
        lambda told: change(told.told("live", "request_accepted", 1), position=0),
    ),
    ("accepted", "another run_id", lambda told: change(told.asked("live", "chat", 2), run_id="run-x")),
    ("queue", "two at work", two_at_work),
    ("queue", "started before its turn", behind_its_place),
    ("queue", "the interrupting one behind", interrupting),
    ("queue", "another position", lambda told: every(told, 4, position=1)),
    (
        "history",
        "another status",
        lambda told: change(told.told("resumed", "thread_history")["messages"][0], status="queued"),
    ),
    ("history", "a message less", lambda told: told.told("final", "thread_history")["messages"].pop()),
    ("history", "another order", lambda told: told.told("http", "thread_history")["messages"].reverse()),
    ("resume_after", "too far", lambda told: change(told.told("resumed", "thread_history"), resume_after=3)),
    ("lists", "a thread less", lambda told: told.told("final", "thread_list")["threads"].pop()),
    (
        "lists",
        "a thread twice",
        lambda told: told.told("http", "thread_list")["threads"].append(told.told("http", "thread_list")["threads"][0]),
    ),
    ("lists", "another order", lambda told: told.told("final", "thread_list")["threads"].reverse()),
    ("lists", "at another number", lambda told: change(told.told("http", "thread_list")["threads"][0], last_seq=12)),
]


def test_nothing_is_found_in_a_good_recording() -> None:
    assert check(record(scene())) == []


@pytest.mark.parametrize(("promise", "breach"), [pytest.param(p, b, id=f"{p}: {what}") for p, what, b in BREACHES])
def test_a_breach_is_found(promise: str, breach: Breach) -> None:
    told = scene()
    breach(told)
    found = check(record(told))
    assert promise in {finding.promise for finding in found}, found
    assert {finding.user for finding in found} == {USER}


def test_a_tool_that_was_called_without_being_told_is_found() -> None:
    recording = record(scene())
    uncalled(recording)
    found = [finding.detail for finding in check(recording) if finding.promise == "tool calls"]
    assert len(found) == 2  # The one that was told was not called, either.
    assert any("was called 1 times, told 0 times" in detail for detail in found)


def test_a_tool_that_was_called_twice_is_found() -> None:
    recording = record(scene())
    recording.tool_calls *= 2
    assert [finding.promise for finding in check(recording)] == ["tool calls"]


def test_a_text_with_the_marker_of_another_user_is_found() -> None:
    recording = record(scene())
    recording.logs[0].heard(
        '{"type":"pong","id":null,"timestamp":"2026-01-01T00:00:00.000Z","payload":"<chaos-1-2> k"}'
    )
    assert [finding.promise for finding in check(recording)] == ["isolation"]


def test_a_frame_that_is_no_object_is_found() -> None:
    recording = record(scene())
    recording.logs[0].heard("[1]")
    assert [finding.promise for finding in check(recording)] == ["frames"]


@pytest.mark.parametrize("code", [1001, 1006, 1012, 1013])
def test_a_server_may_go_away(code: int) -> None:
    told = scene()
    told["live"].append({"closed": code})
    assert check(record(told)) == []


def test_an_id_of_the_server_that_two_users_meet_is_found() -> None:
    recording = record(scene())
    other = recording.log("chaos-1-2", "http")
    other.sent({key: value for key, value in start("run-1", "h1").items() if key != "sent"})
    other.got({**scene().told("live", "request_accepted"), "id": "h1"})
    assert "isolation" in {finding.promise for finding in check(recording)}
