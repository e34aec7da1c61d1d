# SPDX-License-Identifier: Apache-2.0
"""Whose turn it is where many streams want one thing."""

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping
from typing import Final, Generic, TypeVar

from pipeline.cameras import Priority

T = TypeVar("T")

ALLOWANCE: Final = 50
"""Turns that a stream may be behind the others and still get back."""
COST: Final[Mapping[Priority, float]] = {"low": 2.0, "normal": 1.0, "high": 0.5}
"""What a turn counts: where not all can be served, a stream of high priority has two for one."""


class FairQueue(Generic[T]):
    """What waits, by stream: each in its order, and the stream that has had least comes first.

    Turns are counted, not only taken in rotation: a stream that had nothing waiting for a while,
    as its decoder had to go on at the next keyframe, gets up to `ALLOWANCE` missed turns back.
    In the order of arrival, cameras that send at the same moments would be served in the same
    order each time, and the last of them would lose most.
    """

    def __init__(self) -> None:
        self._waiting: OrderedDict[str, deque[T]] = OrderedDict()
        """By stream, the one served longest ago first; none is empty."""
        self._had: dict[str, float] = {}
        """Turns each stream has had, each at its cost."""
        self._priority: dict[str, Priority] = {}
        self._level = 0.0
        """What the stream had that was served last, before it was."""

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def __iter__(self) -> Iterator[T]:
        for items in self._waiting.values():
            yield from items

    def put(self, stream: str, item: T, priority: Priority = "normal") -> None:
        """Add an item behind the others of its stream, which is of this priority from now on."""
        self._of(stream).append(item)
        self._priority[stream] = priority

    def put_back(self, stream: str, item: T) -> None:
        """Add an item before the others of its stream."""
        self._of(stream).appendleft(item)

    def take(self) -> T:
        """The oldest item of the stream whose turn it is.

        Raises:
            IndexError: nothing waits.
        """
        if not self._waiting:
            raise IndexError("nothing waits")
        stream = min(self._waiting, key=self._had.__getitem__)  # the first of several
        items = self._waiting.pop(stream)
        item = items.popleft()
        if items:
            self._waiting[stream] = items
        self._level = self._had[stream]
        self._had[stream] += COST[self._priority.get(stream, "normal")]
        return item

    def remove(self, unwanted: Callable[[T], bool]) -> list[T]:
        """Take out the items that are not wanted any more; they are no turns."""
        removed: list[T] = []
        for stream, items in list(self._waiting.items()):
            kept = deque[T]()
            for item in items:
                (removed if unwanted(item) else kept).append(item)
            if kept:
                self._waiting[stream] = kept
            else:
                del self._waiting[stream]
        return removed

    def _of(self, stream: str) -> deque[T]:
        if stream not in self._waiting:
            self._waiting[stream] = deque()
            if stream not in self._had:
                self._forget()
                self._had[stream] = self._level
            self._had[stream] = max(self._had[stream], self._level - ALLOWANCE)
        return self._waiting[stream]

    def _forget(self) -> None:
        """Drop the counts of streams that have long had nothing waiting; most have ended."""
        bottom = self._level - ALLOWANCE
        gone = [name for name, had in self._had.items() if had < bottom]
        for name in gone:
            if name not in self._waiting:
                del self._had[name]
                self._priority.pop(name, None)
