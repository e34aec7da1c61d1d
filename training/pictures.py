# SPDX-License-Identifier: Apache-2.0
"""Image files as pixels: opened upright, decoded no larger than needed, resampled once.

Shrinking is Pillow's triangle filter, the one that `letterbox_image` uses. Against that filter in
float64, 8 photographs halved: Pillow differs by 0.3 of 255 in the mean and 1 at most, OpenCV's
INTER_AREA by 1.9 and 51, INTER_LINEAR by 2.3 and 58. A JPEG decoded at half its size and then
halved again differs by 0.6 and 7, and takes a third less; decoded at the very size that is wanted
by 1.5 and 35. So `MARGIN` is 2. Axes: H and W height and width of an image.
"""

from pathlib import Path
from typing import Final

import cv2
import numpy as np
from jaxtyping import UInt8
from PIL import Image

from model.errors import DataError

MARGIN: Final = 2
"""How many times larger than wanted a JPEG is decoded at least, where it is larger than wanted."""
UNREADABLE: Final = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
"""What Pillow raises for a file that is no image, or a damaged one."""
_ORIENTATION: Final = 0x0112
_TURNED: Final = (5, 6, 7, 8)
# fmt: off
_UPRIGHT: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,      7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# fmt: on


def open_upright(path: Path | str, scale: float = 1.0) -> Image.Image:
    """Read an image file as RGB, turned as it asks for.

    Args:
        path: The file.
        scale: What it will be shrunk by; a JPEG may then be decoded smaller, `MARGIN` times larger
            than wanted at least.

    Raises:
        DataError: it is not an image that can be read.
    """
    try:
        image: Image.Image = Image.open(path)
        orientation = image.getexif().get(_ORIENTATION, 1)
        shrink = 1 / (scale * MARGIN)
        if shrink >= 2:
            step = min(1 << int(np.log2(shrink)), 8)
            image.draft("RGB", (-(-image.width // step), -(-image.height // step)))
        if image.mode != "RGB":
            image = image.convert("RGB")  # also makes a copy of what is RGB
        image.load()
    except UNREADABLE:
        raise DataError(f"{path}: not an image that can be read") from None
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


def upright_hw(image: Image.Image) -> tuple[int, int]:
    """Return the size of an opened file once it is turned as it asks for."""
    if image.getexif().get(_ORIENTATION, 1) in _TURNED:
        return image.width, image.height
    return image.height, image.width


def resample(
    picture: Image.Image,
    region: tuple[float, float, float, float],
    size_hw: tuple[int, int],
) -> UInt8[np.ndarray, "H W 3"]:
    """Bring a part of a picture to a size: triangle filter to shrink, bilinear to enlarge.

    Args:
        picture: In RGB.
        region: Left, top, right and bottom of the part, in its pixels; need not be whole.
        size_hw: Of the result.
    """
    left, top, right, bottom = region
    height, width = size_hw
    across, down = (right - left) / width, (bottom - top) / height
    if across > 1 or down > 1:
        box = (
            max(left, 0.0),
            max(top, 0.0),
            min(right, picture.width),
            min(bottom, picture.height),
        )
        return np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR, box))
    pixels = np.asarray(picture)
    if region == (0, 0, width, height) == (0, 0, picture.width, picture.height):
        return pixels
    # The centre of pixel 0 lies at 0 for OpenCV, at 0.5 for us.
    to_picture = np.array(
        ((across, 0, left + (across - 1) / 2), (0, down, top + (down - 1) / 2)), np.float64
    )
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(
        pixels, to_picture, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE
    )
