# SPDX-License-Identifier: Apache-2.0
"""Which requests make the next batch, and when it goes.

A device that does nothing gets what there is at once. While it runs a batch, the next is collected
until it is full or its window has passed. What a network computes may depend on the size of its
batch, so the frames of files go in batches of one size; those of cameras go in any that was
captured. The two never mix.

Nothing here waits or reads a clock.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Batch(Generic[T]):
    """Requests that run together."""

    items: tuple[T, ...]
    size: int
    """Looks that the batch runs with, those that only fill it up included."""


class Collector(Generic[T]):
    """Requests that wait for a batch, in the order in which they came."""

    def __init__(self, sizes: Sequence[int], *, window_ns: int, fixed: int, max_bytes: int) -> None:
        """Begin with none.

        Args:
            sizes: Looks of a batch that were captured, rising.
            window_ns: For which a batch is collected while another runs.
            fixed: The one of the sizes that frames of files run with.
            max_bytes: Of the pictures of a batch.
        """
        self._sizes = tuple(sizes)
        self._window_ns = window_ns
        self._files: _Line[T] = _Line(fixed, max_bytes)
        self._cameras: _Line[T] = _Line(self._sizes[-1], max_bytes)

    def __len__(self) -> int:
        return len(self._files.waiting) + len(self._cameras.waiting)

    def put(self, item: T, *, looks: int, num_bytes: int, fixed: bool, now_ns: int) -> None:
        """Let a request wait; it must fit into a batch of its own."""
        line = self._line(fixed=fixed)
        assert looks <= line.most_looks, f"{looks} looks do not fit into {line.most_looks}"
        assert num_bytes <= line.max_bytes, f"{num_bytes} bytes do not fit into {line.max_bytes}"
        line.waiting.append(_Waiting(item, looks, num_bytes, now_ns))

    def has_room(self, looks: int, num_bytes: int, *, fixed: bool) -> bool:
        """Whether such a request would go with all that wait."""
        return self._line(fixed=fixed).has_room(looks, num_bytes)

    def due_ns(self, *, num_running: int) -> int | None:
        """When the next batch goes; None while nothing waits."""
        dues = [self._due_ns(line, num_running) for line in self._lines()]
        return min(dues, default=None)

    def take(self, now_ns: int, *, num_running: int, idle_slots: int) -> Batch[T] | None:
        """Return the batch that is due, if there is a slot for it.

        Args:
            now_ns: On the clock of `put`.
            num_running: Batches under way.
            idle_slots: Batches that may begin.
        """
        line = min(self._lines(), key=lambda each: self._due_ns(each, num_running), default=None)
        if line is None or not idle_slots or self._due_ns(line, num_running) > now_ns:
            return None
        taken = line.take()
        looks = sum(each.looks for each in taken)
        fitting = next(size for size in self._sizes if size >= looks)
        size = line.most_looks if line is self._files else fitting
        return Batch(tuple(each.item for each in taken), size)

    def clear(self) -> tuple[T, ...]:
        """Return what waits, which waits no longer."""
        waiting = tuple(each.item for line in self._lines() for each in line.waiting)
        self._files.waiting.clear()
        self._cameras.waiting.clear()
        return waiting

    def _line(self, *, fixed: bool) -> "_Line[T]":
        return self._files if fixed else self._cameras

    def _lines(self) -> "list[_Line[T]]":
        """Those in which something waits."""
        return [line for line in (self._files, self._cameras) if line.waiting]

    def _due_ns(self, line: "_Line[T]", num_running: int) -> int:
        """Full ones, and all where nothing runs, by when they began: none waits for ever."""
        began_ns = line.waiting[0].since_ns
        return began_ns if line.is_full or not num_running else began_ns + self._window_ns


@dataclass(frozen=True, slots=True)
class _Waiting(Generic[T]):
    item: T
    looks: int
    num_bytes: int
    since_ns: int


class _Line(Generic[T]):
    """Requests of one kind, and how many of them make a batch."""

    def __init__(self, most_looks: int, max_bytes: int) -> None:
        self.most_looks = most_looks
        self.max_bytes = max_bytes
        self.waiting: deque[_Waiting[T]] = deque()

    @property
    def is_full(self) -> bool:
        """Whether no other request like the last would go with all that wait."""
        last = self.waiting[-1]
        return not self.has_room(last.looks, last.num_bytes)

    def has_room(self, looks: int, num_bytes: int) -> bool:
        fitting = sum(each.looks for each in self.waiting) + looks <= self.most_looks
        return (
            fitting and sum(each.num_bytes for each in self.waiting) + num_bytes <= self.max_bytes
        )

    def take(self) -> "list[_Waiting[T]]":
        """Take the first ones that make a batch together."""
        return [self.waiting.popleft() for _ in list(self._together())]

    def _together(self) -> "Iterator[_Waiting[T]]":
        looks = num_bytes = 0
        for each in self.waiting:
            looks, num_bytes = looks + each.looks, num_bytes + each.num_bytes
            if looks > self.most_looks or num_bytes > self.max_bytes:
                return
            yield each
