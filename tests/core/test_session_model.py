"""A connection's session against a model: any frames in any order, threads made current, deleted and made anew.

The model is three names: the current thread, the reserved one, and the one of the handshake.
"""

import json
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from agentws.core.context import Principal
from agentws.core.session import Command, Reply, Session
from agentws.wire.answers import Error, HandshakeComplete, HeartbeatAck, Pong
from agentws.wire.errors import Refusal
from agentws.wire.ids import ConnectionId, ThreadId, ThreadNo
from agentws.wire.messages import Start

NOW = "2024-05-06T07:08:09.123Z"
RESERVED = "thr-reserved"
threads = st.sampled_from([RESERVED, "a", "b"])
frame_ids = st.none() | st.sampled_from(["1", "two"])
limits = st.none() | st.just("rate_limited")


class SessionModel(RuleBasedStateMachine):
    @initialize(original=st.booleans())
    def begin(self, original: bool) -> None:
        self.original = original
        reserved = (ThreadId(RESERVED), ThreadNo(7)) if original else None
        self.session = Session(Principal("acme", "me"), ConnectionId("conn-1"), reserved)
        self.current = RESERVED if original else None
        self.is_reserved = original

    def receive(self, frame: dict[str, Any], frame_id: str | None, limit: str | None = None) -> Reply | Command:
        refusal = None if limit is None else Refusal(limit, retry_after_ms=50)
        text = json.dumps(frame if frame_id is None else frame | {"id": frame_id})
        return self.session.receive_text(text, NOW, refusal)

    def refused(self, step: Reply | Command, code: str, frame_id: str | None) -> None:
        assert isinstance(step, Reply)
        assert isinstance(step.frame, Error)
        assert (step.frame.code, step.frame.id) == (code, frame_id)
        assert step.is_error

    @rule(thread_id=threads)
    def make_current(self, thread_id: str) -> None:
        self.session.make_current(ThreadId(thread_id))
        self.current = thread_id
        self.is_reserved = self.is_reserved and thread_id != RESERVED

    @rule(thread_id=threads)
    def forget(self, thread_id: str) -> None:
        self.session.forget(ThreadId(thread_id))
        self.current = None if self.current == thread_id else self.current
        self.is_reserved = self.is_reserved and thread_id != RESERVED

    @rule(frame_id=frame_ids, thread_id=st.none() | threads, limit=limits, user=st.sampled_from([None, "me", "her"]))
    def start(self, frame_id: str | None, thread_id: str | None, limit: str | None, user: str | None) -> None:
        frame = {"type": "chat", "content": "hi", "thread_id": thread_id, "user_id": user}
        step = self.receive(frame, frame_id, limit)
        if limit is not None:
            self.refused(step, limit, frame_id)
        elif user == "her":
            self.refused(step, "identity_mismatch", frame_id)
        else:
            assert isinstance(step, Command)
            assert isinstance(step.message, Start)
            # Which thread a start means is for the dispatcher to say; what the frame named is handed on as it was.
            assert (step.message.thread_id, step.message.id) == (thread_id, frame_id)

    @rule(frame_id=frame_ids, limit=limits, payload=st.sampled_from([None, 1, [2], {"a": None}]))
    def ping(self, frame_id: str | None, limit: str | None, payload: object) -> None:
        step = self.receive({"type": "ping", "payload": payload}, frame_id, limit)
        if limit is not None:
            self.refused(step, limit, frame_id)
            return
        # A null counts as absent: then the frame's other fields, of which there are none.
        assert step == Reply(frame=Pong(id=frame_id, timestamp=NOW, payload=payload or {}), type="ping")

    @rule(frame_id=frame_ids)
    def heartbeat(self, frame_id: str | None) -> None:
        step = self.receive({"type": "heartbeat"}, frame_id)
        assert step == Reply(frame=HeartbeatAck(id=frame_id, timestamp=NOW), type="heartbeat")

    @rule(frame_id=frame_ids, thread_id=threads)
    def acknowledge(self, frame_id: str | None, thread_id: str) -> None:
        step = self.receive({"type": "handshake_acknowledged", "thread_id": thread_id}, frame_id)
        if not self.original:
            self.refused(step, "unknown_type", frame_id)
        elif thread_id != RESERVED:
            self.refused(step, "thread_not_found", frame_id)
        else:
            complete = HandshakeComplete(id=frame_id, timestamp=NOW, thread_id=RESERVED)
            assert step == Reply(frame=complete, type="handshake_acknowledged")

    @rule(frame=st.sampled_from(["{", "[]", "{}", '{"type": "agent_started"}', '{"type": "moon"}', '{"type": "chat"}']))
    def send_nonsense(self, frame: str) -> None:
        step = self.session.receive_text(frame, NOW)
        assert isinstance(step, Reply)
        assert step.is_error

    @rule()
    def send_bytes(self) -> None:
        self.refused(self.session.receive_bytes(), "unsupported_frame", None)

    @invariant()
    def knows_its_threads(self) -> None:
        if hasattr(self, "session"):
            assert self.session.current_thread == self.current
            reserved = self.session.reserved
            assert (reserved is not None) == self.is_reserved
            assert self.session.principal == Principal("acme", "me")


SessionModel.TestCase.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
TestSession = SessionModel.TestCase
