# SPDX-License-Identifier: Apache-2.0
"""Counters of a stream, in memory that outlives the stages that count.

Each counter has one stage that writes it, so that counting needs no lock; the supervisor reads.
`track` settles every frame in its order, once, as tracked, skipped or dropped, so that `decoded =
tracked + skipped + dropped` holds when a stream has ended, whoever died on the way, and a stage
that takes the place of a dead one finds here how far its stream has come. Frames whose tracks were
carried over, by the gate or between detections, count as skipped.

The table has a stated room. A stream claims a row when it begins; the row is free again once nobody
works for the stream any more.
"""

import mmap
import os
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from jaxtyping import Int64

from pipeline.errors import PipelineError

Counter = Literal[
    "packets",
    "late_packets",
    "undecodable",
    "reconnects",
    "hardware_lost",
    "decoded",
    "skipped_stride",
    "skipped_gate",
    "skipped_detect_every",
    "skipped_max_fps",
    "dropped_late",
    "dropped_overload",
    "dropped_corrupt",
    "dropped_stage_died",
    "dropped_shutdown",
    "tracked",
    "identities",
    "pictures",
]
Clock = Literal["last_pts_ns", "last_captured_ns"]
Milestone = Literal["scaled", "found", "tracked"]
"""How far a frame has come: it is ready for the detector, its boxes are known, its tracks are."""
COUNTERS: tuple[Counter, ...] = get_args(Counter)
MILESTONES: tuple[Milestone, ...] = get_args(Milestone)
LATENCY_MS = (25, 50, 75, 100, 150, 200, 300, 500, 750, 1000, 2000, 5000)
"""Upper bounds of the classes that frames are counted in by their age."""
_COLUMNS: tuple[Counter | Clock, ...] = (*COUNTERS, *get_args(Clock))
_HISTOGRAM = len(LATENCY_MS) + 2  # with those that are older, and the sum in microseconds
_WIDTH = len(_COLUMNS) + len(MILESTONES) * _HISTOGRAM
SKIPPED = tuple(name for name in COUNTERS if name.startswith("skipped_"))
DROPPED = tuple(name for name in COUNTERS if name.startswith("dropped_"))


class CounterTable:
    """The counters of many streams in one piece of shared memory."""

    def __init__(
        self, streams: Sequence[str] = (), *, room: int | None = None, descriptor: int | None = None
    ) -> None:
        """Make a table, or map the one that is in a memory file.

        Args:
            streams: Who claims a row at once.
            room: How many streams there may be at a time; just these if not given.
            descriptor: The memory file of a table that another process made.
        """
        row_bytes = np.dtype(np.int64).itemsize * _WIDTH
        if descriptor is None:
            descriptor = os.memfd_create("sightline-counters", os.MFD_CLOEXEC)
            num_rows = max(1, len(streams) if room is None else room)
            os.posix_fallocate(descriptor, 0, num_rows * row_bytes)
        self.descriptor = descriptor
        """The memory file, for other processes to map; closed with the table."""
        table = np.frombuffer(mmap.mmap(descriptor, os.fstat(descriptor).st_size), np.int64)
        self._table = table.reshape(-1, _WIDTH)
        self._rows: dict[str, int] = {}
        self._free = deque(range(len(self._table)))
        for stream in streams:
            self.claim(stream)

    def __del__(self) -> None:
        os.close(self.descriptor)

    def __getitem__(self, stream: str) -> "Counters":
        return self.at(self._rows[stream])

    @property
    def room(self) -> int:
        """How many streams there may be at a time."""
        return len(self._table)

    @property
    def has_room(self) -> bool:
        """Whether there is a row for another stream."""
        return bool(self._free)

    def claim(self, stream: str) -> int:
        """Give a stream a row of zeros; which one it is, other processes must be told.

        Raises:
            PipelineError: every row is taken.
        """
        if not self._free:
            raise PipelineError(f"{stream}: no room for more than {self.room} streams")
        row = self._rows[stream] = self._free.popleft()
        self._table[row] = 0
        return row

    def release(self, stream: str) -> None:
        """Take back the row of a stream for which nobody works any more."""
        self._free.append(self._rows.pop(stream))

    def at(self, row: int) -> "Counters":
        """The counters in a row."""
        return Counters(self._table[row])

    def values(self) -> Iterable["Counters"]:
        """The counters of every stream that has a row."""
        return tuple(self.at(row) for row in self._rows.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Frames by their age."""

    counts: tuple[int, ...] = (0,) * (len(LATENCY_MS) + 1)
    """In each class of `LATENCY_MS`, and older."""
    sum_s: float = 0.0


class Counters:
    """The counters of one stream, and the time its last frame had."""

    def __init__(self, row: Int64[np.ndarray, " columns"]) -> None:
        self._values = row

    def add(self, counter: Counter, count: int = 1) -> None:
        """Count; only the stage that owns the counter may."""
        self._values[COUNTERS.index(counter)] += count

    def __getitem__(self, counter: Counter | Clock) -> int:
        return int(self._values[_COLUMNS.index(counter)])

    def put(self, counter: Counter | Clock, value: int) -> None:
        """Count on from here; only the stage that owns the counter may."""
        self._values[_COLUMNS.index(counter)] = value

    def reach(self, milestone: Milestone, captured_ns: int) -> None:
        """Count a frame that has come so far by the age it has now."""
        age_us = max(0, time.monotonic_ns() - captured_ns) // 1000
        first = _first_column(milestone)
        self._values[first + bisect_left(LATENCY_MS, age_us / 1000)] += 1
        self._values[first + _HISTOGRAM - 1] += age_us

    def latency(self, milestone: Milestone) -> "Latency":
        """How old frames were when they had come so far."""
        first = _first_column(milestone)
        values = self._values[first : first + _HISTOGRAM].tolist()
        return Latency(counts=tuple(values[:-1]), sum_s=values[-1] / 1e6)

    def copy(self) -> "Counters":
        """What they are now, in memory of their own."""
        return Counters(self._values.copy())

    @property
    def num_settled(self) -> int:
        """Frames whose tracks are made or that will have none: the index of the next one."""
        return self["tracked"] + self.num_skipped + self.num_dropped

    @property
    def num_skipped(self) -> int:
        """Decoded frames for which the detector was, as asked, not needed."""
        return sum(self[name] for name in SKIPPED)

    @property
    def num_dropped(self) -> int:
        """Decoded frames that have no tracks and were not meant to be skipped."""
        return sum(self[name] for name in DROPPED)

    @property
    def num_in_flight(self) -> int:
        """Decoded frames that are still on their way."""
        return self["decoded"] - self.num_settled

    def as_dict(self) -> dict[str, int]:
        """All counters by name."""
        return {name: self[name] for name in COUNTERS}


def _first_column(milestone: Milestone) -> int:
    return len(_COLUMNS) + MILESTONES.index(milestone) * _HISTOGRAM
