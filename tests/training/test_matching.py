# SPDX-License-Identifier: Apache-2.0
"""Thresholds and confusions, worked out by hand."""

from dataclasses import replace

import numpy as np
import pytest

from model.detections import Detections
from tests.training.datasets_on_disk import Box, objects_of
from training.matching import best_threshold, calibration, confusion
from training.records import Objects

FIRST, SECOND, THIRD = (0, 0, 40, 40), (50, 50, 90, 90), (100, 0, 140, 40)
NOWHERE = (200, 200, 240, 240)


def found(*rows: tuple[float, int, tuple[int, int, int, int]]) -> Detections:
    return Detections(
        xyxy=np.array([row[2] for row in rows], np.float32).reshape(-1, 4),
        score=np.array([row[0] for row in rows], np.float32),
        class_id=np.array([row[1] for row in rows], np.int64),
    )


def there(*rows: Box, crowd: bool = False) -> Objects:
    objects = objects_of(rows)
    return replace(objects, crowd=np.full(len(rows), crowd))


def test_the_best_threshold_keeps_what_is_right_and_leaves_what_is_wrong() -> None:
    pair = (
        found((0.9, 0, FIRST), (0.6, 0, SECOND), (0.3, 0, NOWHERE), (0.2, 0, NOWHERE)),
        there((0, *FIRST), (0, *SECOND), (0, *THIRD)),
    )
    best = best_threshold([pair], 0)
    assert best is not None
    assert (best.min_score, best.precision) == (0.6, 1)
    assert best.recall == pytest.approx(2 / 3, abs=1e-4)
    assert best.f1 == pytest.approx(0.8)


def test_each_class_has_a_threshold_of_its_own() -> None:
    pair = (
        found((0.9, 0, FIRST), (0.8, 1, NOWHERE), (0.4, 1, SECOND), (0.3, 0, NOWHERE)),
        there((0, *FIRST), (1, *SECOND)),
    )
    first, second = best_threshold([pair], 0), best_threshold([pair], 1)
    assert first is not None
    assert second is not None
    assert (first.min_score, second.min_score) == (0.9, 0.4)


def test_a_threshold_does_not_part_boxes_of_one_score() -> None:
    pair = (
        found((0.5, 0, FIRST), (0.5, 0, NOWHERE)),
        there((0, *FIRST)),
    )
    best = best_threshold([pair], 0)
    assert best is not None
    assert best.precision == 0.5


def test_an_object_is_found_once() -> None:
    pair = (found((0.9, 0, FIRST), (0.8, 0, FIRST)), there((0, *FIRST)))
    best = best_threshold([pair], 0)
    assert best is not None
    assert (best.min_score, best.f1) == (0.9, 1)


def test_a_box_in_a_crowd_is_neither_right_nor_wrong() -> None:
    crowd = there((0, 0, 0, 200, 200), crowd=True)
    single = there((0, *NOWHERE))
    pairs = [
        (found((0.9, 0, FIRST)), crowd),
        (found((0.5, 0, NOWHERE)), single),
    ]
    best = best_threshold(pairs, 0)
    assert best is not None
    assert best.f1 == 1
    assert confusion(pairs, (0,), ("a",), 0.25).counts.tolist() == [[1, 0], [0, 0]]


def test_no_object_or_no_box_has_no_threshold() -> None:
    assert best_threshold([(found((0.9, 0, FIRST)), there())], 0) is None
    assert best_threshold([(found(), there((0, *FIRST)))], 0) is None


def test_confusions_are_counted_by_hand() -> None:
    pair = (
        found((0.9, 0, FIRST), (0.8, 0, SECOND), (0.7, 1, NOWHERE), (0.2, 1, THIRD)),
        there((0, *FIRST), (1, *SECOND), (1, *THIRD)),
    )
    matrix = confusion([pair], (0, 1), ("a", "b"), 0.25)
    assert matrix.counts.tolist() == [
        [1, 0, 0],
        [1, 0, 1],  # one taken for the other class, one not found
        [0, 1, 0],  # one where nothing is
    ]


def test_an_object_goes_with_the_box_that_is_closest() -> None:
    shifted = (0, 0, 40, 50)
    pair = (found((0.9, 1, shifted), (0.5, 0, FIRST)), there((0, *FIRST)))
    matrix = confusion([pair], (0, 1), ("a", "b"), 0.25)
    assert matrix.counts.tolist() == [[1, 0, 0], [0, 0, 0], [0, 1, 0]]


def test_calibration_counts_the_boxes_of_each_tenth_and_those_that_are_right() -> None:
    pairs = [
        (found((0.95, 0, FIRST), (0.92, 0, NOWHERE), (0.31, 1, SECOND)), there((0, *FIRST))),
        (found((0.98, 1, SECOND), (1.0, 0, SECOND)), there((1, *SECOND))),
    ]
    tenths = calibration(pairs, [0, 1])
    assert [row.above for row in tenths] == [n / 10 for n in range(10)]
    assert [row.boxes for row in tenths] == [0, 0, 0, 1, 0, 0, 0, 0, 0, 4]
    assert (tenths[9].score, tenths[9].precision) == (pytest.approx(0.9625), 0.5)
    assert (tenths[3].score, tenths[3].precision) == (pytest.approx(0.31), 0)
    assert (tenths[0].score, tenths[0].precision) == (0, 0)
