# SPDX-License-Identifier: Apache-2.0
"""What a kernel is told about one look at a picture: where its samples lie, what they mean.

A component is seen upright from its upper left sample: how many bytes it is to the right neighbour
and to the one below. So a turned picture differs by signs, and a part of one by an address.
"""

from functools import lru_cache
from typing import Final, NamedTuple

import numpy as np
from jaxtyping import Float64

from model.cuda.coded import FORMATS, Coded, ColourMatrix, Component
from model.errors import EngineError
from model.slicing import Region

LOOK: Final = np.dtype(
    [
        ("origin", np.uint64, 3),
        ("across", np.int32, 3),
        ("down", np.int32, 3),
        ("width", np.int32, 3),
        ("height", np.int32, 3),
        ("matrix", np.float32, 9),
        ("offset", np.float32, 3),
        ("wide", np.int32),
        ("left", np.int32),
        ("top", np.int32),
        ("inner_w", np.int32),
        ("inner_h", np.int32),
        ("ticket", np.int32),
    ]
)
"""`Look` of kernels/look.h."""
EMPTY: Final[np.void] = np.zeros(1, LOOK)[0]
"""An entry that is not used: its canvas is padding."""
MOST_SAMPLES: Final = 32767
"""Of a picture's side; the kernel's numbers hold no more."""
MOST_PIXELS: Final = 4096
"""Of a canvas's side."""
ALIGNMENT: Final = 64
"""Of a slot's address, and of the planes in it: loads of several bytes then stay within a row."""
LUMA_SHARES: Final[dict[ColourMatrix, tuple[float, float]]] = {
    "bt601": (0.299, 0.114),
    "bt709": (0.2126, 0.0722),
    "bt2020": (0.2627, 0.0593),
}
"""Of red and of blue in the luma."""


class Colour(NamedTuple):
    """Red, green and blue in levels of 255 are `matrix @ components + offset`."""

    matrix: Float64[np.ndarray, "3 3"]
    offset: Float64[np.ndarray, "3"]


def describe(
    coded: Coded, address: int, region: Region, canvas_hw: tuple[int, int], ticket: int
) -> np.void:
    """Return the entry of `LOOK` for a region of a picture.

    Args:
        coded: How the picture lies in its slot.
        address: Where the slot begins, a multiple of `ALIGNMENT`.
        region: Of the upright picture; of one with oblong pixels only the whole.
        canvas_hw: Height and width of the canvas that it is drawn on.
        ticket: Comes back with what was found.
    """
    if address % ALIGNMENT:
        raise ValueError(f"a slot must begin at a multiple of {ALIGNMENT}, got {address:#x}")
    look = _template(coded, region, canvas_hw).copy()
    look["origin"] += np.uint64(address)
    look["ticket"] = ticket
    return look


def colour(coded: Coded) -> Colour:
    """How samples, as they are stored, become red, green and blue."""
    layout = FORMATS[coded.pixel_format]
    if coded.matrix == "rgb":
        return Colour(np.eye(3) * 255 / layout.largest, np.zeros(3))
    red, blue = LUMA_SHARES[coded.matrix]
    green = 1 - red - blue
    to_rgb = np.array(
        [
            [1, 0, 2 * (1 - red)],
            [1, -2 * (1 - blue) * blue / green, -2 * (1 - red) * red / green],
            [1, 2 * (1 - blue), 0],
        ]
    )
    fine = 2 ** (layout.bits - 8)
    if coded.full_range:
        zero, span = np.array([0, 128, 128]) * fine, np.full(3, layout.largest)
    else:
        zero, span = np.array([16, 128, 128]) * fine, np.array([219, 224, 224]) * fine
    matrix = 255 * to_rgb / span
    return Colour(matrix / 2**layout.shift, -matrix @ zero)


@lru_cache(maxsize=1024)
def _template(coded: Coded, region: Region, canvas_hw: tuple[int, int]) -> np.void:
    """An entry but for address and ticket: a stream's are the same from frame to frame."""
    _check(coded, canvas_hw)
    part = _part(coded, region)
    letterbox = region.letterbox(canvas_hw)
    look: np.void = np.zeros(1, LOOK)[0]
    for index, component in enumerate(FORMATS[coded.pixel_format].components):
        view = _view(coded, component, part)
        look["origin"][index], look["across"][index], look["down"][index] = view[:3]
        look["width"][index], look["height"][index] = view[3:]
    matrix, offset = colour(coded)
    look["matrix"], look["offset"] = matrix.ravel(), offset
    look["wide"] = FORMATS[coded.pixel_format].wide
    look["left"], look["top"] = letterbox.pad_left_px, letterbox.pad_top_px
    look["inner_h"], look["inner_w"] = letterbox.resized_hw
    return look


def _check(coded: Coded, canvas_hw: tuple[int, int]) -> None:
    """Refuse what the kernel's numbers do not hold, and planes that do not lie in their slot."""
    for what, (height, width), most in (
        ("picture", coded.coded_hw, MOST_SAMPLES),
        ("canvas", canvas_hw, MOST_PIXELS),
    ):
        if max(height, width) > most:
            raise EngineError(
                f"a {what} of {width}x{height} px: the engine cuda takes sides up to {most} px; "
                "use another engine"
            )
    if any(offset % ALIGNMENT for offset in coded.offsets):
        raise ValueError(f"planes must begin at multiples of {ALIGNMENT}, got {coded.offsets}")
    for component in FORMATS[coded.pixel_format].components:
        _, rows = component.counts(coded.coded_hw)
        end = coded.offsets[component.plane] + rows * coded.pitches[component.plane]
        if end > coded.num_bytes:
            raise ValueError(f"planes must end within {coded.num_bytes} bytes, got {end}")


def _part(coded: Coded, region: Region) -> Region:
    """The region in coded pixels."""
    turned_hw = coded.coded_hw[::-1] if coded.quarter_turns % 2 else coded.coded_hw
    if region == Region.whole(coded.upright_hw):
        return Region.whole(coded.coded_hw)
    if turned_hw != coded.upright_hw:
        raise ValueError(f"of a picture with oblong pixels only the whole is shown, got {region}")
    if not region.lies_in(Region.whole(coded.upright_hw)):
        raise ValueError(f"expected a region of a picture of {coded.upright_hw}, got {region}")
    return region.as_coded(coded.coded_hw, coded.quarter_turns)


def _view(coded: Coded, component: Component, part: Region) -> tuple[int, int, int, int, int]:
    """First byte of the upper left sample upright, bytes across and down, width, height."""
    first_x, first_y = part.left >> component.shift_x, part.top >> component.shift_y
    if (first_x << component.shift_x, first_y << component.shift_y) != part[:2]:
        raise ValueError(f"a region must begin on a whole sample of colour, got {part} as coded")
    width, height = component.counts((part.height, part.width))
    step, pitch = component.step, coded.pitches[component.plane]
    first = coded.offsets[component.plane] + component.first + first_x * step + first_y * pitch
    last_column, last_row = (width - 1) * step, (height - 1) * pitch
    match coded.quarter_turns:
        case 1:
            return first + last_column, pitch, -step, height, width
        case 2:
            return first + last_row + last_column, -step, -pitch, width, height
        case 3:
            return first + last_row, -pitch, step, height, width
    return first, step, pitch, width, height
