# SPDX-License-Identifier: Apache-2.0
"""Hue, saturation and value changed by tables of 256 entries. Axes: H and W of the picture."""

import cv2
import numpy as np
from jaxtyping import Float, UInt8

HUES = 180
"""OpenCV counts hue in steps of two degrees."""


def shift_colours(
    pixels: UInt8[np.ndarray, "H W 3"], gains: Float[np.ndarray, " 3"]
) -> UInt8[np.ndarray, "H W 3"]:
    """Multiply hue (around the circle), saturation and value by gains, where 1 changes nothing."""
    levels = np.arange(256, dtype=np.float64)[:, None] * gains
    table = np.clip(levels, 0, 255)
    table[:, 0] = levels[:, 0] % HUES
    turned = cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV)
    changed = cv2.LUT(turned, table.astype(np.uint8)[None])
    return cv2.cvtColor(changed, cv2.COLOR_HSV2RGB)
