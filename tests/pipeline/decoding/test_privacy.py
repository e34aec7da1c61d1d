# SPDX-License-Identifier: Apache-2.0
"""What no one may see is black."""

import numpy as np

from pipeline import nv12
from pipeline.decoding.privacy import blacken

BOX = ((0.25, 0.25), (0.75, 0.25), (0.75, 0.75), (0.25, 0.75))


def test_a_polygon_is_black_and_what_is_around_it_is_as_it_was() -> None:
    picture = np.full(nv12.shape((96, 128)), 200, np.uint8)
    blacken(picture, (BOX, ((0.0, 0.0), (0.1, 0.0), (0.0, 0.1))), (96, 128))
    assert (nv12.luma(picture)[24:72, 32:96] == nv12.BLACK).all()
    assert (nv12.chroma(picture)[12:36, 16:48] == nv12.GREY).all()
    assert nv12.luma(picture)[0, 0] == nv12.BLACK
    assert (nv12.luma(picture)[:, 100:] == 200).all()
    assert (nv12.chroma(picture)[40:, 20:] == 200).all()


def test_a_polygon_that_holds_the_whole_leaves_nothing_of_an_odd_picture() -> None:
    picture = np.full(nv12.shape((95, 127)), 200, np.uint8)
    blacken(picture, (((0, 0), (1, 0), (1, 1), (0, 1)),), (95, 127))
    assert (nv12.luma(picture) == nv12.BLACK).all()
    assert (nv12.chroma(picture) == nv12.GREY).all()
