# SPDX-License-Identifier: Apache-2.0
"""Boxes of several looks at one picture, joined: a picture of 1920 x 1080 on 384 x 640."""

import numpy as np
import pytest

from model.config import Suppression
from model.detections import Detections
from model.letterbox import Letterbox
from model.merging import EDGE_PX, join_looks, suppress_looks
from model.slicing import Region, choose_looks
from model.suppression import suppress

SOURCE_HW, CANVAS_HW = (1080, 1920), (384, 640)
LOOKS = choose_looks(SOURCE_HW, CANVAS_HW, 5, 0.2)
WHOLE, UPPER_LEFT, UPPER_RIGHT, LOWER_LEFT, LOWER_RIGHT = range(5)
Box = tuple[float, float, float, float]


def make_predictions(*seen: tuple[int, Box, float] | tuple[int, Box, float, int]) -> np.ndarray:
    """Rows of all looks; a box is given as its look, its place in the picture, score and class."""
    rows = np.zeros((len(LOOKS), 6, 16), np.float32)
    for anchor, (look, xyxy, score, *class_id) in enumerate(seen):
        region = LOOKS[look]
        moved = np.array([xyxy], np.float32) - np.array((region.left, region.top) * 2, np.float32)
        rows[look, :4, anchor] = region.letterbox(CANVAS_HW).to_canvas(moved)[0]
        rows[look, 4 + (class_id[0] if class_id else 0), anchor] = score
    return rows


def merged(
    *seen: tuple[int, Box, float] | tuple[int, Box, float, int], **settings: object
) -> Detections:
    limits = Suppression(**settings)  # type: ignore[arg-type]
    return suppress_looks(make_predictions(*seen), LOOKS, CANVAS_HW, limits)


def scores(found: Detections) -> list[float]:
    return [round(float(score), 3) for score in found.score]


def test_the_looks_are_those_that_the_cases_are_made_for() -> None:
    assert LOOKS[LOWER_RIGHT] == Region(852, 480, 1068, 600)


def test_one_look_is_plain_suppression_bit_for_bit() -> None:
    random = np.random.default_rng(0)
    rows = random.uniform(0, 384, (1, 6, 200)).astype(np.float32)
    rows[:, 4:] = random.uniform(0, 1, (1, 2, 200))
    found = suppress_looks(rows, LOOKS[:1], CANVAS_HW, Suppression())
    plain = suppress(rows[0], Suppression())
    xyxy = Letterbox.fit(SOURCE_HW, CANVAS_HW).to_source(plain.xyxy)
    assert len(found) > 5
    assert found.xyxy.tobytes() == xyxy.tobytes()
    assert found.score.tobytes() == plain.score.tobytes()
    assert found.class_id.tobytes() == plain.class_id.tobytes()


@pytest.mark.parametrize("look", range(5))
def test_a_box_of_any_look_is_where_it_is_in_the_picture(look: int) -> None:
    box = (870.0, 500.0, 900.0, 560.0)  # where all tiles overlap
    np.testing.assert_allclose(merged((look, box, 0.9)).xyxy, [box], atol=1e-3)


def test_what_two_looks_see_is_one_object_with_the_better_box() -> None:
    found = merged(
        (WHOLE, (100, 100, 130, 160), 0.6),
        (UPPER_LEFT, (103, 104, 135, 166), 0.8),  # IoU with the first 0.67: under max_iou
    )
    assert scores(found) == [0.8]


def test_boxes_of_one_look_may_overlap_as_far_as_without_slices() -> None:
    found = merged((UPPER_LEFT, (100, 100, 130, 160), 0.6), (UPPER_LEFT, (103, 104, 135, 166), 0.8))
    assert scores(found) == [0.8, 0.6]


def test_a_stricter_limit_than_ours_holds_over_all_looks() -> None:
    seen = ((WHOLE, (100, 100, 200, 200), 0.6), (UPPER_LEFT, (150, 100, 250, 200), 0.8))  # 1/3
    assert scores(merged(*seen)) == [0.8, 0.6]
    assert scores(merged(*seen, max_iou=0.3)) == [0.8]


def test_what_a_tile_cuts_is_left_out_where_its_neighbour_shows_it_whole() -> None:
    found = merged(
        (UPPER_LEFT, (1030, 100, 1068, 160), 0.9),  # its right side is beyond the tile
        (UPPER_RIGHT, (1030, 100, 1100, 160), 0.7),
    )
    assert scores(found) == [0.7]


@pytest.mark.parametrize(
    ("look", "box", "kept"),
    [
        pytest.param(UPPER_LEFT, (0, 0, 60, 60), True, id="edges of the picture"),
        pytest.param(LOWER_RIGHT, (1860, 1000, 1920, 1080), True, id="far edges of the picture"),
        pytest.param(UPPER_LEFT, (1000, 100, 1067, 160), False, id="right"),
        pytest.param(UPPER_LEFT, (100, 560, 160, 599), False, id="bottom"),
        pytest.param(LOWER_RIGHT, (853, 700, 900, 760), False, id="left"),
        pytest.param(LOWER_RIGHT, (1000, 481, 1060, 560), False, id="top"),
        pytest.param(WHOLE, (0, 0, 1920, 1080), True, id="the whole cuts nothing"),
    ],
)
def test_only_edges_inside_the_picture_cut(look: int, box: Box, *, kept: bool) -> None:
    assert len(merged((look, box, 0.9))) == kept


@pytest.mark.parametrize(("gap_px", "kept"), [(EDGE_PX - 0.5, False), (EDGE_PX + 0.5, True)])
def test_the_edge_is_so_many_canvas_pixels_wide(gap_px: float, *, kept: bool) -> None:
    right = 1068 - gap_px * 1068 / 640
    assert len(merged((UPPER_LEFT, (1000, 100, right, 160), 0.9))) == kept


def test_a_cut_box_drops_the_lesser_boxes_of_its_object_before_it_goes() -> None:
    found = merged(
        (UPPER_LEFT, (800, 100, 1068, 400), 0.9),
        (UPPER_LEFT, (810, 100, 1050, 400), 0.5),  # of the same cut object, off the edge
        (WHOLE, (800, 100, 1400, 400), 0.8),
    )
    assert scores(found) == [0.8]


def test_parts_of_a_large_object_are_dropped_for_the_whole_of_it() -> None:
    """A truck over two tiles: each takes what it sees of it for a truck, short of its edge."""
    found = merged(
        (WHOLE, (300, 100, 1500, 500), 0.9),
        (UPPER_LEFT, (300, 100, 1040, 500), 0.6),
        (UPPER_RIGHT, (880, 110, 1500, 500), 0.5),
    )
    assert scores(found) == [0.9]


def test_a_small_object_before_a_large_one_that_its_tile_shows_whole_stays() -> None:
    found = merged((WHOLE, (100, 100, 500, 500), 0.9), (UPPER_LEFT, (200, 300, 240, 400), 0.6))
    assert scores(found) == [0.9, 0.6]


def test_a_part_that_scores_better_does_not_drop_the_large_object() -> None:
    found = merged((WHOLE, (300, 100, 1500, 500), 0.5), (UPPER_LEFT, (400, 200, 900, 450), 0.9))
    assert scores(found) == [0.9, 0.5]


def test_other_classes_drop_each_other_only_where_asked() -> None:
    seen = (
        (WHOLE, (300, 100, 1500, 500), 0.9, 0),
        (UPPER_LEFT, (300, 100, 1040, 500), 0.6, 1),
        (LOWER_LEFT, (100, 700, 130, 760), 0.8, 0),
        (WHOLE, (100, 700, 130, 760), 0.7, 1),
    )
    assert scores(merged(*seen)) == [0.9, 0.8, 0.7, 0.6]
    assert scores(merged(*seen, class_aware=False)) == [0.9, 0.8]


def test_the_limit_of_boxes_is_for_all_looks_together() -> None:
    seen = [
        (look, (880 + 10 * place, 500, 888 + 10 * place, 510), 0.9 - 0.1 * look)
        for look in (UPPER_LEFT, LOWER_RIGHT)
        for place in range(6)
    ]
    found = merged(*seen, max_boxes=8, max_iou=0.9)
    assert len(found) == 6
    assert scores(merged(*seen, max_boxes=4)) == [0.8] * 4


def test_only_the_classes_asked_for_are_found() -> None:
    rows = make_predictions((WHOLE, (0, 0, 90, 90), 0.9, 0), (UPPER_LEFT, (9, 9, 99, 99), 0.8, 1))
    found = suppress_looks(rows, LOOKS, CANVAS_HW, Suppression(), classes=[1])
    assert found.class_id.tolist() == [1]


def test_equal_scores_keep_the_order_of_looks() -> None:
    place = (880.0, 500.0, 910.0, 560.0)
    moved = (884.0, 500.0, 914.0, 560.0)
    found = merged((LOWER_RIGHT, place, 0.5), (UPPER_LEFT, moved, 0.5))
    np.testing.assert_allclose(found.xyxy, [moved], atol=1e-3)


def test_nothing_seen_is_nothing_found() -> None:
    assert len(merged()) == 0


def test_looks_that_were_suppressed_elsewhere_are_joined_as_if_here() -> None:
    random = np.random.default_rng(1)
    rows = random.uniform(0, 384, (len(LOOKS), 6, 60)).astype(np.float32)
    rows[:, 2:4] = rows[:, :2] + random.uniform(5, 90, (len(LOOKS), 2, 60))
    rows[:, 4:] = random.uniform(0, 1, (len(LOOKS), 2, 60))
    settings = Suppression()
    expected = suppress_looks(rows, LOOKS, CANVAS_HW, settings)
    joined = join_looks([suppress(each, settings) for each in rows], LOOKS, CANVAS_HW, settings)
    assert len(joined) > 20
    assert joined.xyxy.tobytes() == expected.xyxy.tobytes()
