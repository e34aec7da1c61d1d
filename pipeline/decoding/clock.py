# SPDX-License-Identifier: Apache-2.0
"""Presentation times that only go forward, from sources whose own times do not."""

_JUMP_NS = 2_000_000_000
_DRIFT_FRAMES = 1024  # over which the lead of a camera's clock is followed down


class StreamClock:
    """Presentation times that go on across connections and where the source gives none.

    A live source's clock that stands still, steps back or runs ahead of the time of arrival is set
    anew by that time, which no change of the wall clock moves; a file's times are its own, whatever
    they are.
    """

    def __init__(self, *, live: bool) -> None:
        self._live = live
        self.duration_ns = 0
        """How long one frame is shown at the declared rate."""
        self.last_pts_ns: int | None = None
        """The time given to the last frame."""
        self.jumped = False
        """Whether the source's own time made a jump before the last frame."""
        self._lead_ns: int | None = None
        """How far given times are before times of arrival; None in a new connection."""
        self._last_captured_ns = 0
        self._offset_ns: int | None = 0

    def go_on(self, last_pts_ns: int, last_captured_ns: int) -> None:
        """Take up the times of a clock that was lost; a new connection follows."""
        self.last_pts_ns, self._last_captured_ns = last_pts_ns, last_captured_ns

    def go_back(self, last_pts_ns: int | None) -> None:
        """Take up the times of a file that is decoded again from its middle."""
        self.last_pts_ns, self._offset_ns = last_pts_ns, 0

    def open(self, frame_rate: float) -> None:
        """Begin a connection; its own times may start anywhere."""
        self.duration_ns = round(1e9 / frame_rate)
        self._lead_ns = None
        self._offset_ns = 0 if self.last_pts_ns is None else None

    def pts_ns(self, pts_ns: int | None, captured_ns: int) -> int:
        """The time of the next frame; a new connection goes on by the time that passed."""
        self.jumped = self._live and self._jumps(pts_ns, captured_ns)
        if self.last_pts_ns is None:
            result = pts_ns or 0
        elif self._offset_ns is None or self.jumped or self._stands(pts_ns):
            result = self.last_pts_ns + max(captured_ns - self._last_captured_ns, self.duration_ns)
            self._offset_ns = 0 if pts_ns is None else result - pts_ns
        elif pts_ns is None:
            result = self.last_pts_ns + self.duration_ns
        else:
            result = pts_ns + self._offset_ns
        self.last_pts_ns, self._last_captured_ns = result, captured_ns
        self._follow(result - captured_ns)
        return result

    def _jumps(self, pts_ns: int | None, captured_ns: int) -> bool:
        """Whether the source's time is far before the last frame's, or far ahead of its arrival."""
        if pts_ns is None or self._offset_ns is None or self.last_pts_ns is None:
            return False
        at_ns = pts_ns + self._offset_ns
        ahead = self._lead_ns is not None and at_ns - captured_ns - self._lead_ns > _JUMP_NS
        return ahead or at_ns < self.last_pts_ns - _JUMP_NS

    def _follow(self, lead_ns: int) -> None:
        """Keep to the frames that came fastest; slowly, as clocks drift and a late one is late."""
        if self._lead_ns is None or self.jumped or lead_ns > self._lead_ns:
            self._lead_ns = lead_ns
        else:
            self._lead_ns -= (self._lead_ns - lead_ns) // _DRIFT_FRAMES

    def _stands(self, pts_ns: int | None) -> bool:
        assert self.last_pts_ns is not None
        assert self._offset_ns is not None
        return self._live and pts_ns is not None and pts_ns + self._offset_ns <= self.last_pts_ns
