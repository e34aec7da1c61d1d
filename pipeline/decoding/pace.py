# SPDX-License-Identifier: Apache-2.0
"""Fewer frames a second than a camera sends, chosen by their own times."""

_EARLY = 0.25  # of a period: the jitter of a camera that sends at just this rate costs no frame


class Pace:
    """Decides for one stream, frame by frame."""

    def __init__(self, max_fps: float) -> None:
        self._period_ns = round(1e9 / max_fps)
        self._due_ns: int | None = None
        """When the next frame is due; None before the first."""
        self._last_ns = 0

    def lets_by(self, pts_ns: int, *, anew: bool) -> bool:
        """Whether a frame is looked at; `anew` where its time says nothing beside the others'."""
        back, self._last_ns = pts_ns < self._last_ns, pts_ns
        due_ns = self._due_ns
        if anew or back or due_ns is None or pts_ns > due_ns + self._period_ns:
            due_ns = pts_ns
        if pts_ns < due_ns - self._period_ns * _EARLY:
            return False
        self._due_ns = due_ns + self._period_ns
        return True
