# SPDX-License-Identifier: Apache-2.0
"""Frames of one stream back in their order, whatever order they were worked on."""

from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Ordered(Generic[T]):
    """Holds what came early until its turn; every index must come once, or its tombstone."""

    def __init__(self, first: int = 0) -> None:
        self._next = first
        self._early: dict[int, T] = {}

    def put(self, index: int, item: T) -> bool:
        """Add an item; False, and it is not taken, where its index has been seen before."""
        if index < self._next or index in self._early:
            return False
        self._early[index] = item
        return True

    def due(self) -> Iterator[T]:
        """The items whose turn it is, in order, each taken as it is reached."""
        while self._next in self._early:
            item = self._early.pop(self._next)
            self._next += 1
            yield item

    @property
    def num_held(self) -> int:
        """Items that wait for an earlier one."""
        return len(self._early)
