# SPDX-License-Identifier: Apache-2.0
"""Where samples get their images: from files, or from memory that all workers share.

The store keeps decoded images, shrunk to a long side, until its memory is full; what does not fit
is decoded each time. What a sample looks like never depends on what is in it: with a store, every
image is shrunk to that side first, kept or not. Axes: H and W of an image.
"""

import mmap
import multiprocessing
from collections.abc import Sequence
from typing import Final

import numpy as np
from jaxtyping import Int
from PIL import Image

from model.errors import DataError
from training.pictures import open_upright, resample

_ABSENT: Final = -1
_LINE: Final = 64


class ImageFiles:
    """Images read from their files each time, no larger than needed."""

    def __init__(self, paths: Sequence[str]) -> None:
        self._paths = paths

    def open(self, index: int, scale: float) -> Image.Image:
        """Return an image that is to be shrunk by `scale`."""
        return open_upright(self._paths[index], scale)


class ImageStore:
    """Images kept in memory that is shared with processes forked later."""

    def __init__(
        self, paths: Sequence[str], image_hw: Int[np.ndarray, "I 2"], long_side: int, num_bytes: int
    ) -> None:
        """Reserve the memory; pages are taken as they fill.

        Args:
            paths: The files.
            image_hw: Their sizes.
            long_side: What images are shrunk to, in pixels.
            num_bytes: For all of them.

        Raises:
            DataError: there is not so much memory.
        """
        self._paths = paths
        ratio = np.minimum(long_side / image_hw.max(axis=1), 1)
        self._size_hw = np.maximum(np.rint(image_hw * ratio[:, None]), 1).astype(int)
        needed = int((self._size_hw.prod(axis=1) * 3 + _LINE).sum())
        try:
            pixels = mmap.mmap(-1, max(min(num_bytes, needed), 1))
            offsets = mmap.mmap(-1, 8 * len(paths) + 8)
        except (OSError, ValueError, OverflowError) as failure:
            raise DataError(
                f"a store of {num_bytes / 2**20:.0f} MB for images cannot be had: {failure}"
            ) from None
        self._pixels = np.frombuffer(pixels, np.uint8)
        self._offsets = np.frombuffer(offsets, np.int64)
        self._offsets[:-1] = _ABSENT  # the last entry is how far the memory is filled
        self._lock = multiprocessing.get_context("fork").Lock()

    @property
    def filled_bytes(self) -> int:
        """How much is kept."""
        return int(self._offsets[-1])

    def open(self, index: int, scale: float) -> Image.Image:  # noqa: ARG002 - always the same
        """Return an image at the size of the store."""
        height, width = map(int, self._size_hw[index])
        with self._lock:
            offset = int(self._offsets[index])
        if offset != _ABSENT:
            kept = self._pixels[offset : offset + height * width * 3]
            return Image.fromarray(kept.reshape(height, width, 3))
        whole = open_upright(self._paths[index])
        if (whole.height, whole.width) != (height, width):
            pixels = resample(whole, (0.0, 0.0, whole.width, whole.height), (height, width))
            whole = Image.fromarray(pixels)
        self._keep(index, np.asarray(whole))
        return whole

    def _keep(self, index: int, pixels: np.ndarray) -> None:
        """Copy an image in, if there is room and no other worker has."""
        with self._lock:
            offset = int(self._offsets[-1])
            if self._offsets[index] != _ABSENT or offset + pixels.size > len(self._pixels):
                return
            self._pixels[offset : offset + pixels.size] = pixels.reshape(-1)
            self._offsets[index] = offset
            self._offsets[-1] = offset + -(-pixels.size // _LINE) * _LINE
