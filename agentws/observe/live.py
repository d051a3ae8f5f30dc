"""Counts objects that are alive, so that those which should be gone show."""

import weakref

__all__ = ["Live"]


class Live:
    """Objects that were added and have not been collected yet; it keeps none of them alive."""

    def __init__(self) -> None:
        # By identity: what is counted may have no hash, and two that are equal are two.
        self._references: dict[int, weakref.ref[object]] = {}

    def add(self, each: object) -> None:
        key = id(each)
        references = self._references
        references[key] = weakref.ref(each, lambda _: references.pop(key, None))

    def __len__(self) -> int:
        return len(self._references)
