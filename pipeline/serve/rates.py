# SPDX-License-Identifier: Apache-2.0
"""How fast each camera comes in and is worked on, over the last seconds."""

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from pipeline.totals import Counted

_WINDOW_S: Final = 10.0
_STEP_S: Final = 1.0
_LOST: Final = ("dropped_late", "dropped_overload", "late_packets")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """Of one camera, a second."""

    decoded: float = 0.0
    tracked: float = 0.0
    lost: float = 0.0
    """Frames and packets given up because there was too much to do."""

    @property
    def lost_share(self) -> float:
        """What share of what came was given up."""
        return self.lost / max(self.decoded + self.lost, 1e-9)


class Rates:
    """Takes samples of the counters; written by one thread, read by any."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, Mapping[str, Counted]]] = deque()
        self.latest: Mapping[str, Rate] = {}

    def sample(self, read: Callable[[], Mapping[str, Counted]]) -> bool:
        """Take a sample if it is time for one; says whether it was."""
        now_s = time.monotonic()
        if self._samples and now_s - self._samples[-1][0] < _STEP_S:
            return False
        counted = read()
        self._samples.append((now_s, counted))
        while now_s - self._samples[0][0] > _WINDOW_S:
            self._samples.popleft()
        then_s, before = self._samples[0]
        elapsed_s = max(now_s - then_s, 1e-9)
        self.latest = {
            camera: _rate(before[camera], now, elapsed_s)
            for camera, now in counted.items()
            if camera in before and now_s > then_s
        }
        return True


def _rate(before: Counted, now: Counted, elapsed_s: float) -> Rate:
    lost = sum(now[name] - before[name] for name in _LOST)
    return Rate(
        decoded=(now["decoded"] - before["decoded"]) / elapsed_s,
        tracked=(now["tracked"] - before["tracked"]) / elapsed_s,
        lost=lost / elapsed_s,
    )
