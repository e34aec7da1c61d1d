# SPDX-License-Identifier: Apache-2.0
"""The layout of pictures."""

import av
import numpy as np
import pytest

from pipeline import nv12


@pytest.mark.parametrize(
    ("source_hw", "shape"),
    [((1080, 1920), (1620, 1920)), ((359, 641), (540, 642)), ((1, 1), (3, 2))],
)
def test_a_picture_has_half_as_many_rows_again(
    source_hw: tuple[int, int], shape: tuple[int, int]
) -> None:
    assert nv12.shape(source_hw) == shape
    assert nv12.picture_hw(shape) == nv12.even_hw(source_hw)


def test_the_planes_are_the_picture_itself() -> None:
    picture = np.zeros(nv12.shape((4, 6)), np.uint8)
    nv12.luma(picture)[3, 5] = 1
    nv12.chroma(picture)[1, 2] = 2, 3
    assert picture[3, 5] == 1
    assert picture[5].tolist() == [0, 0, 0, 0, 2, 3]


def test_the_planes_are_where_ffmpeg_has_them() -> None:
    """Its own copy of a frame whose pixels all differ."""
    picture = np.arange(36, dtype=np.uint8).reshape(nv12.shape((4, 6)))
    planes = av.VideoFrame.from_ndarray(picture, format="nv12").reformat(format="yuv420p").planes
    rows = [
        np.frombuffer(memoryview(each), np.uint8).reshape(-1, each.line_size)[:, : each.width]
        for each in planes
    ]
    np.testing.assert_array_equal(rows[0], nv12.luma(picture))
    np.testing.assert_array_equal(np.stack(rows[1:], axis=-1), nv12.chroma(picture))


@pytest.mark.parametrize("shape", [(4, 6), (6, 5)])
def test_what_is_no_picture_is_refused(shape: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="no NV12 picture has shape"):
        nv12.luma(np.zeros(shape, np.uint8))
