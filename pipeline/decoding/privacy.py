# SPDX-License-Identifier: Apache-2.0
"""What no one may see: polygons made black in a picture before anyone gets it."""

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import UInt8

from pipeline.cameras import Polygon
from pipeline.nv12 import BLACK, GREY, chroma, luma


def blacken(
    picture: UInt8[np.ndarray, "rows W"],
    polygons: Sequence[Polygon],
    picture_hw: tuple[int, int],
) -> None:
    """Make polygons of an NV12 picture black, in place; what was there is lost.

    Args:
        picture: The picture, whose sides may have grown to even ones.
        polygons: What to make black, in shares of width and height.
        picture_hw: Height and width the shares are of.
    """
    height, width = picture_hw
    for polygon in polygons:
        corners = np.round(np.array(polygon) * (width, height)).astype(np.int32)
        cv2.fillPoly(luma(picture), [corners], BLACK)
        cv2.fillPoly(chroma(picture), [corners // 2], (GREY, GREY))
