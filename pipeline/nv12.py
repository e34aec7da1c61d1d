# SPDX-License-Identifier: Apache-2.0
"""Full-size pictures as decoders make them and encoders take them: NV12.

One uint8 array of 3H/2 rows: H rows of luma, then H/2 rows in which the two chroma values (U, V) of
every 2 x 2 pixels lie side by side. Values are of limited range: luma 16 to 235, chroma 16 to 240
around 128. H and W, height and width of the picture, are even.
"""

from typing import Literal

import numpy as np
from jaxtyping import UInt8

Matrix = Literal["bt601", "bt709"]
"""How red, green and blue became luma and chroma; a picture's own pixels do not tell."""

BLACK = 16
GREY = 128
"""Chroma without colour."""


def even_hw(source_hw: tuple[int, int]) -> tuple[int, int]:
    """The least even size that holds a source."""
    height, width = source_hw
    return height + height % 2, width + width % 2


def shape(source_hw: tuple[int, int]) -> tuple[int, int]:
    """Shape of the picture of a source; an odd one grows by a row or a column."""
    height, width = even_hw(source_hw)
    return height * 3 // 2, width


def picture_hw(picture_shape: tuple[int, ...]) -> tuple[int, int]:
    """Height and width of a picture of this shape."""
    rows, width = picture_shape
    if rows % 3 or width % 2:
        raise ValueError(f"no NV12 picture has shape {picture_shape}; wanted (3H/2, W), both even")
    return rows * 2 // 3, width


def luma(picture: UInt8[np.ndarray, "rows W"]) -> UInt8[np.ndarray, "H W"]:
    """The picture's luma, in place."""
    height, _ = picture_hw(picture.shape)
    return picture[:height]


def chroma(picture: UInt8[np.ndarray, "rows W"]) -> UInt8[np.ndarray, "H/2 W/2 2"]:
    """The picture's chroma as pairs, in place."""
    height, width = picture_hw(picture.shape)
    return picture[height:].reshape(height // 2, width // 2, 2)
