# SPDX-License-Identifier: Apache-2.0
"""A decoder's planes as they are, side by side in one slot.

An engine that reads YUV itself leaves nothing to compute here: rows are copied, each padded to a
whole number of `_ALIGNMENT` bytes.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Final

import numpy as np
from av.video.reformatter import ColorRange
from jaxtyping import UInt8

from model.cuda.coded import FORMATS, Coded, ColourMatrix, PixelFormat, plane_sizes
from pipeline.decoding.scaling import own_matrix, rows_of
from pipeline.decoding.surface import AnyFrame, on_host

_ALIGNMENT: Final = 64  # what readers and copies of devices like; FFmpeg's own rows have it too
_FULL_RANGE: Final[Mapping[str, PixelFormat]] = {
    "yuvj420p": "yuv420p",
    "yuvj422p": "yuv422p",
    "yuvj444p": "yuv444p",
}
"""FFmpeg's names of formats that say their range."""
_KINDS: Final[Mapping[str, PixelFormat]] = {**{name: name for name in FORMATS}, **_FULL_RANGE}
_BT2020: Final = 9  # with non-constant luminance; the other kind is no matrix


def plane_layout(frame: AnyFrame) -> Coded | None:
    """How the frame's planes lie in a slot, not turned and with pixels as they are.

    None for a format or a matrix that nobody reads but FFmpeg.
    """
    kind = _KINDS.get(frame.format.name)
    matrix = _matrix(frame)
    if kind is None or matrix is None:
        return None
    named = frame.format.name in _FULL_RANGE
    full_range = named or matrix == "rgb" or frame.color_range == ColorRange.JPEG
    return _tight(kind, (frame.height, frame.width), matrix, full_range=full_range)


def copy_planes(frame: AnyFrame, coded: Coded, slot: UInt8[np.ndarray, " bytes"]) -> None:
    """Write the frame's planes to where they lie in a slot of the host's memory."""
    sizes = plane_sizes(coded.pixel_format, coded.coded_hw)
    places = zip(on_host(frame).planes, sizes, coded.offsets, coded.pitches, strict=True)
    for plane, (num_rows, row_bytes), offset, pitch in places:
        room = slot[offset : offset + num_rows * pitch].reshape(num_rows, pitch)
        np.copyto(room[:, :row_bytes], rows_of(plane)[:num_rows, :row_bytes])


@lru_cache(maxsize=64)
def _tight(
    kind: PixelFormat, coded_hw: tuple[int, int], matrix: ColourMatrix, *, full_range: bool
) -> Coded:
    offsets, pitches, end = [], [], 0
    for num_rows, row_bytes in plane_sizes(kind, coded_hw):
        offsets.append(end)
        pitches.append(-(-row_bytes // _ALIGNMENT) * _ALIGNMENT)
        end += num_rows * pitches[-1]
    return Coded(
        pixel_format=kind,
        coded_hw=coded_hw,
        offsets=tuple(offsets),
        pitches=tuple(pitches),
        matrix=matrix,
        full_range=full_range,
        upright_hw=coded_hw,
        num_bytes=end,
    )


def _matrix(frame: AnyFrame) -> ColourMatrix | None:
    if frame.format.is_rgb:
        return "rgb"
    return "bt2020" if frame.colorspace == _BT2020 else own_matrix(frame)
