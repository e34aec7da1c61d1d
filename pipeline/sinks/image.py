# SPDX-License-Identifier: Apache-2.0
"""One annotated picture as JPEG or PNG."""

from pathlib import Path
from typing import Final

import av
import cv2
import numpy as np
from av.video.reformatter import Colorspace, Interpolation
from jaxtyping import UInt8

from pipeline.errors import SinkError
from pipeline.nv12 import Matrix
from pipeline.sinks.partial import partial_path, publish, reported

_ENCODINGS: Final[dict[str, list[int]]] = {
    ".jpg": [cv2.IMWRITE_JPEG_QUALITY, 92],
    ".jpeg": [cv2.IMWRITE_JPEG_QUALITY, 92],
    ".png": [cv2.IMWRITE_PNG_COMPRESSION, 3],
}
_SNAPSHOT_QUALITY: Final = 85


class ImageWriter:
    """Writes a single picture; the suffix chooses the format."""

    def __init__(self, path: Path) -> None:
        if path.suffix.lower() not in _ENCODINGS:
            raise SinkError(
                f"{path}: cannot write pictures as {path.suffix!r}; name it {', '.join(_ENCODINGS)}"
            )
        self._path = path

    def write(
        self,
        picture: UInt8[np.ndarray, "rows W"],
        *,
        picture_hw: tuple[int, int],
        matrix: Matrix,
    ) -> None:
        """Write the picture (NV12), less what it grew by; a second one replaces it."""
        suffix = self._path.suffix.lower()
        height, width = picture_hw
        pixels = _bgr(picture, matrix)[:height, :width]
        _, encoded = cv2.imencode(suffix, pixels, _ENCODINGS[suffix])
        with reported(self._path):
            partial_path(self._path).write_bytes(encoded.tobytes())

    def finish(self) -> None:
        """Give the picture its final name, if one was written."""
        with reported(self._path):
            if partial_path(self._path).exists():
                publish(self._path)

    def abandon(self) -> None:
        """Leave the picture under its temporary name."""


def jpeg(
    picture: UInt8[np.ndarray, "rows W"], picture_hw: tuple[int, int], matrix: Matrix
) -> bytes:
    """Encode a picture (NV12), less what it grew by, as JPEG."""
    height, width = picture_hw
    pixels = _bgr(picture, matrix)[:height, :width]
    _, encoded = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, _SNAPSHOT_QUALITY])
    return encoded.tobytes()


def _bgr(picture: UInt8[np.ndarray, "rows W"], matrix: Matrix) -> UInt8[np.ndarray, "H W 3"]:
    """The picture's colours by swscale, as OpenCV knows one matrix only."""
    frame = av.VideoFrame.from_ndarray(picture, format="nv12").reformat(
        format="bgr24",
        src_colorspace=Colorspace.ITU709 if matrix == "bt709" else Colorspace.ITU601,
        interpolation=Interpolation.BILINEAR
        | Interpolation.ACCURATE_RND
        | Interpolation.FULL_CHR_H_INT,
    )
    return frame.to_ndarray()
