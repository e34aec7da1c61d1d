# SPDX-License-Identifier: Apache-2.0
"""Line widths and text size for a picture."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """Sizes that look alike on small and large pictures."""

    line_px: int
    text_scale: float
    """Of OpenCV's font: 1.0 is about 22 px of capital height."""
    text_px: int
    """Width of the letters' strokes."""
    padding_px: int
    """Between a label's text and its edge."""

    @classmethod
    def of(cls, picture_hw: tuple[int, int]) -> "Style":
        """Sizes for a picture; text never gets too small to read."""
        shorter_px = min(picture_hw)
        return cls(
            line_px=1 + round(shorter_px / 700),
            text_scale=max(0.32, 0.15 + shorter_px / 2000),
            text_px=max(1, round(shorter_px / 900)),
            padding_px=max(2, round(shorter_px / 270)),
        )
