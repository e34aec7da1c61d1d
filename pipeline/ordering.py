# SPDX-License-Identifier: Apache-2.0
"""Frames of one stream back in their order, whatever order they were worked on."""

from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Ordered(Generic[T]):
    """Holds what came early until its turn; every index must come once, or its tombstone."""

    def __init__(self) -> None:
        self._next = 0
        self._early: dict[int, T] = {}

    def put(self, index: int, item: T) -> None:
        """Add an item; a second one of an index that has been seen is ignored."""
        if index >= self._next:
            self._early.setdefault(index, item)

    def due(self) -> Iterator[T]:
        """The items whose turn it is, in order."""
        while self._next in self._early:
            item = self._early.pop(self._next)
            self._next += 1
            yield item

    @property
    def num_held(self) -> int:
        """Items that wait for an earlier one."""
        return len(self._early)
