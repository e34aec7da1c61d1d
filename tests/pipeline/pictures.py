# SPDX-License-Identifier: Apache-2.0
"""NV12 pictures from and to colours, computed in float64 from the definition of the matrices."""

import numpy as np

from pipeline import nv12

RED_BLUE: dict[nv12.Matrix, tuple[float, float]] = {
    "bt601": (0.299, 0.114),
    "bt709": (0.2126, 0.0722),
}


def nv12_of(bgr: np.ndarray, matrix: nv12.Matrix = "bt709") -> np.ndarray:
    """A picture of these colours; an odd size grows by a copy of the last row or column."""
    height, width, _ = bgr.shape
    even = np.pad(bgr, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    blue, green, red = np.moveaxis(even / 255, -1, 0)
    of_red, of_blue = RED_BLUE[matrix]
    light = of_red * red + (1 - of_red - of_blue) * green + of_blue * blue
    pair = np.stack(((blue - light) / (2 - 2 * of_blue), (red - light) / (2 - 2 * of_red)), axis=-1)
    picture = np.empty(nv12.shape((height, width)), np.uint8)
    nv12.luma(picture)[...] = np.rint(16 + 219 * light)
    quads = pair.reshape(len(even) // 2, 2, -1, 2, 2).mean(axis=(1, 3))
    nv12.chroma(picture)[...] = np.rint(128 + 224 * quads)
    return picture


def bgr_of(picture: np.ndarray, matrix: nv12.Matrix = "bt709") -> np.ndarray:
    """The colours of a picture, each chroma pair on its 2 x 2 pixels; float64, 0 to 255."""
    light = (nv12.luma(picture).astype(np.float64) - 16) / 219
    pair = (nv12.chroma(picture).astype(np.float64) - 128) / 224
    of_blue_difference, of_red_difference = np.moveaxis(
        pair.repeat(2, axis=0).repeat(2, axis=1), -1, 0
    )
    of_red, of_blue = RED_BLUE[matrix]
    red = light + 2 * (1 - of_red) * of_red_difference
    blue = light + 2 * (1 - of_blue) * of_blue_difference
    green = (light - of_red * red - of_blue * blue) / (1 - of_red - of_blue)
    return np.clip(np.stack((blue, green, red), axis=-1) * 255, 0, 255)


def black(hw: tuple[int, int]) -> np.ndarray:
    """A picture without light or colour."""
    picture = np.full(nv12.shape(hw), nv12.BLACK, np.uint8)
    nv12.chroma(picture)[...] = nv12.GREY
    return picture
