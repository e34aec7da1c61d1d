# SPDX-License-Identifier: Apache-2.0
"""Image files as a source of packets: one file, one packet, one frame."""

import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageOps

from pipeline.decoding.inputs import Source, image_files
from pipeline.decoding.media import MediaFacts, RawPacket
from pipeline.decoding.redaction import redact
from pipeline.errors import SourceUnreadable
from pipeline.messages import CodecParameters

IMAGE_CODEC = "image"


class ImageReader:
    """The images of a folder in natural order, or one image."""

    def __init__(self, source: Source, *, rate: float) -> None:
        location = Path(source.location)
        self._paths = image_files(location) if source.kind == "images" else (location,)
        self._rate = rate
        self.facts = MediaFacts(
            parameters=CodecParameters(codec=IMAGE_CODEC),
            num_frames=len(self._paths),
            frame_rate=rate,
            duration_s=len(self._paths) / rate,
        )

    def packets(self) -> Iterator[RawPacket]:
        """The files' bytes, timed as `rate` images a second.

        Raises:
            SourceUnreadable: a file cannot be read.
        """
        for index, path in enumerate(self._paths):
            try:
                data = path.read_bytes()
            except OSError as error:
                raise SourceUnreadable(
                    f"{redact(str(path))}: cannot be read ({error.strerror})"
                ) from error
            pts_ns = round(index / self._rate * 1_000_000_000)
            yield RawPacket(
                data=data,
                pts_ns=pts_ns,
                dts_ns=pts_ns,
                keyframe=True,
                hidden=False,
                corrupt=False,
                captured_ns=time.monotonic_ns(),
            )

    def close(self) -> None:
        """Nothing stays open."""


def decode_image(data: bytes | memoryview) -> av.VideoFrame:
    """An image file's bytes as a frame, upright as its EXIF tag says.

    Raises:
        ValueError: the bytes are no image, are cut off, or claim an absurd size.
    """
    try:
        with Image.open(BytesIO(data)) as image:
            pixels = np.asarray(_in_eight_bits(ImageOps.exif_transpose(image)).convert("RGB"))
            return av.VideoFrame.from_ndarray(pixels, format="rgb24")
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(str(error).split(" <")[0]) from error


def _in_eight_bits(image: Image.Image) -> Image.Image:
    """Grey of 16 bits as 8, where Pillow's own conversion makes all above 255 white."""
    if not image.mode.startswith("I"):
        return image
    return Image.fromarray(np.clip(np.asarray(image) >> 8, 0, 255).astype(np.uint8))
