# SPDX-License-Identifier: Apache-2.0
"""Whether anything moved in front of a fixed camera since the detector last looked.

A picture is reduced to cells of luma, 160 along its long side: one for every four pixels of a
network's picture of 640. A cell is a mean over its pixels, which takes most noise away; what noise
is left sits in single cells, so that only blocks of 2 x 2 that all differ count as movement.

The picture compared with is the one the detector last saw, never the one before: light that drifts
slowly adds up until the detector looks again. Axes: H and W cells down and across.
"""

import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter
from jaxtyping import UInt8

from pipeline.config import GateConfig
from pipeline.decoding.surface import AnyFrame, on_host

_CELLS = 160  # along the long side


class MotionGate:
    """Decides for one stream, picture by picture, whether the detector is to look."""

    def __init__(self, config: GateConfig) -> None:
        self._threshold = config.threshold
        self._least_share = config.least_share
        self._hold_ns = round(config.hold_s * 1e9)
        self._refresh_ns = round(config.refresh_s * 1e9)
        self._scaler = VideoReformatter()
        self._seen: UInt8[np.ndarray, "H W"] | None = None
        """What the detector last saw; None where it has to look anew."""
        self._seen_ns = 0
        self._moved_ns: int | None = None
        self._begun_ns: int | None = None

    def forget(self) -> None:
        """Have the detector look at the next picture, whatever it shows."""
        self._seen = self._moved_ns = None

    def begin_at(self, keyframe_ns: int) -> bool:
        """Begin anew at a key picture, if it is time to; what came before counts no more.

        It is time at the first one, and at the first after `refresh_s` from the last such beginning
        on: this depends on the key pictures alone, so that a decoder that takes the place of
        another and begins at one of these places decides as the one before it.
        """
        if self._begun_ns is not None and 0 <= keyframe_ns - self._begun_ns < self._refresh_ns:
            return False
        self._begun_ns = keyframe_ns
        self.forget()
        return True

    def opens(self, frame: AnyFrame, at_ns: int) -> bool:
        """Whether the detector is to look at this picture, which it then has seen."""
        cells = self._reduced(frame)
        if self._has_moved(cells):
            self._moved_ns = at_ns
        elif self._is_held(at_ns):
            pass
        elif self._seen is not None and 0 <= at_ns - self._seen_ns < self._refresh_ns:
            return False
        self._seen, self._seen_ns = cells, at_ns
        return True

    def _is_held(self, at_ns: int) -> bool:
        """Whether the last movement is so fresh that tracks may not have come to rest."""
        return self._moved_ns is not None and 0 <= at_ns - self._moved_ns < self._hold_ns

    def _has_moved(self, cells: UInt8[np.ndarray, "H W"]) -> bool:
        if self._seen is None or self._seen.shape != cells.shape:
            return False
        apart = np.maximum(cells, self._seen) - np.minimum(cells, self._seen) > self._threshold
        pairs = apart[1:] & apart[:-1]
        blocks = int(np.count_nonzero(pairs[:, 1:] & pairs[:, :-1]))
        return blocks > 0 and blocks >= self._least_share * cells.size

    def _reduced(self, frame: AnyFrame) -> UInt8[np.ndarray, "H W"]:
        """The luma of a picture in cells, each the mean of its pixels."""
        scale = min(1.0, _CELLS / max(frame.width, frame.height))
        reduced = self._scaler.reformat(
            on_host(frame),
            width=max(2, round(frame.width * scale)),
            height=max(2, round(frame.height * scale)),
            format="gray",
            interpolation=Interpolation.AREA,
            threads=1,
        )
        plane = reduced.planes[0]
        rows = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
        return rows[: plane.height, : plane.width].copy()
