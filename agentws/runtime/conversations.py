"""What clients do with threads: make, change, list, read, follow and delete them. One short transaction each."""

from collections.abc import Awaitable

from agentws.core.limits import refuse
from agentws.core.replay import Batch, restart_at
from agentws.core.run import Deleted, RunKey
from agentws.observe.statistics import Statistics
from agentws.ports import Broker, Caller, Head, Journal, ThreadKey, Threads
from agentws.runtime.worker import Worker
from agentws.wire.answers import (
    Subscribed,
    Thread,
    ThreadCreated,
    ThreadDeleted,
    ThreadHistory,
    ThreadSwitched,
    ThreadUpdated,
    Unsubscribed,
)
from agentws.wire.codec import encode_text, timestamp
from agentws.wire.errors import Fault
from agentws.wire.ids import ThreadId, ThreadNo, new_number, new_thread_id
from agentws.wire.messages import (
    CreateThread,
    DeleteThread,
    GetThreadHistory,
    ListThreads,
    Subscribe,
    SwitchThread,
    Unsubscribe,
    UpdateThread,
)

__all__ = ["Conversations"]


class Conversations:
    """
    Args:
        worker: what is at work here; told when a thread is deleted under it.
        broker: who is told that a thread was deleted.
        statistics: where the runs count that end with one.
    """

    def __init__(
        self, *, threads: Threads, journal: Journal, broker: Broker, worker: Worker, statistics: Statistics
    ) -> None:
        self._statistics = statistics
        self._threads = threads
        self._journal = journal
        self._broker = broker
        self._worker = worker

    async def create(self, caller: Caller, message: CreateThread) -> None:
        thread_no = ThreadNo(new_number())
        thread = await self._threads.create(
            caller.principal,
            ThreadId(message.thread_id) if message.thread_id else new_thread_id(thread_no),
            thread_no,
            title=message.title or None,
            metadata=None if message.metadata is None else encode_text(message.metadata),
        )
        _leave_older(caller, thread)
        caller.answer(ThreadCreated(id=message.id, timestamp=timestamp(), thread=thread))

    async def update(self, caller: Caller, message: UpdateThread) -> None:
        thread = await self._threads.update(
            caller.principal,
            _named(message.thread_id),
            title=message.title,
            metadata=None if message.metadata is None else encode_text(message.metadata),
        )
        _leave_older(caller, thread)
        caller.answer(ThreadUpdated(id=message.id, timestamp=timestamp(), thread=thread))

    async def list_page(self, caller: Caller, message: ListThreads) -> None:
        page = await self._threads.list_page(
            caller.principal, frame_id=message.id, limit=message.limit, before=message.before
        )
        for thread in page.threads:
            _leave_older(caller, thread)
        caller.answer(page)

    async def history(self, caller: Caller, message: GetThreadHistory) -> None:
        history = await self._threads.history(
            caller.principal,
            _named(message.thread_id),
            frame_id=message.id,
            limit=message.limit,
            before=message.before,
        )
        _leave_older(caller, history)
        caller.answer(history)

    async def switch(self, caller: Caller, message: SwitchThread) -> None:
        """Makes a thread the caller's current one and follows it."""
        thread_id = _named(message.thread_id)
        opened = await self._threads.read(caller.principal, thread_id)
        if not caller.may_follow(thread_id):
            raise refuse("too_many_subscriptions")
        caller.make_current(thread_id)
        caller.unfollow(thread_id)
        caller.answer(
            ThreadSwitched(id=message.id, timestamp=timestamp(), thread=opened.thread, resume_after=opened.resume_after)
        )
        head = Head(epoch=opened.thread.epoch, first_seq=opened.first_seq, last_seq=opened.thread.last_seq)
        after_seq = opened.resume_after if message.after_seq is None else message.after_seq
        self._follow(caller, message, thread_id, head, after_seq)

    async def subscribe(self, caller: Caller, message: Subscribe) -> None:
        thread_id = _named(message.thread_id)
        head = await self._journal.read_head(caller.principal, thread_id)
        if head is None:
            raise Fault("thread_not_found")
        if not caller.may_follow(thread_id):
            raise refuse("too_many_subscriptions")
        caller.unfollow(thread_id)
        self._follow(caller, message, thread_id, head, message.after_seq)

    def _follow(
        self, caller: Caller, message: Subscribe | SwitchThread, thread_id: ThreadId, head: Head, after_seq: int
    ) -> None:
        after_seq, recovered = restart_at(
            after_seq=after_seq,
            epoch=message.epoch,
            first_seq=head.first_seq,
            last_seq=head.last_seq,
            current=head.epoch,
        )
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

    def unsubscribe(self, caller: Caller, message: Unsubscribe) -> None:
        thread_id = _named(message.thread_id)
        caller.unfollow(thread_id)
        caller.answer(Unsubscribed(id=message.id, timestamp=timestamp(), thread_id=thread_id))

    async def delete(self, caller: Caller, message: DeleteThread) -> None:
        """Deletes a thread; its followers get its last events, and then hear that it is gone."""
        thread_id, principal = _named(message.thread_id), caller.principal
        # Held, because the end may be heard of before the answer is here, and is told the caller once: as the answer.
        with caller.hold(thread_id):
            deleted = await self._threads.delete(principal, thread_id)
            finished = self._finish(caller, message, thread_id, deleted)
        await finished

    def _finish(self, caller: Caller, message: DeleteThread, thread_id: ThreadId, deleted: Deleted) -> Awaitable[None]:
        principal = caller.principal
        for ended, kind in deleted.ended:
            self._statistics.run_ended(kind, "stopped", RunKey(principal.tenant_id, principal.user_id, ended))
        for running in deleted.running:
            if self._worker.works_on(running):
                self._worker.revoke(RunKey(principal.tenant_id, principal.user_id, running))
            else:
                self._broker.stop(running)
        caller.forget(thread_id)
        last = ThreadDeleted(id=message.id, timestamp=timestamp(), thread_id=thread_id)
        finished = caller.finish(thread_id, deleted, last)
        end = Batch(epoch=deleted.epoch, after_seq=deleted.last_seq, last_seq=deleted.last_seq, deleted=True)
        self._broker.publish(ThreadKey(principal, thread_id), end)
        return finished


def _leave_older(caller: Caller, found: Thread | ThreadHistory) -> None:
    """Before a caller is told of a thread: the end of an older one of its name is not to be taken for its end."""
    caller.leave_older(ThreadId(found.thread_id), epoch=found.epoch)


def _named(thread_id: str | None) -> ThreadId:
    """The thread that a checked message names."""
    if thread_id is None:
        raise Fault("validation_error", "thread_id")
    return ThreadId(thread_id)
