# SPDX-License-Identifier: Apache-2.0
"""Counters of a stream, in memory that outlives the stages that count.

Each counter has one stage that writes it, so that counting needs no lock; the supervisor reads.
`track` settles every frame in its order, once, as tracked, skipped or dropped, so that `decoded =
tracked + skipped + dropped` holds when a stream has ended, whoever died on the way, and a stage
that takes the place of a dead one finds here how far its stream has come. Frames whose tracks were
carried over, by the gate or between detections, count as skipped.
"""

import mmap
import os
from collections.abc import Iterable, Sequence
from typing import Literal, get_args

import numpy as np
from jaxtyping import Int64

Counter = Literal[
    "packets",
    "late_packets",
    "undecodable",
    "reconnects",
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
COUNTERS: tuple[Counter, ...] = get_args(Counter)
_COLUMNS: tuple[Counter | Clock, ...] = (*COUNTERS, *get_args(Clock))
SKIPPED = tuple(name for name in COUNTERS if name.startswith("skipped_"))
DROPPED = tuple(name for name in COUNTERS if name.startswith("dropped_"))


class CounterTable:
    """The counters of many streams in one piece of shared memory."""

    def __init__(self, streams: Sequence[str], descriptor: int | None = None) -> None:
        """Make the table, or map the one that is in a memory file."""
        row_bytes = np.dtype(np.int64).itemsize * len(_COLUMNS)
        num_bytes = max(1, len(streams)) * row_bytes
        if descriptor is None:
            descriptor = os.memfd_create("sightline-counters", os.MFD_CLOEXEC)
            os.posix_fallocate(descriptor, 0, num_bytes)
        self.streams = tuple(streams)
        self.descriptor = descriptor
        """The memory file, for other processes to map; closed with the table."""
        table = np.frombuffer(mmap.mmap(descriptor, num_bytes), np.int64)
        rows = table.reshape(-1, len(_COLUMNS))
        self._counters = {name: Counters(row) for name, row in zip(streams, rows, strict=False)}

    def __del__(self) -> None:
        os.close(self.descriptor)

    def __getitem__(self, stream: str) -> "Counters":
        return self._counters[stream]

    def values(self) -> Iterable["Counters"]:
        """The counters of every stream."""
        return self._counters.values()


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
