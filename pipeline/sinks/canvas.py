# SPDX-License-Identifier: Apache-2.0
"""Pictures of any size as the frames of one video: NV12 in, NV12 out (`pipeline/nv12.py`)."""

import av
import cv2
import numpy as np
from jaxtyping import UInt8

from model.letterbox import Letterbox
from pipeline import nv12


class Canvas:
    """Turns pictures into frames of one size.

    A picture of another size than promised is fitted in with its aspect kept, between black bars.
    """

    def __init__(self, picture_hw: tuple[int, int]) -> None:
        if min(picture_hw) < 1:
            raise ValueError(f"a video must have at least 1 x 1 px, got (H, W) {picture_hw}")
        self.hw = nv12.even_hw(picture_hw)

    def frame(self, picture: UInt8[np.ndarray, "rows W"]) -> av.VideoFrame:
        """Return the picture as a frame; one of the right size shares its memory."""
        if nv12.picture_hw(picture.shape) != self.hw:
            picture = self._fitted(picture)
        return av.VideoFrame.from_numpy_buffer(picture, format="nv12")

    def _fitted(self, picture: UInt8[np.ndarray, "rows W"]) -> UInt8[np.ndarray, "rows_fit Wfit"]:
        source_hw = nv12.picture_hw(picture.shape)
        fit = Letterbox.fit(source_hw, self.hw)
        # Even numbers, so that luma and chroma stay together.
        height, width = (max(2, side_px // 2 * 2) for side_px in fit.resized_hw)
        top, left = (pad_px // 2 * 2 for pad_px in (fit.pad_top_px, fit.pad_left_px))
        how = cv2.INTER_AREA if height < source_hw[0] else cv2.INTER_LINEAR
        canvas = np.empty(nv12.shape(self.hw), np.uint8)
        nv12.luma(canvas)[...] = nv12.BLACK
        nv12.chroma(canvas)[...] = nv12.GREY
        for plane, step in ((nv12.luma, 1), (nv12.chroma, 2)):
            resized = cv2.resize(plane(picture), (width // step, height // step), interpolation=how)
            rows = slice(top // step, (top + height) // step)
            plane(canvas)[rows, left // step : (left + width) // step] = resized
        return canvas
