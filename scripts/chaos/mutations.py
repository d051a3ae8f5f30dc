"""Faults of the server to be put in on purpose, each as changes of texts that stand exactly once where they stand."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["MUTATIONS", "Edit", "Mutation"]

_MIGRATIONS = "agentws/store/migrations"


@dataclass(frozen=True)
class Edit:
    """A text that stands exactly once in its place, and what stands there instead.

    Args:
        place: a file; or the name of a unit of work, for its last definition in the migrations.
    """

    place: str
    old: str
    new: str

    def apply(self, root: Path) -> None:
        """Changes the place below `root`. Raises ValueError where the text does not stand there exactly once."""
        path, start, end = self._find(root)
        text = path.read_text("utf-8")
        if (times := text[start:end].count(self.old)) != 1:
            raise ValueError(f"{self.place}: {times} times: {self.old!r}")
        path.write_text(text[:start] + text[start:end].replace(self.old, self.new) + text[end:], "utf-8")

    def _find(self, root: Path) -> tuple[Path, int, int]:
        if "/" in self.place:
            path = root / self.place
            return path, 0, len(path.read_text("utf-8"))
        for path in sorted((root / _MIGRATIONS).glob("*.sql"), reverse=True):
            text = path.read_text("utf-8")
            if found := re.search(rf"^CREATE (OR REPLACE )?FUNCTION {self.place}\(.*?^END \$\$;$", text, re.M | re.S):
                return path, found.start(), found.end()
        raise ValueError(f"no migration defines {self.place}")


@dataclass(frozen=True)
class Mutation:
    """A fault of the server. `faults`: under which it shows soonest; none: under all."""

    name: str
    edits: Sequence[Edit]
    faults: Sequence[str] = ()


_RECORDER = "agentws/runtime/recorder.py"
_KEY = "WHERE tenant_id = p_tenant AND user_id = p_user AND run_no = p_run_no"

MUTATIONS: Sequence[Mutation] = (
    Mutation(
        "sent before it is committed",
        [
            Edit(
                _RECORDER,
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
            Edit(_RECORDER, "        self._publish(drafts, appended, answered)\n", ""),
        ],
    ),
    Mutation(
        "no merge on subscribe",
        [
            Edit(
                "agentws/feed/subscription.py",
                "        if self._add(items, None) < len(items) or more"
                " or self.in_doubt or self.heard > self._cursor:\n",
                "        complete = self._add(items, None) == len(items) and not more\n"
                "        self._cursor = max(self._cursor, self.heard) if complete else self._cursor\n"
                "        if not complete:\n",
            )
        ],
        ("lag", "kill"),
    ),
    Mutation(
        "a number given outside the thread's lock",
        [
            Edit(
                "append",
                "    UPDATE thread_head SET last_seq = last_seq + n,\n        running_run_no = CASE",
                """    SELECT * INTO h FROM thread_head
        WHERE tenant_id = p_tenant AND user_id = p_user AND thread_id = p_thread_id AND running_run_no = p_run_no;
    UPDATE thread_head SET last_seq = h.last_seq + n,
        running_run_no = CASE""",
            )
        ],
        ("lag", "kill"),
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
        ("hints", "kill"),
    ),
    Mutation(
        "no fence in append",
        [
            Edit(
                "append",
                f"{_KEY} AND fence = p_fence\n                AND ordinal = p_first - 1 RETURNING * INTO q;",
                f"{_KEY}\n                AND ordinal = p_first - 1 RETURNING * INTO q;",
            ),
            Edit(
                "append",
                f"{_KEY} AND fence = p_fence\n                AND ordinal = p_first - 1 AND (NOT stopping",
                f"{_KEY}\n                AND ordinal = p_first - 1 AND (NOT stopping",
            ),
            Edit(
                "append",
                "        IF q.fence IS DISTINCT FROM p_fence OR q.ordinal < p_first - 1 THEN\n",
                "        IF q.ordinal < p_first - 1 THEN\n",
            ),
        ],
        ("stuck",),
    ),
    Mutation(
        "a retry without ordinals",
        [Edit("append", "AND ordinal = p_first - 1 RETURNING * INTO q;", "RETURNING * INTO q;")],
        ("ambiguous",),
    ),
    Mutation(
        "a claim without a lock",
        [
            Edit(
                "claim_waiting_2",
                "AND h.thread_id = c.thread_id AND h.running_run_no IS NULL FOR UPDATE SKIP LOCKED;",
                "AND h.thread_id = c.thread_id;",
            ),
            Edit(
                "claim_waiting_2",
                "SET owner = p_node, fence = q.fence + 1\n            WHERE q.tenant_id = c.tenant_id"
                " AND q.user_id = c.user_id AND q.run_no = c.run_no AND q.owner IS NULL\n",
                "SET owner = p_node, fence = 1\n            WHERE q.tenant_id = c.tenant_id"
                " AND q.user_id = c.user_id AND q.run_no = c.run_no\n",
            ),
        ],
        ("lag", "drain", "rolling", "kill", "pause"),
    ),
)
