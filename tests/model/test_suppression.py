# SPDX-License-Identifier: Apache-2.0
"""Score filter and suppression, against a reference that is slow and plain."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.config import Suppression
from model.suppression import suppress


def make_predictions(num_anchors: int, num_classes: int, seed: int = 0) -> np.ndarray:
    """Boxes that overlap often, with scores on a coarse grid so that many are equal."""
    random = np.random.default_rng(seed)
    low = random.integers(0, 40, (2, num_anchors))
    high = low + random.integers(0, 30, (2, num_anchors))
    scores = random.integers(0, 11, (num_classes, num_anchors)) / 10
    return np.concatenate((low, high, scores)).astype(np.float32)


def naive(
    predictions: np.ndarray, limits: Suppression, *, multi_label: bool
) -> list[tuple[int, int]]:
    """Anchor and class of every box kept, by the definition."""
    num_classes = len(predictions) - 4
    cells = []
    for anchor in range(predictions.shape[1]):
        scores = predictions[4:, anchor]
        labels = range(num_classes) if multi_label else [int(scores.argmax())]
        cells += [(anchor, label) for label in labels if scores[label] > limits.min_score]
    cells.sort(key=lambda cell: -predictions[4 + cell[1], cell[0]])
    kept: list[tuple[int, int]] = []
    for cell in cells:
        if all(not drops(predictions, better, cell, limits) for better in kept):
            kept.append(cell)
    return kept[: limits.max_boxes]


def drops(
    predictions: np.ndarray, better: tuple[int, int], worse: tuple[int, int], limits: Suppression
) -> bool:
    if limits.class_aware and better[1] != worse[1]:
        return False
    first, second = predictions[:4, better[0]], predictions[:4, worse[0]]
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    shared = max(width, 0) * max(height, 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
    return bool(shared > np.float32(limits.max_iou) * (sum(areas) - shared))


@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    num_anchors=st.integers(0, 60),
    num_classes=st.integers(1, 4),
    max_iou=st.sampled_from([0.0, 0.3, 0.5, 0.7, 1.0]),
    max_boxes=st.sampled_from([1, 5, 300]),
    class_aware=st.booleans(),
    multi_label=st.booleans(),
)
def test_the_result_is_that_of_the_definition(
    seed: int,
    num_anchors: int,
    num_classes: int,
    max_iou: float,
    max_boxes: int,
    class_aware: bool,
    multi_label: bool,
) -> None:
    predictions = make_predictions(num_anchors, num_classes, seed)
    limits = Suppression(
        min_score=0.35,
        max_iou=max_iou,
        max_boxes=max_boxes,
        class_aware=class_aware,
        multi_label=multi_label,
    )
    if num_anchors == 0:
        assert len(suppress(predictions, limits)) == 0
        return
    found = suppress(predictions, limits)
    expected = naive(predictions, limits, multi_label=multi_label)
    anchors = [anchor for anchor, _ in expected]
    labels = [label for _, label in expected]
    np.testing.assert_array_equal(found.class_id, labels)
    np.testing.assert_array_equal(found.xyxy, predictions[:4, anchors].T)
    np.testing.assert_array_equal(found.score, [predictions[4 + c, a] for a, c in expected])


def test_blocks_see_what_earlier_blocks_kept() -> None:
    predictions = make_predictions(1500, 2, seed=5)
    limits = Suppression(min_score=0.0, max_iou=0.5, multi_label=True)
    expected = naive(predictions, limits, multi_label=True)
    found = suppress(predictions, limits)
    np.testing.assert_array_equal(found.xyxy, predictions[:4, [anchor for anchor, _ in expected]].T)


def test_equal_scores_keep_the_order_of_anchors() -> None:
    predictions = np.zeros((5, 6), np.float32)
    predictions[:4] = np.arange(6) * 10 + np.array([[0], [0], [5], [5]])
    predictions[4] = 0.5
    found = suppress(predictions, Suppression())
    np.testing.assert_array_equal(found.xyxy[:, 0], np.arange(6) * 10)


def test_an_overlap_of_exactly_the_limit_stays() -> None:
    predictions = np.array([[0, 0], [0, 0], [2, 2], [2, 1], [0.9, 0.8]], np.float32)  # IoU 0.5
    assert len(suppress(predictions, Suppression(max_iou=0.5))) == 2
    assert len(suppress(predictions, Suppression(max_iou=0.49))) == 1


def test_a_score_of_exactly_the_limit_is_dropped() -> None:
    predictions = np.array([[0], [0], [2], [2], [0.25]], np.float32)
    assert len(suppress(predictions, Suppression(min_score=0.25))) == 0


@pytest.mark.parametrize("multi_label", [True, False])
def test_what_is_not_a_number_never_survives(multi_label: bool) -> None:
    predictions = make_predictions(50, 3)
    predictions[4, :20] = np.nan
    predictions[2, 20:30] = np.nan
    predictions[1, 30:35] = -np.inf
    found = suppress(predictions, Suppression(max_iou=1, multi_label=multi_label))
    assert len(found) > 0
    assert np.isfinite(found.xyxy).all()
    assert np.isfinite(found.score).all()


def test_asking_for_classes_gives_the_boxes_of_those_classes() -> None:
    predictions = make_predictions(60, 3)
    everything = suppress(predictions, Suppression())
    chosen = suppress(predictions, Suppression(), classes=[0, 2])
    expected = everything[everything.class_id != 1]
    np.testing.assert_array_equal(chosen.xyxy, expected.xyxy)
    np.testing.assert_array_equal(chosen.class_id, expected.class_id)


def test_asking_for_no_class_gives_no_box() -> None:
    assert len(suppress(make_predictions(20, 3), Suppression(), classes=[])) == 0


def test_predictions_are_left_as_they_were() -> None:
    predictions = make_predictions(60, 3)
    before = predictions.copy()
    suppress(predictions, Suppression(multi_label=True))
    np.testing.assert_array_equal(predictions, before)


def test_no_more_candidates_than_the_limit_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("model.suppression.MAX_CANDIDATES", 2000)
    random = np.random.default_rng(0)
    predictions = np.zeros((84, 8400), np.float32)
    predictions[:4] = [[0], [0], [1], [1]]
    predictions[0] = predictions[2] = 0  # boxes without area never drop each other
    predictions[4:] = random.random((80, 8400))
    found = suppress(predictions, Suppression(min_score=0.001, max_boxes=10**6, multi_label=True))
    assert len(found) == 2000
    best = np.sort(predictions[4:].ravel())[::-1][:2000]
    np.testing.assert_array_equal(found.score, best)


def test_few_candidates_cost_little() -> None:
    random = np.random.default_rng(0)
    predictions = random.uniform(0, 1e-3, (84, 5040)).astype(np.float32)
    predictions[2:4] += 10
    predictions[4, :20] = 0.9
    times = []
    for _ in range(30):
        started = time.perf_counter()
        suppress(predictions, Suppression())
        times.append(time.perf_counter() - started)
    assert min(times) < 2e-3
