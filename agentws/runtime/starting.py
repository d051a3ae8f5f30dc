"""From a start to its acceptance: one transaction; where the thread is idle and a slot is free, the claim with it."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from agentws.core.agent import AgentSpec
from agentws.core.framing import Origin, Record, item_of
from agentws.core.replay import Batch, Item
from agentws.core.run import Accepted, RunKey, Wanted
from agentws.observe.frames import FrameTally, StartFate
from agentws.observe.meters import RunMeter
from agentws.ports import Broker, Caller, Starts, ThreadKey
from agentws.runtime.stopping import Stopper
from agentws.runtime.worker import Worker
from agentws.wire.answers import RequestAccepted
from agentws.wire.codec import encode, encode_text, timestamp
from agentws.wire.errors import Fault, Refusal
from agentws.wire.events import AgentQueued, EventType
from agentws.wire.ids import RunId, RunNo, ThreadId, ThreadNo, new_number, new_thread_id, request_id_of, run_id_of
from agentws.wire.messages import Start

__all__ = ["Starter"]


class Starter:
    """
    Args:
        agents: the agents of this process by name.
        default_agent: the one that a start gets which names none.
        node: the node that may claim runs now; None while this process has no lease.
        draining: where this process goes away, the milliseconds after which a refused start may be tried again.
        tally: who is told what became of each start.
        meter: who is told of the events written here.
    """

    def __init__(
        self,
        *,
        starts: Starts,
        broker: Broker,
        worker: Worker,
        stopper: Stopper,
        agents: Mapping[str, AgentSpec],
        default_agent: str,
        node: Callable[[], int | None],
        draining: Callable[[], int | None],
        tally: FrameTally,
        meter: RunMeter,
    ) -> None:
        self._meter = meter
        self._starts = starts
        self._broker = broker
        self._worker = worker
        self._stopper = stopper
        self._agents = agents
        self._default_agent = default_agent
        self._node = node
        self._draining = draining
        self._tally = tally

    async def start(self, caller: Caller, message: Start) -> None:
        """Accepts a start and answers it; its run is worked on elsewhere.

        Raises:
            Fault: if it cannot be accepted.
            StoreUnavailable: if the database did not answer; it may have been accepted.
        """
        with self._tally.start(message.type) as fate:
            await self._start(caller, message, fate)

    async def _start(self, caller: Caller, message: Start, fate: StartFate) -> None:
        agent = message.agent or self._default_agent
        if agent not in self._agents:
            raise Fault("agent_not_found")
        if (retry_after_ms := self._draining()) is not None:
            raise Refusal("draining", retry_after_ms=retry_after_ms)
        current = caller.current_thread
        try:
            await self._accept(caller, message, agent, fate)
        except Fault as fault:
            if fault.code != "thread_not_found" or message.thread_id is not None or current is None:
                raise
            # The current thread was deleted by somebody else: there is none.
            caller.forget(current)
            await self._accept(caller, message, agent, fate)

    async def _accept(self, caller: Caller, message: Start, agent: str, fate: StartFate) -> None:
        wanted = self._want(caller, message, agent)
        fate.run = RunKey(caller.principal.tenant_id, caller.principal.user_id, wanted.run_no)
        reserved = self._worker.reserve()
        accepted: Accepted | None = None
        try:
            wanted = replace(wanted, owner=self._node() if reserved else None)
            with caller.hold(wanted.thread_id):
                accepted = await self._starts.accept(caller.principal, wanted)
                fate.duplicate = accepted.duplicate
                self._answer(caller, message, accepted)
        finally:
            if reserved and (accepted is None or accepted.claim is None):
                self._worker.release()
        if accepted.claim is not None:
            self._worker.start(replace(accepted.claim, connection_id=caller.connection_id), reserved=True)
        elif not accepted.duplicate:
            self._publish_queued(caller, accepted, agent)
            if wanted.owner is None:
                self._broker.work()
        if accepted.interrupted is not None:
            self._stopper.hurry(caller.principal, accepted.interrupted, "interrupted")

    def _want(self, caller: Caller, message: Start, agent: str) -> Wanted:
        run_no = RunNo(new_number())
        thread_id, thread_no = _thread_of(caller, message)
        full = message.subscribe and not caller.may_follow(thread_id)
        return Wanted(
            thread_id=thread_id,
            thread_no=thread_no,
            run_no=run_no,
            run_id=RunId(message.run_id) if message.run_id else run_id_of(run_no),
            named=message.run_id is not None,
            kind=message.type,
            agent=agent,
            text=message.text or "",
            context=None if message.context is None else encode_text(message.context),
            owner=None,
            key=message.idempotency_key,
            content_hash=None if message.idempotency_key is None else _content_hash(message, agent),
            if_busy=message.if_busy,
            stops_unfollowed=message.on_disconnect == "stop",
            refusal="too_many_subscriptions" if full else None,
        )

    def _answer(self, caller: Caller, message: Start, accepted: Accepted) -> None:
        made_reserved = caller.reserved_thread is not None and caller.reserved_thread[0] == accepted.thread_id
        makes_current = made_reserved or (message.thread_id is None and caller.current_thread is None)
        if makes_current and accepted.thread_exists:
            caller.make_current(accepted.thread_id)
        if accepted.thread_exists:
            caller.leave_older(accepted.thread_id, epoch=accepted.epoch)
        caller.answer(
            RequestAccepted(
                id=message.id,
                timestamp=timestamp(),
                request_id=request_id_of(accepted.run_no),
                thread_id=accepted.thread_id,
                epoch=accepted.epoch,
                run_id=accepted.run_id,
                seq=accepted.seq,
                duplicate=accepted.duplicate,
                status=accepted.status,
                position=accepted.position,
            )
        )
        if message.subscribe and accepted.thread_exists and caller.may_follow(accepted.thread_id):
            caller.follow(accepted.thread_id, epoch=accepted.epoch, after_seq=accepted.seq, behind=accepted.duplicate)

    def _publish_queued(self, caller: Caller, accepted: Accepted, agent: str) -> None:
        """Tells of the first event of a run that waits, or, where it no longer does, that there are events."""
        self._meter.committed(EventType.AGENT_QUEUED)
        items: list[Item] = []
        # Where the answer comes late, the place told in the event is another one than that of now: the journal has it.
        if accepted.position and not accepted.repeated:
            origin = Origin(
                caller.principal.user_id, accepted.thread_id, accepted.epoch, accepted.run_no, accepted.run_id, agent
            )
            record = Record(
                seq=accepted.seq + 1,
                from_seq=None,
                type=EventType.AGENT_QUEUED,
                ordinal=1,
                attempt=1,
                timestamp=timestamp(accepted.at),
                body=encode_text(AgentQueued(position=accepted.position)),
                content=None,
            )
            items.append(item_of(origin, record))
        batch = Batch(epoch=accepted.epoch, after_seq=accepted.seq, last_seq=accepted.seq + 1, items=items)
        self._broker.publish(ThreadKey(caller.principal, accepted.thread_id), batch)


def _thread_of(caller: Caller, message: Start) -> tuple[ThreadId, ThreadNo | None]:
    """The thread of a start, and the number to make it with where it may be new."""
    named = message.thread_id or caller.current_thread
    reserved = caller.reserved_thread
    if reserved is not None and named == reserved[0]:
        return reserved
    if named is not None:
        return ThreadId(named), None
    thread_no = ThreadNo(new_number())
    return new_thread_id(thread_no), thread_no


def _content_hash(message: Start, agent: str) -> bytes:
    """SHA-256 of what makes two starts the same (section 3, "Repeating"): absent options as their defaults."""
    content = {
        "type": message.type,
        "text": message.text,
        "agent": agent,
        "thread_id": message.thread_id,
        "run_id": message.run_id,
        "context": _canonical(message.context),
        "if_busy": message.if_busy,
        "on_disconnect": message.on_disconnect,
    }
    return hashlib.sha256(encode(content)).digest()


def _canonical(value: Any) -> Any:
    """A JSON value in the one form that all its spellings share: names sorted, 1.0 as 1."""
    if isinstance(value, dict):
        return {name: _canonical(value[name]) for name in sorted(value)}
    if isinstance(value, list):
        return [_canonical(each) for each in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value
