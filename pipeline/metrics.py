# SPDX-License-Identifier: Apache-2.0
"""Counters of a stream, in memory that outlives the stages that count.

Each counter has one stage that writes it, so that counting needs no lock; the supervisor reads.
`decoded = tracked + skipped_stride + dropped` holds when a stream has ended.
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
    "dropped_late",
    "dropped_overload",
    "dropped_corrupt",
    "dropped_stage_died",
    "dropped_shutdown",
    "tracked",
    "pictures",
]
COUNTERS: tuple[Counter, ...] = get_args(Counter)
DROPPED = tuple(name for name in COUNTERS if name.startswith("dropped_"))


class CounterTable:
    """The counters of many streams in one piece of shared memory."""

    def __init__(self, streams: Sequence[str]) -> None:
        row_bytes = np.dtype(np.int64).itemsize * len(COUNTERS)
        num_bytes = max(1, len(streams)) * row_bytes
        descriptor = os.memfd_create("sightline-counters", os.MFD_CLOEXEC)
        os.posix_fallocate(descriptor, 0, num_bytes)
        table = np.frombuffer(mmap.mmap(descriptor, num_bytes), np.int64)
        os.close(descriptor)
        rows = table.reshape(-1, len(COUNTERS))
        self._counters = {name: Counters(row) for name, row in zip(streams, rows, strict=False)}

    def __getitem__(self, stream: str) -> "Counters":
        return self._counters[stream]

    def values(self) -> Iterable["Counters"]:
        """The counters of every stream."""
        return self._counters.values()


class Counters:
    """The counters of one stream."""

    def __init__(self, row: Int64[np.ndarray, " counters"]) -> None:
        self._values = row

    def add(self, counter: Counter, count: int = 1) -> None:
        """Count; only the stage that owns the counter may."""
        self._values[COUNTERS.index(counter)] += count

    def __getitem__(self, counter: Counter) -> int:
        return int(self._values[COUNTERS.index(counter)])

    @property
    def num_dropped(self) -> int:
        """Decoded frames that have no tracks and were not meant to be skipped."""
        return sum(self[name] for name in DROPPED)

    @property
    def num_in_flight(self) -> int:
        """Decoded frames that are still on their way."""
        return self["decoded"] - self["tracked"] - self["skipped_stride"] - self.num_dropped

    def as_dict(self) -> dict[str, int]:
        """All counters by name."""
        return {name: self[name] for name in COUNTERS}
