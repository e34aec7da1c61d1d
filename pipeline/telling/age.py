# SPDX-License-Identifier: Apache-2.0
"""What time it is for the question of what has grown too old.

A clock that is wrong for a while, as after a start without a network or a battery, must not make a
month of events look old: what was removed then does not come back with the right time.
"""

import time
from typing import Final

BELIEVED_AFTER_S: Final = 3600.0
_SLACK_S: Final = 60.0
"""By how much it may be ahead of what has passed without anybody having set it."""


class AgeClock:
    """The wall clock, whose leaps forward are believed once they have lasted; of one thread."""

    def __init__(self) -> None:
        """Begin with the wall clock as it is."""
        self._believed_s, self._at_s = time.time(), time.monotonic()
        self._ahead_since_s: float | None = None

    def now(self) -> float:
        """Seconds since 1970, late rather than early."""
        wall_s, at_s = time.time(), time.monotonic()
        expected_s = self._believed_s + at_s - self._at_s
        if wall_s <= expected_s + _SLACK_S:
            self._ahead_since_s = None
        else:
            if self._ahead_since_s is None:
                self._ahead_since_s = at_s
            if at_s - self._ahead_since_s < BELIEVED_AFTER_S:
                return expected_s
        self._believed_s, self._at_s = wall_s, at_s
        return wall_s
