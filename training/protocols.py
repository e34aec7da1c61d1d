# SPDX-License-Identifier: Apache-2.0
"""How images are laid out to be evaluated: in squares, or in the rectangles of the published AP.

The published protocol shrinks the long side to 640, cuts fractions of a pixel off, sorts images by
their shape, and gives each batch a canvas of whole strides, half a stride larger than need be: a
"640" evaluation runs at up to 672 pixels. Axes: I images, H and W height and width of a picture.
"""

from dataclasses import dataclass
from math import ceil
from typing import Final, Literal

import numpy as np
from jaxtyping import Float, Int, UInt8

from model.letterbox import Letterbox, letterbox_image
from training.pictures import open_upright
from training.records import Split
from training.sampling import STRIDE, Shard

Protocol = Literal["square", "rectangular"]
MARGIN_STRIDES: Final = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """One batch to be looked at."""

    indices: tuple[int, ...]
    letterboxes: tuple[Letterbox, ...]

    @property
    def canvas_hw(self) -> tuple[int, int]:
        """The size that all of them have."""
        return self.letterboxes[0].canvas_hw


class EvaluationPlan:
    """Every image of a split on its canvas, in batches."""

    def __init__(
        self,
        split: Split,
        protocol: Protocol,
        *,
        image_size: int = 640,
        batch_size: int = 32,
        shard: Shard | None = None,
    ) -> None:
        order, letterboxes = _LAYOUTS[protocol](split.image_hw, image_size, batch_size)
        batches = [order[first : first + batch_size] for first in range(0, len(order), batch_size)]
        mine = shard or Shard()
        self.views = tuple(
            View(
                indices=tuple(map(int, batch)),
                letterboxes=tuple(letterboxes[index] for index in batch),
            )
            for batch in batches[mine.rank :: mine.world]
        )


def look(path: str, letterbox: Letterbox) -> UInt8[np.ndarray, "H W 3"]:
    """Read an image onto its canvas."""
    return letterbox_image(np.asarray(open_upright(path)), letterbox)


Layout = tuple[Int[np.ndarray, " I"], list[Letterbox]]


def _squares(image_hw: Int[np.ndarray, "I 2"], image_size: int, _: int) -> Layout:
    canvas_hw = (image_size, image_size)
    fitted = [Letterbox.fit((int(h), int(w)), canvas_hw) for h, w in image_hw]
    return np.arange(len(image_hw)), fitted


def _rectangles(image_hw: Int[np.ndarray, "I 2"], image_size: int, batch_size: int) -> Layout:
    ratios = image_hw[:, 0] / image_hw[:, 1]
    order = np.argsort(ratios, kind="stable")
    letterboxes: dict[int, Letterbox] = {}
    for first in range(0, len(order), batch_size):
        batch = order[first : first + batch_size]
        canvas_hw = _canvas(ratios[batch], image_size)
        for index in batch:
            height, width = map(int, image_hw[index])
            letterboxes[int(index)] = _centred((height, width), image_size, canvas_hw)
    return order, [letterboxes[index] for index in range(len(image_hw))]


_LAYOUTS: Final = {"square": _squares, "rectangular": _rectangles}


def _canvas(ratios: Float[np.ndarray, " I"], image_size: int) -> tuple[int, int]:
    """Return the canvas of images of some ratios of height to width."""
    shape = (1.0, 1.0)
    if ratios.max() < 1:
        shape = (float(ratios.max()), 1.0)
    elif ratios.min() > 1:
        shape = (1.0, 1 / float(ratios.min()))
    height, width = (ceil(side * image_size / STRIDE + MARGIN_STRIDES) * STRIDE for side in shape)
    return height, width


def _centred(image_hw: tuple[int, int], image_size: int, canvas_hw: tuple[int, int]) -> Letterbox:
    height, width = (max(side * image_size // max(image_hw), 1) for side in image_hw)
    return Letterbox(
        source_hw=image_hw,
        canvas_hw=canvas_hw,
        resized_hw=(height, width),
        pad_top_px=(canvas_hw[0] - height) // 2,
        pad_left_px=(canvas_hw[1] - width) // 2,
    )
