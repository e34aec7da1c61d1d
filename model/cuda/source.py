# SPDX-License-Identifier: Apache-2.0
"""The kernels' texts, and how they are launched.

The texts include nothing: whoever compiles them gets one text made of a file that says what the
machine can do, the records they read, and the kernel itself. Nothing here needs a GPU; the kernels
have run on a processor, in the tests, and nowhere else.
"""

from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from importlib.resources import files
from typing import Final

import numpy as np

from model.cuda.device import KernelName
from model.cuda.plan import NumberFormat

MACHINE: Final = "machine.h"
"""For a GPU."""
PARTS: Final[dict[KernelName, tuple[str, ...]]] = {
    "letterbox_batch": ("look.h", "preprocess.cu"),
    "suppress_ranked": ("suppress.cu",),
}
ARGUMENTS: Final[dict[KernelName, tuple[type[np.generic], ...]]] = {
    "letterbox_batch": (
        np.uint64,  # looks
        np.uint64,  # canvases
        np.int32,  # canvas_w
        np.int32,  # canvas_h
        np.int64,  # image_stride, in numbers, as the other strides
        np.int32,  # channel_stride
        np.int32,  # row_stride
        np.int32,  # pixel_stride
    ),
    "suppress_ranked": (
        np.uint64,  # keys
        np.uint64,  # boxes
        np.uint64,  # tickets
        np.int32,  # ticket_stride, in ints
        np.int32,  # num_keys
        np.int32,  # num_anchors
        np.int32,  # num_classes
        np.int32,  # max_boxes
        np.float32,  # max_iou
        np.int32,  # class_aware
        np.uint64,  # found
    ),
}
"""Of each kernel, in the text's order; addresses are uint64."""
OUT: Final[dict[NumberFormat, int]] = {"f32": 0, "f16": 1, "bf16": 2}
"""What `letterbox_batch` is compiled with for each number format of the canvases."""
FOUND_HEAD: Final = 8
"""Ints before the boxes of an image in `found`: how many, the ticket, zeros."""
FOUND_ROW: Final = 6
"""Ints of a box: left, top, right, bottom and score are float32, then the class."""
MOST_BOXES: Final = 1500
"""That `suppress_ranked` keeps of an image, all in a block's shared memory."""
TILE: Final = 32
"""Pixels of a canvas, across and down, that one block makes."""
_LETTERBOX_BLOCK: Final = (TILE, 8, 1)
_SUPPRESS_BLOCK: Final = (256, 1, 1)


@dataclass(frozen=True, slots=True)
class Launch:
    """How many blocks of how many threads."""

    grid: tuple[int, int, int]
    block: tuple[int, int, int]


def letterbox_launch(num_looks: int, canvas_hw: tuple[int, int]) -> Launch:
    """Return the launch of `letterbox_batch` for canvases of one size."""
    rows, columns = (-(-side // TILE) for side in canvas_hw)
    return Launch((columns, rows, num_looks), _LETTERBOX_BLOCK)


def suppress_launch(num_images: int) -> Launch:
    """Return the launch of `suppress_ranked`."""
    return Launch((num_images, 1, 1), _SUPPRESS_BLOCK)


def kernel_source(kernel: KernelName) -> str:
    """Return the whole text of a kernel, for a GPU's compiler."""
    return "".join(_text(part) for part in (MACHINE, *PARTS[kernel]))


@cache
def kernel_version() -> str:
    """Return a digest of all texts, for names of what depends on them."""
    texts = "".join(kernel_source(kernel) for kernel in sorted(PARTS))
    return sha256(texts.encode()).hexdigest()[:16]


def _text(part: str) -> str:
    return files("model.cuda").joinpath("kernels", part).read_text()
