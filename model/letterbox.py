# SPDX-License-Identifier: Apache-2.0
"""Fit images onto the network's canvas, and boxes back onto the image.

Axes: H and W height and width of the image, N boxes.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from model.boxes import clip

PAD: Final = 114
"""Value of the canvas around the image, in each channel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Letterbox:
    """How one image lies on a canvas: resized with its aspect kept, and centred."""

    source_hw: tuple[int, int]
    canvas_hw: tuple[int, int]
    resized_hw: tuple[int, int]
    pad_top_px: int
    pad_left_px: int

    @classmethod
    def fit(cls, source_hw: tuple[int, int], canvas_hw: tuple[int, int]) -> "Letterbox":
        """Fill the canvas as far as the aspect allows, enlarging small images too."""
        if min(*source_hw, *canvas_hw) < 1:
            raise ValueError(f"sides must be at least 1 px, got {source_hw=} and {canvas_hw=}")
        resized_hw = _fitted(source_hw, canvas_hw)
        return cls(
            source_hw=source_hw,
            canvas_hw=canvas_hw,
            resized_hw=resized_hw,
            pad_top_px=(canvas_hw[0] - resized_hw[0]) // 2,
            pad_left_px=(canvas_hw[1] - resized_hw[1]) // 2,
        )

    def to_source(self, xyxy: Float[np.ndarray, "N 4"]) -> Float[np.ndarray, "N 4"]:
        """Canvas pixels to image pixels, clipped to the image."""
        moved = (xyxy - self._offset(xyxy.dtype)) / self._scale(xyxy.dtype)
        return clip(moved, self.source_hw)

    def to_canvas(self, xyxy: Float[np.ndarray, "N 4"]) -> Float[np.ndarray, "N 4"]:
        """Image pixels to canvas pixels."""
        return xyxy * self._scale(xyxy.dtype) + self._offset(xyxy.dtype)

    def _scale(self, dtype: np.dtype) -> np.ndarray:
        """Canvas pixels per image pixel of each side: rounding makes the two axes differ."""
        vertical = self.resized_hw[0] / self.source_hw[0]
        horizontal = self.resized_hw[1] / self.source_hw[1]
        return np.array((horizontal, vertical, horizontal, vertical), dtype=dtype)

    def _offset(self, dtype: np.dtype) -> np.ndarray:
        return np.array((self.pad_left_px, self.pad_top_px) * 2, dtype=dtype)


def rectangle(source_hw: tuple[int, int], long_side: int, stride: int = 32) -> tuple[int, int]:
    """Return the smallest canvas of whole strides for an image resized to a long side."""
    ratio = long_side / max(source_hw)
    height, width = (-(-max(round(side * ratio), 1) // stride) * stride for side in source_hw)
    return height, width


def letterbox_image(image: UInt8[np.ndarray, "H W 3"], letterbox: Letterbox) -> np.ndarray:
    """Draw an image on its canvas, resampled by the antialiased triangle filter.

    Returns:
        The canvas, uint8, of `letterbox.canvas_hw` and 3 channels.
    """
    if image.shape[:2] != letterbox.source_hw:
        raise ValueError(f"expected an image of {letterbox.source_hw}, got {image.shape[:2]}")
    height, width = letterbox.resized_hw
    if letterbox.resized_hw != letterbox.source_hw:
        resized = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
        image = np.asarray(resized)
    canvas = np.full((*letterbox.canvas_hw, 3), PAD, np.uint8)
    top, left = letterbox.pad_top_px, letterbox.pad_left_px
    canvas[top : top + height, left : left + width] = image
    return canvas


def _fitted(source_hw: tuple[int, int], canvas_hw: tuple[int, int]) -> tuple[int, int]:
    """Size of the image by the larger of the two ratios that, once rounded, stays inside."""
    ratios = (canvas_hw[0] / source_hw[0], canvas_hw[1] / source_hw[1])
    height, width = (max(round(side * max(ratios)), 1) for side in source_hw)
    if height > canvas_hw[0] or width > canvas_hw[1]:
        height, width = (max(round(side * min(ratios)), 1) for side in source_hw)
    return height, width
