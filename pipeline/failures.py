# SPDX-License-Identifier: Apache-2.0
"""How often something failed of late, and so whether to try it again at once."""

import time
from collections import defaultdict, deque

from pipeline.config import SupervisionConfig


class Failures:
    """Counts failures by what failed and for which stream."""

    def __init__(self, limits: SupervisionConfig) -> None:
        self._limits = limits
        self._times: defaultdict[tuple[str, str], deque[float]] = defaultdict(deque)

    def note(self, what: str, name: str) -> bool:
        """Note a failure; whether they are still few enough in the window to try again."""
        times, now_s = self._times[what, name], time.monotonic()
        times.append(now_s)
        while times[0] < now_s - self._limits.restart_window_s:
            times.popleft()
        return len(times) < self._limits.restarts
