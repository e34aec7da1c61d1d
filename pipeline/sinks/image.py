# SPDX-License-Identifier: Apache-2.0
"""One annotated picture as JPEG or PNG. Axes: H and W height and width of the picture."""

from pathlib import Path
from typing import Final

import cv2
import numpy as np
from jaxtyping import UInt8

from pipeline.errors import SinkError
from pipeline.sinks.partial import partial_path, publish, reported

_ENCODINGS: Final[dict[str, list[int]]] = {
    ".jpg": [cv2.IMWRITE_JPEG_QUALITY, 92],
    ".jpeg": [cv2.IMWRITE_JPEG_QUALITY, 92],
    ".png": [cv2.IMWRITE_PNG_COMPRESSION, 3],
}


class ImageWriter:
    """Writes a single picture; the suffix chooses the format."""

    def __init__(self, path: Path) -> None:
        if path.suffix.lower() not in _ENCODINGS:
            raise SinkError(
                f"{path}: cannot write pictures as {path.suffix!r}; name it {', '.join(_ENCODINGS)}"
            )
        self._path = path

    def write(self, picture: UInt8[np.ndarray, "H W 3"]) -> None:
        """Write the picture (BGR); a second one replaces it."""
        suffix = self._path.suffix.lower()
        _, encoded = cv2.imencode(suffix, picture, _ENCODINGS[suffix])
        with reported(self._path):
            partial_path(self._path).write_bytes(encoded.tobytes())

    def finish(self) -> None:
        """Give the picture its final name, if one was written."""
        with reported(self._path):
            if partial_path(self._path).exists():
                publish(self._path)

    def abandon(self) -> None:
        """Leave the picture under its temporary name."""
