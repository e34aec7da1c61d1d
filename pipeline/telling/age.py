# SPDX-License-Identifier: Apache-2.0
"""What time it is for the question of what has grown too old.

A clock that is wrong for a while, as after a start without a network or a battery, must not make a
month of events look old: what was removed then does not come back with the right time.
"""

import time
from typing import Final

BELIEVED_AFTER_S: Final = 3600.0
_SLACK_S: Final = 60.0
"""By how much it may differ from what has passed without anybody having set it."""


class AgeClock:
    """The wall clock, whose leaps are believed once they have lasted; of one thread.

    Until then it goes on as before the leap. What was stamped by it is to be moved by a leap that
    is believed: it is as old as it was, and the new time knows better when that was.
    """

    def __init__(self, latest_s: float | None) -> None:
        """Begin where what is kept ends: a clock that is far from that may be wrong.

        Args:
            latest_s: The latest time that is kept, in seconds since 1970; None where nothing is.
        """
        self._believed_s = time.time() if latest_s is None else latest_s
        self._at_s = time.monotonic()
        self._leapt_at_s: float | None = None
        self._leap_s = 0.0

    def now(self) -> float:
        """Seconds since 1970."""
        wall_s, at_s = time.time(), time.monotonic()
        expected_s = self._believed_s + at_s - self._at_s
        if abs(wall_s - expected_s) <= _SLACK_S:
            self._leapt_at_s = None
        else:
            if self._leapt_at_s is None:
                self._leapt_at_s = at_s
            if at_s - self._leapt_at_s < BELIEVED_AFTER_S:
                return expected_s
            self._leapt_at_s = None
            self._leap_s += wall_s - expected_s
        self._believed_s, self._at_s = wall_s, at_s
        return wall_s

    def take_leap(self) -> float:
        """By how many seconds it has leapt since this was asked before."""
        leap_s, self._leap_s = self._leap_s, 0.0
        return leap_s
