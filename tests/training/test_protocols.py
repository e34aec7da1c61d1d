# SPDX-License-Identifier: Apache-2.0
"""Canvases of an evaluation: squares, and the rectangles of the published figures."""

from pathlib import Path

import numpy as np
import pytest

from training.protocols import EvaluationPlan
from training.records import Record, Split, no_objects


def split_of_sizes(*sizes_hw: tuple[int, int]) -> Split:
    records = [
        Record(
            path=Path(f"{number}.jpg"),
            image_hw=size_hw,
            objects=no_objects(),
            annotated=np.ones(1, bool),
            folder="",
        )
        for number, size_hw in enumerate(sizes_hw)
    ]
    return Split("val", ("thing",), records)


@pytest.mark.parametrize(
    ("image_wh", "canvas_wh"),
    [((640, 480), (672, 512)), ((640, 427), (672, 448)), ((500, 500), (672, 672))],
)
def test_rectangles_are_those_of_the_published_protocol(
    image_wh: tuple[int, int], canvas_wh: tuple[int, int]
) -> None:
    (view,) = EvaluationPlan(split_of_sizes(image_wh[::-1]), "rectangular").views
    assert view.canvas_hw == canvas_wh[::-1]
    portrait = split_of_sizes(image_wh)
    assert EvaluationPlan(portrait, "rectangular").views[0].canvas_hw == canvas_wh


def test_sides_are_cut_to_whole_pixels_and_centred() -> None:
    (view,) = EvaluationPlan(split_of_sizes((427, 641)), "rectangular").views
    (letterbox,) = view.letterboxes
    assert letterbox.resized_hw == (426, 640)  # 426.3
    assert (letterbox.pad_top_px, letterbox.pad_left_px) == (11, 16)
    assert letterbox.canvas_hw == (448, 672)


def test_a_batch_has_room_for_its_tallest_or_widest_image() -> None:
    landscapes = split_of_sizes((480, 640), (360, 640), (427, 640))
    (view,) = EvaluationPlan(landscapes, "rectangular").views
    assert view.indices == (1, 2, 0)
    assert view.canvas_hw == (512, 672)
    mixed = split_of_sizes((480, 640), (640, 480))
    assert EvaluationPlan(mixed, "rectangular").views[0].canvas_hw == (672, 672)


def test_images_of_one_shape_share_a_batch() -> None:
    sizes = [(480, 640), (640, 480)] * 3
    views = EvaluationPlan(split_of_sizes(*sizes), "rectangular", batch_size=3).views
    assert [view.canvas_hw for view in views] == [(512, 672), (672, 512)]
    assert [view.indices for view in views] == [(0, 2, 4), (1, 3, 5)]


def test_squares_keep_the_order_and_fill_the_canvas() -> None:
    views = EvaluationPlan(
        split_of_sizes((480, 640), (640, 480), (50, 50)), "square", image_size=320, batch_size=2
    ).views
    assert [view.indices for view in views] == [(0, 1), (2,)]
    assert {view.canvas_hw for view in views} == {(320, 320)}
    assert [box.resized_hw for view in views for box in view.letterboxes] == [
        (240, 320),
        (320, 240),
        (320, 320),
    ]


def test_boxes_come_back_to_where_they_were() -> None:
    (view,) = EvaluationPlan(split_of_sizes((427, 641)), "rectangular").views
    boxes = np.array([(0, 0, 641, 427), (10, 20, 300, 400)], np.float64)
    (letterbox,) = view.letterboxes
    np.testing.assert_allclose(letterbox.to_source(letterbox.to_canvas(boxes)), boxes, atol=1e-9)
