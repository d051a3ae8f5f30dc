"""From a message to its answer: one short transaction each. What is accepted here is worked on elsewhere."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, assert_never

from agentws.core.agent import AgentSpec
from agentws.core.framing import Origin, Record, frame
from agentws.core.replay import Batch, Item, restart_at
from agentws.core.run import Accepted, RunKey, Wanted
from agentws.core.session import Handled
from agentws.ports import Broker, Caller, Journal, Starts, ThreadKey, Threads
from agentws.runtime.worker import Worker
from agentws.wire.codec import encode, encode_text, timestamp
from agentws.wire.errors import Fault, Refusal
from agentws.wire.events import AgentQueued, EventType
from agentws.wire.ids import (
    RunId,
    RunNo,
    ThreadId,
    ThreadNo,
    new_number,
    new_thread_id,
    request_id_of,
    run_id_of,
    run_no_of_request,
)
from agentws.wire.messages import (
    CreateThread,
    RequestAccepted,
    Start,
    StopAccepted,
    StopAgent,
    Subscribe,
    Subscribed,
    ThreadCreated,
    Unsubscribe,
    Unsubscribed,
)

__all__ = ["Dispatcher"]


class Dispatcher:
    """
    Args:
        agents: the agents of this process by name.
        default_agent: the one that a start gets which names none.
        node: the node that may claim runs now; None while this process has no lease.
        draining: where this process goes away, the milliseconds after which a refused start may be tried again.
    """

    def __init__(
        self,
        *,
        starts: Starts,
        journal: Journal,
        threads: Threads,
        broker: Broker,
        worker: Worker,
        agents: Mapping[str, AgentSpec],
        default_agent: str,
        node: Callable[[], int | None],
        draining: Callable[[], int | None],
    ) -> None:
        self._starts = starts
        self._journal = journal
        self._threads = threads
        self._broker = broker
        self._worker = worker
        self._agents = agents
        self._default_agent = default_agent
        self._node = node
        self._draining = draining

    async def dispatch(self, caller: Caller, message: Handled) -> None:
        """Carries a message out for its caller, and answers it.

        Raises:
            Fault: if it cannot be served.
            StoreUnavailable: if the database did not answer; it may have taken effect.
        """
        match message:
            case Start():
                await self._start(caller, message)
            case StopAgent():
                await self._stop(caller, message)
            case Subscribe():
                await self._subscribe(caller, message)
            case Unsubscribe():
                self._unsubscribe(caller, message)
            case CreateThread():
                await self._create_thread(caller, message)
            case _:
                assert_never(message)

    async def _start(self, caller: Caller, message: Start) -> None:
        if message.if_busy != "queue" or message.on_disconnect != "continue":
            raise Fault("not_implemented")
        agent = message.agent or self._default_agent
        if agent not in self._agents:
            raise Fault("agent_not_found")
        if (retry_after_ms := self._draining()) is not None:
            raise Refusal("draining", retry_after_ms=retry_after_ms)
        wanted = self._want(caller, message, agent)
        reserved = self._worker.reserve()
        accepted: Accepted | None = None
        try:
            wanted = replace(wanted, owner=self._node() if reserved else None)
            with caller.hold(wanted.thread_id):
                accepted = await self._starts.accept(caller.principal, wanted)
                self._answer_start(caller, message, accepted)
        finally:
            if reserved and (accepted is None or accepted.claim is None):
                self._worker.release()
        if accepted.claim is not None:
            self._worker.start(replace(accepted.claim, connection_id=caller.connection_id), reserved=True)
        elif not accepted.duplicate:
            self._publish_queued(caller, accepted, agent)

    def _want(self, caller: Caller, message: Start, agent: str) -> Wanted:
        run_no = RunNo(new_number())
        named = message.thread_id or caller.current_thread
        thread_no = None if named else ThreadNo(new_number())
        return Wanted(
            thread_id=ThreadId(named) if named else new_thread_id(thread_no or ThreadNo(0)),
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
        )

    def _answer_start(self, caller: Caller, message: Start, accepted: Accepted) -> None:
        if message.thread_id is None and caller.current_thread is None and accepted.thread_exists:
            caller.make_current(accepted.thread_id)
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
        if message.subscribe and accepted.thread_exists:
            caller.follow(accepted.thread_id, epoch=accepted.epoch, after_seq=accepted.seq, behind=accepted.duplicate)

    def _publish_queued(self, caller: Caller, accepted: Accepted, agent: str) -> None:
        """Tells of the first event of a run that waits, or, where it no longer does, that there are events."""
        items: list[Item] = []
        if accepted.position:
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
            items.append(Item(record.seq, record.seq, partial(frame, origin, record)))
        batch = Batch(epoch=accepted.epoch, after_seq=accepted.seq, last_seq=accepted.seq + 1, items=items)
        self._broker.publish(ThreadKey(caller.principal, accepted.thread_id), batch)

    async def _stop(self, caller: Caller, message: StopAgent) -> None:
        run_id = None if message.run_id is None else RunId(message.run_id)
        run_no: RunNo | None = None
        if run_id is None and message.request_id is not None:
            run_no = run_no_of_request(message.request_id)
            if run_no is None:
                raise Fault("run_not_found")
        principal = caller.principal
        stopped = await self._starts.stop(
            principal,
            run_id=run_id,
            run_no=run_no,
            thread_id=None if message.thread_id is None else ThreadId(message.thread_id),
            reason=message.reason or "user",
        )
        caller.answer(
            StopAccepted(
                id=message.id,
                timestamp=timestamp(),
                run_ids=stopped.run_ids,
                already_ended=stopped.already_ended,
            )
        )
        for running in stopped.running:
            self._worker.stop(RunKey(principal.tenant_id, principal.user_id, running), message.reason or "user")
        hint = Batch(epoch=stopped.epoch, after_seq=stopped.last_seq, last_seq=stopped.last_seq)
        self._broker.publish(ThreadKey(principal, stopped.thread_id), hint)

    async def _subscribe(self, caller: Caller, message: Subscribe) -> None:
        thread_id = ThreadId(message.thread_id or "")
        head = await self._journal.read_head(caller.principal, thread_id)
        if head is None:
            raise Fault("thread_not_found")
        after_seq, recovered = restart_at(
            after_seq=message.after_seq,
            epoch=message.epoch,
            first_seq=head.first_seq,
            last_seq=head.last_seq,
            current=head.epoch,
        )
        caller.unfollow(thread_id)
        caller.answer(
            Subscribed(
                id=message.id,
                timestamp=timestamp(),
                thread_id=thread_id,
                epoch=head.epoch,
                first_seq=head.first_seq,
                last_seq=head.last_seq,
                after_seq=after_seq,
                recovered=recovered,
            )
        )
        caller.replay(thread_id, frame_id=message.id, epoch=head.epoch, after_seq=after_seq)

    def _unsubscribe(self, caller: Caller, message: Unsubscribe) -> None:
        thread_id = ThreadId(message.thread_id or "")
        caller.unfollow(thread_id)
        caller.answer(Unsubscribed(id=message.id, timestamp=timestamp(), thread_id=thread_id))

    async def _create_thread(self, caller: Caller, message: CreateThread) -> None:
        thread_no = ThreadNo(new_number())
        thread = await self._threads.create(
            caller.principal,
            ThreadId(message.thread_id) if message.thread_id else new_thread_id(thread_no),
            thread_no,
            title=message.title or None,
            metadata=None if message.metadata is None else encode_text(message.metadata),
        )
        caller.answer(ThreadCreated(id=message.id, timestamp=timestamp(), thread=thread))


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
