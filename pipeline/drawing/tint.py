# SPDX-License-Identifier: Apache-2.0
"""Colour under what was drawn in luma, at half its resolution.

A line three pixels wide touches two pairs of chroma or three, as it lies; half its width drawn
around half its place would leave the pixel at one edge in the colours of the video. So the chroma
is filled rectangle by rectangle, wherever the luma's reaches: exact inside, and at most one pixel
too far at the edge.
"""

import cv2
import numpy as np
import supervision as sv
from jaxtyping import Float, Int, UInt8


def tint(
    chroma: UInt8[np.ndarray, "H/2 W/2 2"],
    corners: Int[np.ndarray, "N 4"],
    palette: sv.ColorPalette,
    color: Int[np.ndarray, " N"],
) -> None:
    """Fill whatever rectangles in the luma touch, both corners included, in place."""
    for (left, top, right, bottom), index in zip((corners // 2).tolist(), color, strict=True):
        value = palette.by_idx(int(index)).as_bgr()
        cv2.rectangle(chroma, (left, top), (right, bottom), value, cv2.FILLED)


def sides(xyxy: Float[np.ndarray, "N 4"], reach_px: int) -> Int[np.ndarray, "4N 4"]:
    """The four sides of each box whose lines reach so far to both sides of their centres."""
    left, top, right, bottom = xyxy.astype(int).T
    lines = (
        (left, top, left, bottom),
        (right, top, right, bottom),
        (left, top, right, top),
        (left, bottom, right, bottom),
    )
    centres = np.array(lines).transpose(2, 0, 1).reshape(-1, 4)
    return centres + np.array([-reach_px, -reach_px, reach_px, reach_px])


def reach_px(line_px: int) -> int:
    """Pixels a line covers beyond its centre; OpenCV draws lines wider than they should be."""
    around = 2 * line_px
    probe = np.zeros((2 * around + 1, 2 * around + 1), np.uint8)
    cv2.rectangle(probe, (around, around), (3 * around, 3 * around), 255, line_px)
    return around - int(np.flatnonzero(probe[-1])[0])
