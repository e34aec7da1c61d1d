# SPDX-License-Identifier: Apache-2.0
"""Pictures that a decoder made from what it did not get.

After a loss FFmpeg shows grey, or green where memory was empty, wherever it lacks what the picture
refers to, and says nothing of it. Such pictures are looked for only from a fault to the next key
picture, so that a true picture of a grey wall is never in question.
"""

import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter

from pipeline.decoding.surface import AnyFrame, on_host

_WIDTH, _HEIGHT = 64, 36
_NEAR = 3  # levels
_GREY_SHARE, _GREEN_SHARE = 0.5, 0.25
_LEAST_SPREAD = 2.0  # levels of luma; less is a picture of nothing


class DamageWatch:
    """Follows the pictures of one stream."""

    def __init__(self) -> None:
        self._suspicious = False
        self._scaler = VideoReformatter()

    def on_fault(self) -> None:
        """Note that a packet or a picture was damaged."""
        self._suspicious = True

    def shows_in(self, frame: AnyFrame) -> bool:
        """Whether damage shows in a picture; key pictures need nothing of what came before."""
        if frame.key_frame:
            self._suspicious = False
        if not self._suspicious:
            return False
        small = self._scaler.reformat(
            on_host(frame),
            width=_WIDTH,
            height=_HEIGHT,
            format="yuv444p",
            interpolation=Interpolation.POINT,
            threads=1,
        )
        luma, blue, red = small.to_ndarray().astype(np.int16)
        grey = _near(luma, 128) & _near(blue, 128) & _near(red, 128)
        green = (blue <= _NEAR) & (red <= _NEAR)  # no camera's picture has these
        flat = float(luma.std()) < _LEAST_SPREAD
        return bool(flat or grey.mean() > _GREY_SHARE or green.mean() > _GREEN_SHARE)


def _near(values: np.ndarray, level: int) -> np.ndarray:
    return np.abs(values - level) <= _NEAR
