# SPDX-License-Identifier: Apache-2.0
"""A camera whose picture stands still to the last bit, while its packets go on coming.

A quiet scene is not that: a sensor's noise changes some pixels in every picture. So a few rows tell
most pictures apart, and only where these agree is the rest looked at, for a clock in a corner.
"""

import zlib

import numpy as np
from jaxtyping import UInt8

from pipeline.decoding.surface import AnyFrame, Surface, on_host

_FEW = 16  # one row of so many


class FreezeWatch:
    """Follows the pictures of one stream."""

    def __init__(self, frozen_s: float) -> None:
        self._frozen_ns = round(frozen_s * 1e9)
        self._few: int | None = None
        """Checksum of some rows of the picture before."""
        self._all: int | None = None
        """The same of all rows, where it was needed."""
        self._since_ns = 0

    def forget(self) -> None:
        """Begin anew, as with a new connection."""
        self._few = self._all = None

    def is_frozen(self, frame: AnyFrame, captured_ns: int) -> bool:
        """Whether this picture is the one that has come for all of the time it takes."""
        if not self._is_same(frame):
            self._since_ns = captured_ns
            return False
        return captured_ns - self._since_ns >= self._frozen_ns

    def _is_same(self, frame: AnyFrame) -> bool:
        """Whether the picture is the one before; both sums are then those of both."""
        few, few_before = _sum(_some(frame)), self._few
        self._few = few
        if few != few_before:
            self._all = None
            return False
        whole, whole_before = _sum(_rows(frame)), self._all
        self._all = whole
        return whole_before is None or whole == whole_before


def _some(frame: AnyFrame) -> UInt8[np.ndarray, "rows W"]:
    """A few rows, of which a GPU brings no others to the host."""
    return frame.some_luma(_FEW) if isinstance(frame, Surface) else _rows(frame)[::_FEW]


def _rows(frame: AnyFrame) -> UInt8[np.ndarray, "H W"]:
    """All of luma; of packed formats and of wide samples the left part, which will do."""
    plane = on_host(frame).planes[0]
    rows = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
    return rows[: frame.height, : frame.width]


def _sum(rows: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(rows).data)
