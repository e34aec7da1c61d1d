# SPDX-License-Identifier: Apache-2.0
"""Counters of a stream, in memory that outlives the stages that count.

Each counter has one stage that writes it, so that counting needs no lock; the supervisor reads.
`decoded = tracked + skipped_stride + dropped` holds when a stream has ended.
"""

import mmap
import os
from typing import Literal, get_args

import numpy as np

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


class Counters:
    """The counters of one stream."""

    def __init__(self) -> None:
        descriptor = os.memfd_create("sightline-counters", os.MFD_CLOEXEC)
        os.posix_fallocate(descriptor, 0, mmap.PAGESIZE)
        self._values = np.frombuffer(
            mmap.mmap(descriptor, mmap.PAGESIZE), np.int64, count=len(COUNTERS)
        )
        os.close(descriptor)

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
