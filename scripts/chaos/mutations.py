"""Faults of the server to be put in on purpose, each as a change of a text that stands exactly once where it is."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["MUTATIONS", "Edit", "Mutation"]

_SQL = "agentws/store/migrations/0001_first.sql"


@dataclass(frozen=True)
class Edit:
    """A place in a file, whose text stands there exactly once, and what stands there instead."""

    file: str
    old: str
    new: str

    def apply(self, root: Path) -> None:
        """Changes the file below `root`. Raises ValueError where the text does not stand there exactly once."""
        path = root / self.file
        text = path.read_text("utf-8")
        if (times := text.count(self.old)) != 1:
            raise ValueError(f"{self.file}: {times} times: {self.old!r}")
        path.write_text(text.replace(self.old, self.new), "utf-8")


@dataclass(frozen=True)
class Mutation:
    """A fault of the server, as changes of its text. `faults`: under which it shows soonest; none: under all."""

    name: str
    edits: Sequence[Edit]
    faults: Sequence[str] = ()


MUTATIONS: Sequence[Mutation] = (
    Mutation(
        "sent before it is committed",
        [
            Edit(
                "agentws/runtime/recorder.py",
                "        began = time.monotonic()\n        appended = await self._append_until_answered(",
                """        from datetime import UTC, datetime

        began = time.monotonic()
        with contextlib.suppress(StoreUnavailable):
            head = await self._journal.read_head(self._claim.principal, self._claim.thread_id)
            if head is not None:
                last = head.last_seq + len(drafts)
                told = Appended(last_seq=last, at=datetime.now(UTC), skipped=0, stop_reason=None, next=None)
                self._publish(drafts, told, began)
        appended = await self._append_until_answered(""",
            ),
            Edit(
                "agentws/runtime/recorder.py",
                "        self._publish(drafts, appended, answered)\n",
                "",
            ),
        ],
    ),
    Mutation(
        "no merge on subscribe",
        [
            Edit(
                "agentws/feed/subscription.py",
                "        if self._add(items, None) < len(items) or more or self._heard > self._cursor:\n",
                "        complete = self._add(items, None) == len(items) and not more\n"
                "        self._cursor = max(self._cursor, self._heard) if complete else self._cursor\n"
                "        if not complete:\n",
            )
        ],
    ),
    Mutation(
        "a number given outside the thread's lock",
        [
            Edit(
                _SQL,
                """    UPDATE thread_head SET last_seq = last_seq + n,
        running_run_no = CASE WHEN p_status IS NULL THEN running_run_no END,
        updated_at = CASE WHEN p_status IS NULL THEN updated_at ELSE clock_timestamp() END
        WHERE tenant_id = p_tenant AND user_id = p_user AND thread_id = p_thread_id AND running_run_no = p_run_no
        RETURNING * INTO h;
""",
                """    SELECT * INTO h FROM thread_head
        WHERE tenant_id = p_tenant AND user_id = p_user AND thread_id = p_thread_id AND running_run_no = p_run_no;
    UPDATE thread_head SET last_seq = h.last_seq + n,
        running_run_no = CASE WHEN p_status IS NULL THEN running_run_no END,
        updated_at = CASE WHEN p_status IS NULL THEN updated_at ELSE clock_timestamp() END
        WHERE tenant_id = p_tenant AND user_id = p_user AND thread_id = p_thread_id AND running_run_no = p_run_no
        RETURNING * INTO h;
""",
            )
        ],
    ),
    Mutation(
        "a hole in what is heard is passed over",
        [
            Edit(
                "agentws/core/replay.py",
                "    if not batch.items or batch.after_seq > cursor:\n",
                "    if not batch.items:\n",
            )
        ],
    ),
    Mutation(
        "no fence in append",
        [
            Edit(
                _SQL,
                "WHERE tenant_id = p_tenant AND user_id = p_user AND run_no = p_run_no AND fence = p_fence\n"
                "                AND ordinal = p_first - 1 RETURNING * INTO q;",
                "WHERE tenant_id = p_tenant AND user_id = p_user AND run_no = p_run_no\n"
                "                AND ordinal = p_first - 1 RETURNING * INTO q;",
            ),
            Edit(
                _SQL,
                "WHERE tenant_id = p_tenant AND user_id = p_user AND run_no = p_run_no AND fence = p_fence\n"
                "                AND ordinal = p_first - 1 AND (NOT stopping",
                "WHERE tenant_id = p_tenant AND user_id = p_user AND run_no = p_run_no\n"
                "                AND ordinal = p_first - 1 AND (NOT stopping",
            ),
            Edit(
                _SQL,
                "        IF q.fence IS DISTINCT FROM p_fence OR q.ordinal < p_first - 1 THEN\n",
                "        IF q.ordinal < p_first - 1 THEN\n",
            ),
        ],
    ),
    Mutation(
        "a retry without ordinals",
        [
            Edit(
                _SQL,
                "                AND ordinal = p_first - 1 RETURNING * INTO q;",
                "                RETURNING * INTO q;",
            )
        ],
    ),
    Mutation(
        "a claim without a lock",
        [
            Edit(
                _SQL,
                "AND h.thread_id = c.thread_id AND h.running_run_no IS NULL FOR UPDATE SKIP LOCKED;",
                "AND h.thread_id = c.thread_id;",
            ),
            Edit(
                _SQL,
                """        RETURN QUERY UPDATE run_queue q SET owner = p_node, fence = q.fence + 1
            WHERE q.tenant_id = c.tenant_id AND q.user_id = c.user_id AND q.run_no = c.run_no AND q.owner IS NULL
                AND NOT EXISTS""",
                """        RETURN QUERY UPDATE run_queue q SET owner = p_node, fence = greatest(q.fence, 1)
            WHERE q.tenant_id = c.tenant_id AND q.user_id = c.user_id AND q.run_no = c.run_no
                AND NOT EXISTS""",
            ),
        ],
    ),
)
