# SPDX-License-Identifier: Apache-2.0
"""Fitting images onto a canvas and boxes back onto the image."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.letterbox import PAD, Letterbox, letterbox_image, rectangle
from tests.model.builders import make_image

sides = st.tuples(st.integers(1, 3000), st.integers(1, 3000))
canvases = st.tuples(st.integers(1, 40), st.integers(1, 40)).map(
    lambda strides: (32 * strides[0], 32 * strides[1])
)


@pytest.mark.parametrize(
    ("source_hw", "canvas_hw", "resized_hw", "pad_top_px", "pad_left_px"),
    [
        pytest.param((720, 1280), (384, 640), (360, 640), 12, 0, id="720p"),
        pytest.param((1080, 1920), (384, 640), (360, 640), 12, 0, id="1080p"),
        pytest.param((720, 1280), (640, 640), (360, 640), 140, 0, id="720p in a square"),
        pytest.param((427, 640), (448, 640), (427, 640), 10, 0, id="odd padding"),
        pytest.param((1281, 723), (640, 384), (640, 361), 0, 11, id="upright"),
        pytest.param((240, 426), (384, 640), (361, 640), 11, 0, id="enlarged"),
        pytest.param((1, 3000), (32, 640), (1, 640), 15, 0, id="never below one pixel"),
    ],
)
def test_an_image_is_fitted_and_centred(
    source_hw: tuple[int, int],
    canvas_hw: tuple[int, int],
    resized_hw: tuple[int, int],
    pad_top_px: int,
    pad_left_px: int,
) -> None:
    letterbox = Letterbox.fit(source_hw, canvas_hw)
    assert letterbox.resized_hw == resized_hw
    assert (letterbox.pad_top_px, letterbox.pad_left_px) == (pad_top_px, pad_left_px)


@pytest.mark.parametrize(
    ("source_hw", "expected"),
    [
        pytest.param((720, 1280), (384, 640), id="720p"),
        pytest.param((1080, 1920), (384, 640), id="1080p"),
        pytest.param((1281, 723), (640, 384), id="upright"),
        pytest.param((640, 640), (640, 640), id="square"),
        pytest.param((1, 4000), (32, 640), id="a line"),
        pytest.param((4000, 3), (640, 32), id="a column"),
    ],
)
def test_the_smallest_rectangle_is_whole_strides(
    source_hw: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert rectangle(source_hw, 640) == expected


@given(sides)
def test_in_its_rectangle_an_image_has_the_long_side(source_hw: tuple[int, int]) -> None:
    canvas_hw = rectangle(source_hw, 640)
    resized_hw = Letterbox.fit(source_hw, canvas_hw).resized_hw
    assert max(resized_hw) == 640
    short = min(resized_hw)
    assert -(-short // 32) * 32 == min(canvas_hw)


@given(sides, canvases)
def test_a_fitted_image_lies_on_the_canvas_and_touches_it(
    source_hw: tuple[int, int], canvas_hw: tuple[int, int]
) -> None:
    letterbox = Letterbox.fit(source_hw, canvas_hw)
    pads = (letterbox.pad_top_px, letterbox.pad_left_px)
    for resized, canvas, pad in zip(letterbox.resized_hw, canvas_hw, pads, strict=True):
        assert 1 <= resized <= canvas
        assert 0 <= pad <= canvas - resized - pad <= pad + 1
    assert letterbox.resized_hw[0] == canvas_hw[0] or letterbox.resized_hw[1] == canvas_hw[1]


@given(sides, canvases, st.lists(st.floats(0, 1), min_size=4, max_size=4))
def test_to_the_canvas_and_back_is_the_same_box(
    source_hw: tuple[int, int], canvas_hw: tuple[int, int], ratios: list[float]
) -> None:
    height, width = source_hw
    x, y = sorted(ratios[:2]), sorted(ratios[2:])
    box = np.array([[x[0] * width, y[0] * height, x[1] * width, y[1] * height]])
    letterbox = Letterbox.fit(source_hw, canvas_hw)
    np.testing.assert_allclose(letterbox.to_source(letterbox.to_canvas(box)), box, atol=1e-3)


def test_boxes_keep_their_float32() -> None:
    letterbox = Letterbox.fit((333, 517), (416, 640))
    box = np.array([[10, 20, 400.5, 300.25]], np.float32)
    back = letterbox.to_source(letterbox.to_canvas(box))
    assert back.dtype == np.float32
    np.testing.assert_allclose(back, box, atol=1e-3)


def test_boxes_in_the_padding_are_clipped_to_the_image() -> None:
    letterbox = Letterbox.fit((720, 1280), (640, 640))
    whole_canvas = np.array([[0, 0, 640, 640]], np.float32)
    np.testing.assert_array_equal(letterbox.to_source(whole_canvas), [[0, 0, 1280, 720]])


def test_around_the_image_is_grey() -> None:
    image = make_image(50, 100)
    letterbox = Letterbox.fit((50, 100), (64, 64))
    canvas = letterbox_image(image, letterbox)
    assert canvas.shape == (64, 64, 3)
    assert (canvas[:16] == PAD).all()
    assert (canvas[48:] == PAD).all()


def test_an_image_of_the_right_size_is_not_resampled() -> None:
    image = make_image(40, 64)
    canvas = letterbox_image(image, Letterbox.fit((40, 64), (64, 64)))
    np.testing.assert_array_equal(canvas[12:52], image)


@pytest.mark.parametrize(
    ("source_hw", "canvas_hw"),
    [
        pytest.param((211, 375), (32, 64), id="shrunk by 6"),
        pytest.param((97, 131), (64, 96), id="shrunk by 1.4"),
        pytest.param((23, 31), (64, 96), id="enlarged"),
    ],
)
def test_resampling_is_the_triangle_filter(
    source_hw: tuple[int, int], canvas_hw: tuple[int, int]
) -> None:
    image = make_image(*source_hw)
    letterbox = Letterbox.fit(source_hw, canvas_hw)
    canvas = letterbox_image(image, letterbox)
    height, width = letterbox.resized_hw
    top, left = letterbox.pad_top_px, letterbox.pad_left_px
    vertical = triangle_weights(source_hw[0], height)
    horizontal = triangle_weights(source_hw[1], width)
    expected = np.einsum("ab,bcd,ec->aed", vertical, image.astype(np.float64), horizontal)
    actual = canvas[top : top + height, left : left + width]
    assert np.abs(actual - expected).max() <= 2


def triangle_weights(source: int, target: int) -> np.ndarray:
    """Weights of the source pixels in each target pixel, in float64."""
    ratio = source / target
    support = max(ratio, 1.0)
    centre = (np.arange(target) + 0.5) * ratio
    distance = np.abs(np.arange(source) + 0.5 - centre[:, None]) / support
    weights = np.maximum(1 - distance, 0)
    return weights / weights.sum(axis=1, keepdims=True)


def test_an_image_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="expected an image of"):
        letterbox_image(make_image(10, 10), Letterbox.fit((20, 20), (32, 32)))


def test_a_side_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1 px"):
        Letterbox.fit((0, 20), (32, 32))
