# SPDX-License-Identifier: Apache-2.0
"""Who encodes a video: an NVIDIA GPU where it really does, else the processor.

That FFmpeg knows `h264_nvenc` says nothing: the driver or the unit may be missing, as on cards made
for computing. So it is tried on one grey picture of the video's size. It has never run here.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Final, Literal

import av
import numpy as np

from pipeline import nv12

logger = logging.getLogger(__name__)

EncodedBy = Literal["auto", "nvenc", "x264"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoder:
    """How H.264 is made of NV12 pictures."""

    name: str
    """FFmpeg's name."""
    options: Mapping[str, str]
    threads: int = 0
    """Of the processor; 0 lets it choose."""
    reason: str = ""
    """Why it is not the one that was asked for."""


# CPU ms a frame at 1080p on 2 cores, Mbit/s and dB, for a moving camera and a fixed one:
#   ultrafast             10.3 14.3 40.8     6.3 3.0 49.7
#   ultrafast, deblocked   9.9 13.7 41.9     6.1 2.7 50.1   chosen
#   superfast             18.2  9.9 42.1    10.6 2.6 50.2
#   veryfast              31.9  7.7 41.1
# These were taken from BGR; from NV12 each costs what that conversion did less. Of the other
# settings none is clearly cheaper at like quality: rc-lookahead, merange, me, weightp, psy and
# threads are within the noise; aq-mode 1 costs 11 % for 4 % of the bits and loses 0.9 dB, CABAC
# costs 23 % for 13 %, i4x4 partitions 5 % for 6 % and 0.7 dB.
# Without B-frames (ultrafast has none) decoding order is presentation order.
X264: Final = Encoder(
    name="libx264", options={"preset": "ultrafast", "crf": "23", "x264-params": "no-deblock=0"}
)
NVENC: Final = Encoder(
    name="h264_nvenc", options={"preset": "p4", "rc": "vbr", "cq": "23", "b": "0", "bf": "0"}
)


def pick_encoder(wanted: EncodedBy, picture_hw: tuple[int, int]) -> Encoder:
    """Return the encoder for a video of this size, which works here."""
    if wanted == "x264":
        return X264
    fault = _fault(NVENC, nv12.even_hw(picture_hw))
    if fault is None:
        return NVENC
    level = logging.WARNING if wanted == "nvenc" else logging.INFO
    logger.log(level, "%s encodes on the processor: %s", X264.name, fault)
    return replace(X264, reason=fault)


def _fault(encoder: Encoder, picture_hw: tuple[int, int]) -> str | None:
    """Why an encoder does not work here; None where it does."""
    height, width = picture_hw
    grey = np.full(nv12.shape(picture_hw), nv12.GREY, np.uint8)
    try:
        context = av.CodecContext.create(encoder.name, "w")
        assert isinstance(context, av.VideoCodecContext)
        context.width, context.height, context.pix_fmt = width, height, "nv12"
        context.time_base = Fraction(1, 25)
        context.options = dict(encoder.options)
        context.encode(av.VideoFrame.from_ndarray(grey, format="nv12"))
        context.encode(None)
    except (av.error.FFmpegError, ValueError) as error:
        said = getattr(error, "strerror", None) or str(error)
        return f"{encoder.name} does not work here ({' '.join(str(said).split()).lower()})"
    return None
