"""A recording as literals: one user's connections, frame by frame, with nothing wrong about it.

Three runs share the thread `main`: one that thinks, calls a tool and writes, one that waits behind it, and one that is
stopped while it waits. The thread `gone-1` is deleted and made anew.
"""

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

from scripts.chaos.plans import Call, Together, plan, request
from scripts.chaos.promises.evidence import seconds
from scripts.chaos.promises.story import thoughts, whole_text
from scripts.chaos.record import Recording

__all__ = ["LAST", "USER", "Frame", "Scene", "event", "record", "scene", "start"]

Frame = dict[str, Any]
USER = "chaos-1-1"
LAST = 13

TEXTS = {run: request(USER, f"key-{run}") for run in ("run-1", "run-2", "run-3", "run-4")}
AGENTS = {"run-1": "steady", "run-2": "echo", "run-3": "slow", "run-4": "slow"}


class Scene(dict[str, list[Frame]]):
    """Frames by connection. Those with `sent` were sent, with `closed` is the code of a close, others were told."""

    def told(self, connection: str, kind: str, number: int = 0) -> Frame:
        """The frame of that type that the connection was told, to be changed in place."""
        return [each for each in self[connection] if each.get("type") == kind and "sent" not in each][number]

    def asked(self, connection: str, kind: str, number: int = 0) -> Frame:
        return [each for each in self[connection] if each.get("type") == kind and "sent" in each][number]

    def everywhere(self, seq: int, thread_id: str = "main") -> Iterator[Frame]:
        """The event of that number, wherever it was told."""
        for frames in self.values():
            for each in frames:
                if each.get("seq") == seq and "event_id" in each and each["thread_id"] == thread_id:
                    yield each

    def at(self, connection: str, seq: int, thread_id: str = "main") -> int:
        """The place of the event in what the connection was told."""
        events = (place for place, each in enumerate(self[connection]) if "event_id" in each)
        return next(
            p for p in events if (self[connection][p]["seq"], self[connection][p]["thread_id"]) == (seq, thread_id)
        )

    def without(self, *seqs: int) -> None:
        """Takes events out everywhere, and numbers what comes after them anew."""
        for frames in self.values():
            frames[:] = [
                each
                for each in frames
                if not ("event_id" in each and each["thread_id"] == "main" and each["seq"] in seqs)
            ]


def time(second: float) -> str:
    return f"2026-01-01T00:00:{second:06.3f}Z"


def event(seq: int, kind: str, run_id: str, **payload: Any) -> Frame:
    told: Frame = {"type": kind, "event_id": f"{run_id}.1.{seq}", "seq": seq, "epoch": "e1", "timestamp": time(seq)}
    told |= {"user_id": USER, "thread_id": "main", "run_id": run_id, "request_id": f"req-{run_id}"}
    told |= {"agent_name": AGENTS.get(run_id, "echo"), "attempt": 1, "payload": payload}
    if kind.startswith("tool_"):
        told["tool_name"] = payload["tool_name"]
    if kind == "tool_completed":
        told["results"] = payload["result"]
    return told


def tool() -> Call:
    (step,) = (step for step in plan("steady", TEXTS["run-1"]) if isinstance(step, Together))
    return step.calls[0]


def main_events() -> list[Frame]:
    steps = plan("steady", TEXTS["run-1"])
    text, call, echo = whole_text(steps), tool(), TEXTS["run-2"]
    named = {"execution_id": "x1", "tool_name": call.name}
    done: Frame = {"success": True, "outcome": "done", "result": call.result, "error": None, "duration_ms": 3}
    return [
        event(1, "agent_started", "run-1", status="started", message=TEXTS["run-1"]),
        event(2, "agent_thinking", "run-1", reasoning=thoughts(steps)[0], step=1, offset=0),
        event(3, "agent_queued", "run-2", position=1),
        event(4, "agent_queued", "run-3", position=2),
        event(5, "tool_executing", "run-1", **named, parameters=call.parameters),
        event(6, "tool_completed", "run-1", **named, **done),
        event(7, "agent_message", "run-1", text=text[:10], offset=0),
        event(8, "agent_message", "run-1", text=text[10:], offset=10),
        event(9, "agent_stopped", "run-3", status="stopped", reason="user", response=None, duration_ms=1),
        event(10, "agent_completed", "run-1", response=text, status="completed", duration_ms=9),
        event(11, "agent_started", "run-2", status="started", message=echo),
        event(12, "agent_message", "run-2", text=echo, offset=0),
        event(13, "agent_completed", "run-2", response=echo, status="completed", duration_ms=1),
    ]


def gone_events() -> list[Frame]:
    stopped = {"status": "stopped", "reason": "thread_deleted", "response": None, "duration_ms": 1}
    events = [
        event(1, "agent_started", "run-4", status="started", message=TEXTS["run-4"]),
        event(2, "agent_stopped", "run-4", **stopped),
    ]
    return [{**each, "thread_id": "gone-1", "epoch": "g1"} for each in events]


def start(run: str, name: str, /, thread_id: str = "main", **options: Any) -> Frame:
    frame: Frame = {"sent": True, "type": "chat", "id": name, "message": TEXTS[run], "agent": AGENTS[run]}
    return {**frame, "thread_id": thread_id, "idempotency_key": f"key-{run}", **options}


def accepted(run_id: str, name: str, seq: int, **changes: Any) -> Frame:
    told: Frame = {"type": "request_accepted", "id": name, "timestamp": time(0), "request_id": f"req-{run_id}"}
    told |= {"thread_id": "main", "epoch": "e1", "run_id": run_id, "seq": seq, "duplicate": False}
    return {**told, "status": "running", "position": 0, **changes}


def established() -> Frame:
    told: Frame = {"type": "connection_established", "connection_id": "c1", "user_id": USER, "expires_at": None}
    return {**told, "protocol": "agentws.v1", "server_version": "1", "heartbeat_interval_s": 10, "limits": {}}


def asked(kind: str, name: str, **fields: Any) -> Frame:
    return {"sent": True, "type": kind, "id": name, **fields}


def answer(kind: str, name: str, **fields: Any) -> Frame:
    return {"type": kind, "id": name, "timestamp": time(0), **fields}


def thread(name: str, epoch: str, last_seq: int) -> Frame:
    told: Frame = {
        "thread_id": name,
        "title": None,
        "metadata": {},
        "created_at": time(0),
        "updated_at": time(last_seq),
    }
    return {**told, "epoch": epoch, "last_seq": last_seq, "running_run_id": None}


def subscribed(name: str, last: int, *, after: int = 0, thread_id: str = "main", epoch: str = "e1") -> Frame:
    fields = {"thread_id": thread_id, "epoch": epoch, "first_seq": 1, "last_seq": last}
    return answer("subscribed", name, **fields, after_seq=after, recovered=True)


def caught_up(name: str, seq: int, thread_id: str = "main") -> Frame:
    return answer("caught_up", name, thread_id=thread_id, seq=seq)


def history(name: str, last: int) -> Frame:
    def message(role: str, run_id: str, status: str, seq: int, content: str) -> Frame:
        told = {"message_id": f"{role}-{run_id}", "role": role, "content": content, "run_id": run_id}
        return {**told, "status": status, "seq": seq, "created_at": time(seq)}

    text = whole_text(plan("steady", TEXTS["run-1"]))
    ended = [
        message("user", "run-1", "completed", 1, TEXTS["run-1"]),
        message("assistant", "run-1", "completed", 10, text),
        message("user", "run-2", "completed", 11, TEXTS["run-2"]),
        message("assistant", "run-2", "completed", 13, TEXTS["run-2"]),
        message("user", "run-3", "stopped", 4, TEXTS["run-3"]),
    ]
    at_work = [
        message("user", "run-1", "running", 1, TEXTS["run-1"]),
        message("user", "run-2", "queued", 3, TEXTS["run-2"]),
    ]
    messages, resume_after = (ended, last) if last == LAST else (at_work, 0)
    fields = {"thread_id": "main", "epoch": "e1", "last_seq": last, "resume_after": resume_after}
    return answer("thread_history", name, **fields, messages=messages, next_before=None)


def threads(name: str) -> Frame:
    return answer(
        "thread_list", name, threads=[thread("main", "e1", LAST), thread("gone-1", "g2", 0)], next_before=None
    )


def at_work() -> dict[str, list[Frame]]:
    """The connections that were there while the runs were at work."""
    events, gone = main_events(), gone_events()
    merged = {**events[7], "from_seq": 7, "payload": {"text": whole_text(plan("steady", TEXTS["run-1"])), "offset": 0}}
    again = {"duplicate": True, "status": "completed"}
    waits = {"status": "queued"}
    return {
        "live": [
            established(),
            *(
                asked("create_thread", "q1", thread_id="main"),
                answer("thread_created", "q1", thread=thread("main", "e1", 0)),
            ),
            *(start("run-1", "q2", if_busy="queue"), accepted("run-1", "q2", 0), *events[:2]),
            *(start("run-2", "q3"), accepted("run-2", "q3", 2, **waits, position=1), events[2]),
            *(start("run-3", "q4", run_id="run-3"), accepted("run-3", "q4", 3, **waits, position=2)),
            *events[3:8],
            asked("stop_agent", "q5", run_id="run-3"),
            answer("stop_accepted", "q5", run_ids=["run-3"], already_ended=[]),
            *events[8:],
        ],
        "resumed": [
            established(),
            asked("get_thread_history", "q1", thread_id="main"),
            history("q1", 3),
            asked("subscribe", "q2", thread_id="main", after_seq=6, epoch="e1"),
            *(subscribed("q2", 8, after=6), merged, caught_up("q2", 8), *events[8:]),
        ],
        "repeated": [established(), start("run-1", "q1"), accepted("run-1", "q1", 0, **again)],
        "deleting": [
            established(),
            *(
                asked("create_thread", "q1", thread_id="gone-1"),
                answer("thread_created", "q1", thread=thread("gone-1", "g1", 0)),
            ),
            *(
                start("run-4", "q2", "gone-1"),
                accepted("run-4", "q2", 0, thread_id="gone-1", epoch="g1"),
                gone[0],
            ),
            asked("delete_thread", "q3", thread_id="gone-1"),
            *(gone[1], answer("thread_deleted", "q3", thread_id="gone-1")),
            *(
                asked("create_thread", "q4", thread_id="gone-1"),
                answer("thread_created", "q4", thread=thread("gone-1", "g2", 0)),
            ),
            start("run-4", "q5", "gone-1", subscribe=False),
            accepted("run-4", "q5", 0, thread_id="gone-1", epoch="g1", duplicate=True, status="stopped"),
        ],
    }


def last_reading() -> dict[str, list[Frame]]:
    """The connections that read everything when it was over."""
    events = main_events()
    return {
        "final": [
            established(),
            asked("subscribe", "q1", thread_id="main", after_seq=0),
            *(subscribed("q1", LAST), *events, caught_up("q1", LAST)),
            *(asked("unsubscribe", "q2", thread_id="main"), answer("unsubscribed", "q2", thread_id="main")),
            asked("subscribe", "q3", thread_id="gone-1"),
            *(subscribed("q3", 0, thread_id="gone-1", epoch="g2"), caught_up("q3", 0, "gone-1")),
            *(asked("get_thread_history", "q4", thread_id="main", limit=40), history("q4", LAST)),
            *(asked("list_threads", "q5", limit=40), threads("q5")),
        ],
        "page": [asked("subscribe", "h1", thread_id="main", after_seq=0), subscribed("h1", LAST), *events],
        "http": [
            *(asked("get_thread_history", "h1", thread_id="main", limit=200), history("h1", LAST)),
            *(asked("list_threads", "h2", limit=200), threads("h2")),
        ],
    }


def scene() -> Scene:
    """The recording, to be changed and recorded."""
    frames = {**at_work(), **last_reading()}
    return Scene({name: [deepcopy(each) for each in told] for name, told in frames.items()})


def record(scene: Scene) -> Recording:
    """What the clients would have kept of it."""
    recording = Recording()
    call = tool()
    place = {"user_id": USER, "run_id": "run-1", "attempt": 1, "tool": call.name, "call": call.parameters["call"]}
    recording.tool_calls = [{**place, "time": 0.0}]
    for name, frames in scene.items():
        via = name if name in ("page", "http") else "ws"
        log = recording.log(USER, via, final=name in ("final", "page", "http"))
        log.open_at_end = name == "resumed"
        for frame in frames:
            if "sent" in frame:
                log.sent({key: value for key, value in frame.items() if key != "sent"})
            elif "closed" in frame:
                log.closed(frame["closed"], "", by_client=False)
            else:
                log.got(frame, at=seconds(frame.get("timestamp", "")))
    return recording
