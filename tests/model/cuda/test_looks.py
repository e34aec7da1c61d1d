# SPDX-License-Identifier: Apache-2.0
"""Addresses, turns, colours and limits of what a kernel is told about a picture."""

import ctypes
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.cuda.coded import FORMATS, ColourMatrix, PixelFormat
from model.cuda.looks import (
    ALIGNMENT,
    EMPTY,
    LOOK,
    MOST_PIXELS,
    MOST_SAMPLES,
    colour,
    describe,
)
from model.errors import EngineError
from model.slicing import Region, choose_looks, part_shown
from tests.model.cuda.coded_pictures import make_coded
from tests.model.cuda.reference import KR_KB, components, sample_type

CANVAS_HW = (64, 96)
TURNS = st.integers(0, 3)
SIDES = st.integers(1, 90)


def test_a_look_is_laid_out_as_the_kernel_reads_it(library: ctypes.CDLL) -> None:
    sizes = (ctypes.c_int * 14)()
    library.host_look(sizes)
    assert LOOK.fields is not None
    assert list(sizes) == [LOOK.itemsize, *(offset for _, offset in LOOK.fields.values())]
    assert LOOK.itemsize == 144


@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("matrix", KR_KB)
@pytest.mark.parametrize("pixel_format", ["nv12", "yuv420p10le", "p010le"])
def test_colours_are_those_of_the_definition(
    pixel_format: PixelFormat, matrix: ColourMatrix, full_range: bool
) -> None:
    """Colours coded by the definition come back, and so do black and white as they are known."""
    coded = make_coded(pixel_format, (8, 8), matrix=matrix, full_range=full_range)
    red, blue = KR_KB[matrix]
    colours = np.array([[r, g, b] for r in (0, 1) for g in (0, 1) for b in (0, 0.5, 1)])
    luma = colours @ (red, 1 - red - blue, blue)
    of_blue = (colours[:, 2] - luma) / (2 - 2 * blue)
    of_red = (colours[:, 0] - luma) / (2 - 2 * red)
    bits = 8 if pixel_format == "nv12" else 10
    fine, shift = 2 ** (bits - 8), 2**6 if pixel_format == "p010le" else 1
    if full_range:
        most = 2**bits - 1
        stored = np.stack((luma * most, of_blue * most + 128 * fine, of_red * most + 128 * fine))
    else:
        stored = fine * np.stack((16 + 219 * luma, 128 + 224 * of_blue, 128 + 224 * of_red))
    shown = colour(coded)
    made = (shown.matrix.astype(np.float32) @ (stored * shift)).T + shown.offset.astype(np.float32)
    np.testing.assert_allclose(made, colours * 255, atol=2e-4)


def test_colours_of_rgb_are_its_own() -> None:
    for pixel_format in ("rgb24", "bgr24", "gbrp"):
        shown = colour(make_coded(pixel_format, (8, 8)))
        np.testing.assert_array_equal(shown.matrix, np.eye(3))
        assert not shown.offset.any()


@settings(max_examples=40, deadline=None)
@given(
    pixel_format=st.sampled_from(sorted(set(FORMATS) - {"p010le"})),
    height=SIDES,
    width=SIDES,
    turns=TURNS,
)
def test_a_turn_is_signs_alone(
    pixel_format: PixelFormat, height: int, width: int, turns: int
) -> None:
    """The address of each sample, in a slot whose bytes tell where they are."""
    coded = make_coded(pixel_format, (height, width), quarter_turns=turns, pitch_multiple=4, gap=64)
    look = describe(coded, 1 << 40, Region.whole(coded.upright_hw), CANVAS_HW, 0)
    places = np.arange(coded.num_bytes)
    told = [components(coded, (places >> 8 * byte & 255).astype(np.uint8)) for byte in (0, 1, 2)]
    for index in range(3):
        low, middle, high = (parts[index].astype(np.int64) & 255 for parts in told)
        expected = np.rot90(low | middle << 8 | high << 16, turns)
        rows, columns = np.indices((look["height"][index], look["width"][index]))
        begin = int(look["origin"][index]) - (1 << 40)
        seen = begin + columns * int(look["across"][index]) + rows * int(look["down"][index])
        np.testing.assert_array_equal(seen, expected)


@settings(max_examples=60, deadline=None)
@given(height=SIDES, width=SIDES, turns=TURNS, data=st.data())
def test_a_region_turned_back_is_the_same_pixels(
    height: int, width: int, turns: int, data: st.DataObject
) -> None:
    coded = np.arange(height * width).reshape(height, width)
    upright = np.rot90(coded, turns)
    left = data.draw(st.integers(0, upright.shape[1] - 1))
    top = data.draw(st.integers(0, upright.shape[0] - 1))
    region = Region(
        left,
        top,
        data.draw(st.integers(1, upright.shape[1] - left)),
        data.draw(st.integers(1, upright.shape[0] - top)),
    )
    back = region.as_coded((height, width), turns)
    np.testing.assert_array_equal(np.rot90(cut(coded, back), turns), cut(upright, region))


def cut(pixels: np.ndarray, region: Region) -> np.ndarray:
    left, top, width, height = region
    return pixels[top : top + height, left : left + width]


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(20, 1200),
    width=st.integers(20, 1200),
    turns=TURNS,
    shares=st.tuples(*[st.floats(0, 0.5)] * 2, *[st.floats(0.6, 1)] * 2),
)
def test_regions_that_are_chosen_begin_on_whole_samples(
    height: int, width: int, turns: int, shares: tuple[float, float, float, float]
) -> None:
    coded = make_coded("nv12", (height, width), quarter_turns=turns)
    looks = choose_looks(coded.upright_hw, CANVAS_HW, 17, 0.2)
    for region in (*looks, part_shown(shares, coded.upright_hw)):
        described = describe(coded, 0, region, CANVAS_HW, 0)
        assert described["width"][0] * described["height"][0] == region.width * region.height


def test_a_region_that_begins_within_a_sample_of_colour_is_refused() -> None:
    with pytest.raises(ValueError, match="whole sample of colour"):
        describe(make_coded("nv12", (64, 64)), 0, Region(3, 0, 20, 20), CANVAS_HW, 0)


def test_a_region_beside_the_picture_is_refused() -> None:
    with pytest.raises(ValueError, match="expected a region"):
        describe(make_coded("nv12", (64, 64)), 0, Region(48, 0, 20, 20), CANVAS_HW, 0)


def test_a_part_of_oblong_pixels_is_refused() -> None:
    coded = make_coded("nv12", (64, 64), square_hw=(64, 128))
    with pytest.raises(ValueError, match="only the whole"):
        describe(coded, 0, Region(0, 0, 20, 20), CANVAS_HW, 0)


@pytest.mark.parametrize(
    ("coded_hw", "canvas_hw", "named"),
    [
        ((100, MOST_SAMPLES + 1), (64, 96), "a picture of 32768x100 px"),
        ((MOST_SAMPLES + 1, 100), (64, 96), "a picture of 100x32768 px"),
        ((100, 100), (MOST_PIXELS + 32, 96), "a canvas of 96x4128 px"),
    ],
)
def test_a_size_beyond_the_kernels_numbers_is_refused(
    coded_hw: tuple[int, int], canvas_hw: tuple[int, int], named: str
) -> None:
    coded = make_coded("nv12", coded_hw)
    with pytest.raises(EngineError, match=named):
        describe(coded, 0, Region.whole(coded_hw), canvas_hw, 0)


def test_the_largest_sizes_stay_within_the_kernels_numbers() -> None:
    """Of `taps_of`: places and centres in 32 bits, distances exact in float32."""
    last_centre = (2 * MOST_PIXELS - 1) * MOST_SAMPLES
    reach, step = 2 * MOST_SAMPLES, 2 * MOST_PIXELS
    assert last_centre + reach + step < 2**31
    assert (2 * MOST_SAMPLES + 1) * MOST_PIXELS < 2**31
    assert reach + step < 2**24


def test_what_does_not_lie_as_slots_do_is_refused() -> None:
    coded = make_coded("nv12", (64, 64))
    whole = Region.whole((64, 64))
    with pytest.raises(ValueError, match="a slot must begin at a multiple of 64"):
        describe(coded, ALIGNMENT // 2, whole, CANVAS_HW, 0)
    with pytest.raises(ValueError, match="planes must begin at multiples of 64"):
        describe(replace(coded, offsets=(0, 4100)), 0, whole, CANVAS_HW, 0)
    with pytest.raises(ValueError, match="planes must end within"):
        describe(replace(coded, num_bytes=coded.num_bytes - 1), 0, whole, CANVAS_HW, 0)


def test_entries_do_not_share_what_differs() -> None:
    coded = make_coded("nv12", (64, 64))
    whole = Region.whole((64, 64))
    first, second = (describe(coded, 64 * n, whole, CANVAS_HW, n) for n in (1, 2))
    assert (first["ticket"], second["ticket"]) == (1, 2)
    np.testing.assert_array_equal(second["origin"] - first["origin"], 64)
    assert describe(coded, 64, whole, CANVAS_HW, 1) == first


def test_an_entry_that_is_not_used_shows_nothing() -> None:
    assert EMPTY.dtype == LOOK
    assert (EMPTY["inner_w"], EMPTY["inner_h"]) == (0, 0)


def test_samples_of_ten_bits_have_two_bytes() -> None:
    for pixel_format, layout in FORMATS.items():
        assert layout.wide == (sample_type(pixel_format).itemsize == 2)
