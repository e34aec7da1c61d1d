# SPDX-License-Identifier: Apache-2.0
"""Where to look in a picture: the whole of it, and tiles of a grid."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.letterbox import rectangle
from model.slicing import ALIGNMENT, LEAST_GAIN, MOST_LOOKS, Region, choose_looks

sides = st.tuples(st.integers(1, 5000), st.integers(1, 5000))
canvases = st.tuples(st.integers(1, 20), st.integers(1, 20)).map(
    lambda strides: (32 * strides[0], 32 * strides[1])
)
budgets = st.integers(2, MOST_LOOKS)
overlaps = st.sampled_from([0.0, 0.1, 0.2, 0.35, 0.5])


def scale(region: Region, canvas_hw: tuple[int, int]) -> float:
    return min(canvas_hw[0] / region.height, canvas_hw[1] / region.width)


def neighbours(starts: list[int]) -> list[tuple[int, int]]:
    places = sorted(set(starts))
    return list(pairwise(places))


@pytest.mark.parametrize(
    ("source_hw", "budget", "tiles"),
    [
        pytest.param((1080, 1920), 5, [(0, 0), (852, 0), (0, 480), (852, 480)], id="2 x 2"),
        pytest.param((1440, 1920), 7, [(0, 0), (852, 0), (0, 640), (852, 640)], id="not 3 x 2"),
        pytest.param((1920, 1080), 5, [(0, 0), (480, 0), (0, 852), (480, 852)], id="upright"),
        pytest.param((1080, 1920), 3, [], id="two tiles gain nothing"),
        pytest.param((480, 640), 17, [], id="small already"),
        pytest.param((96, 160), 17, [], id="smaller than the canvas"),
        pytest.param((630, 1120), 17, [(0, 0), (480, 0), (0, 244), (480, 244)], id="few suffice"),
    ],
)  # fmt: skip
def test_the_grid_is_the_one_that_magnifies_most(
    source_hw: tuple[int, int], budget: int, tiles: list[tuple[int, int]]
) -> None:
    whole, *others = choose_looks(source_hw, rectangle(source_hw, 640), budget, 0.2)
    assert whole == Region(0, 0, source_hw[1], source_hw[0])
    assert [region[:2] for region in others] == tiles


def test_a_larger_budget_magnifies_more() -> None:
    canvas_hw = rectangle((2160, 3840), 640)
    scales = [
        scale(choose_looks((2160, 3840), canvas_hw, budget, 0.2)[-1], canvas_hw)
        for budget in (2, 5, 10, 17)
    ]
    assert scales == sorted(scales)
    np.testing.assert_allclose(np.array(scales) / scales[0], [1, 1.8, 2.6, 3.4], rtol=0.01)


@given(sides, canvases, budgets, overlaps)
def test_looks_keep_the_budget_and_lie_in_the_picture(
    source_hw: tuple[int, int], canvas_hw: tuple[int, int], budget: int, overlap: float
) -> None:
    looks = choose_looks(source_hw, canvas_hw, budget, overlap)
    assert 1 <= len(looks) <= budget
    assert len(looks) != 2
    assert len(set(looks)) == len(looks)
    assert looks[0] == Region.whole(source_hw)
    for region in looks:
        assert region.lies_in(looks[0])
        assert region.left % ALIGNMENT == region.top % ALIGNMENT == 0


@given(sides, canvases, budgets, overlaps)
def test_tiles_cover_the_picture_and_overlap_as_stated(
    source_hw: tuple[int, int], canvas_hw: tuple[int, int], budget: int, overlap: float
) -> None:
    _, *tiles = choose_looks(source_hw, canvas_hw, budget, overlap)
    if not tiles:
        return
    height, width = source_hw
    lefts, tops = [tile.left for tile in tiles], [tile.top for tile in tiles]
    assert len(tiles) == len(set(lefts)) * len(set(tops))
    assert len({(tile.width, tile.height) for tile in tiles}) == 1
    assert (min(lefts), min(tops)) == (0, 0)
    assert (max(lefts) + tiles[0].width, max(tops) + tiles[0].height) == (width, height)
    for starts, side in ((lefts, tiles[0].width), (tops, tiles[0].height)):
        for before, after in neighbours(starts):
            assert before + side - after > overlap * side - ALIGNMENT


@given(sides, canvases, budgets, overlaps)
def test_tiles_magnify_but_never_enlarge(
    source_hw: tuple[int, int], canvas_hw: tuple[int, int], budget: int, overlap: float
) -> None:
    whole, *tiles = choose_looks(source_hw, canvas_hw, budget, overlap)
    for tile in tiles:
        assert LEAST_GAIN * scale(whole, canvas_hw) <= scale(tile, canvas_hw) <= 1
        height, width = tile.letterbox(canvas_hw).resized_hw
        assert (height, width) <= (tile.height, tile.width)


@given(sides, canvases, overlaps)
def test_no_budget_for_tiles_is_the_whole_alone(
    source_hw: tuple[int, int], canvas_hw: tuple[int, int], overlap: float
) -> None:
    assert choose_looks(source_hw, canvas_hw, 2, overlap) == (Region.whole(source_hw),)


@pytest.mark.parametrize(
    ("region", "inside"),
    [
        (Region(0, 0, 160, 96), True),
        (Region(4, 8, 156, 88), True),
        (Region(4, 8, 157, 88), False),
        (Region(4, 8, 156, 89), False),
        (Region(-1, 0, 10, 10), False),
        (Region(0, -1, 10, 10), False),
        (Region(0, 0, 0, 10), False),
        (Region(0, 0, 10, -1), False),
    ],
)
def test_a_region_lies_in_another_with_all_its_pixels(region: Region, *, inside: bool) -> None:
    assert region.lies_in(Region.whole((96, 160))) is inside
