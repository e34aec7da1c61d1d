# SPDX-License-Identifier: Apache-2.0
"""The suppression kernel's own text against the processor's suppression, to the bit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.config import Suppression
from model.cuda.source import FOUND_HEAD
from model.detections import Detections
from model.suppression import suppress
from tests.model.cuda.host_kernels import HostMachine
from tests.model.cuda.kernels import Kernels, detections_of

NONE = 2**63 - 1


def make_predictions(num_anchors: int, num_classes: int, seed: int, *, coarse: bool) -> np.ndarray:
    """Boxes that overlap often; coarse ones have equal scores and overlaps, the others none."""
    random = np.random.default_rng(seed)
    low = random.uniform(0, 40, (2, num_anchors))
    high = low + random.uniform(0, 30, (2, num_anchors))
    scores = random.uniform(0, 1, (num_classes, num_anchors))
    if coarse:
        low, high, scores = np.rint(low), np.rint(high), np.rint(scores * 10) / 10
    return np.concatenate((low, high, scores)).astype(np.float32)


def ranked(predictions: np.ndarray, min_score: float) -> tuple[np.ndarray, np.ndarray]:
    """Keys and boxes of one image, as the network gives them: of each anchor its best class."""
    scores = predictions[4:]
    place = np.arange(scores.shape[1], dtype=np.int64) * len(scores) + scores.argmax(axis=0)
    best = scores.max(axis=0)
    bits = best.view(np.int32).astype(np.int64)
    keys = np.where(best > np.float32(min_score), (0x7FFFFFFF - bits) << 32 | place, NONE)
    return np.sort(keys), np.ascontiguousarray(predictions[:4].T)


def run(kernels: Kernels, predictions: np.ndarray, limits: Suppression) -> np.ndarray:
    keys, boxes = ranked(predictions, limits.min_score)
    return kernels.suppress(keys[None], boxes[None], limits, len(predictions) - 4)[0]


def assert_equal(found: Detections, expected: Detections) -> None:
    np.testing.assert_array_equal(found.class_id, expected.class_id)
    np.testing.assert_array_equal(found.score.view(np.int32), expected.score.view(np.int32))
    np.testing.assert_array_equal(found.xyxy.view(np.int32), expected.xyxy.view(np.int32))


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    num_anchors=st.integers(1, 700),
    num_classes=st.integers(1, 4),
    max_iou=st.sampled_from([0.0, 0.3, 0.5, 0.7, 1.0]),
    max_boxes=st.sampled_from([1, 5, 300]),
    class_aware=st.booleans(),
    coarse=st.booleans(),
)
def test_the_result_is_that_of_the_processor(
    kernels: Kernels,
    seed: int,
    num_anchors: int,
    num_classes: int,
    max_iou: float,
    max_boxes: int,
    class_aware: bool,
    coarse: bool,
) -> None:
    predictions = make_predictions(num_anchors, num_classes, seed, coarse=coarse)
    limits = Suppression(
        min_score=0.35, max_iou=max_iou, max_boxes=max_boxes, class_aware=class_aware
    )
    found = run(kernels, predictions, limits)
    assert_equal(detections_of(found), suppress(predictions, limits))
    assert not found[FOUND_HEAD + 6 * found[0] :].any()
    assert not found[1:FOUND_HEAD].any()


def test_blocks_see_what_earlier_blocks_kept(kernels: Kernels) -> None:
    predictions = make_predictions(3000, 2, 5, coarse=False)
    limits = Suppression(min_score=0.0, max_iou=0.5)
    found = detections_of(run(kernels, predictions, limits))
    assert_equal(found, suppress(predictions, limits))
    assert found.score.min() < np.sort(predictions[4:].max(axis=0))[-256]


def test_a_long_chain_within_a_block_is_followed(kernels: Kernels) -> None:
    """Each box would drop the next, so every other one is kept, settled one after the other."""
    left = np.arange(256) * 4
    zero = np.zeros_like(left)
    predictions = np.stack((left, zero, left + 10, zero + 10, 1 - left / 2000)).astype(np.float32)
    limits = Suppression(max_iou=0.4)
    found = detections_of(run(kernels, predictions, limits))
    np.testing.assert_array_equal(found.xyxy[:, 0], left[::2])
    assert_equal(found, suppress(predictions, limits))


def test_an_overlap_of_exactly_the_limit_stays(kernels: Kernels) -> None:
    predictions = np.array([[0, 0], [0, 0], [2, 2], [2, 1], [0.9, 0.8]], np.float32)  # IoU 0.5
    assert run(kernels, predictions, Suppression(max_iou=0.5))[0] == 2
    assert run(kernels, predictions, Suppression(max_iou=0.49))[0] == 1


def test_boxes_without_an_end_are_the_processors_too(kernels: Kernels) -> None:
    """Areas beyond what a float holds, negative sides and boxes of no size."""
    far, near = 3e38, -3e38
    columns = [
        (near, near, far, far), (near, near, far, far), (0, 0, far, 1), (5, 5, 2, 2), (5, 5, 2, 2),
        (3, 3, 3, 3), (3, 3, 3, 3), (0, 0, 10, 10), (0, 0, 10, 10),
    ]  # fmt: skip
    scores = np.linspace(0.9, 0.5, len(columns))[None]
    predictions = np.concatenate((np.transpose(columns), scores)).astype(np.float32)
    with np.errstate(all="ignore"):
        expected = suppress(predictions, Suppression())
    assert_equal(detections_of(run(kernels, predictions, Suppression())), expected)


def test_the_last_box_ends_it(kernels: Kernels) -> None:
    """What is ranked behind it is never looked at: its boxes lie nowhere."""
    limits = Suppression(max_boxes=5, max_iou=1.0)
    predictions = make_predictions(600, 1, 3, coarse=False)
    keys, boxes = ranked(predictions, limits.min_score)
    keys[256:] = (keys[256:] >> 32 << 32) + 2**31
    found = kernels.suppress(keys[None], boxes[None], limits, 1)[0]
    assert_equal(detections_of(found), suppress(predictions, limits))


def test_no_candidate_is_no_box(kernels: Kernels) -> None:
    found = run(kernels, np.zeros((6, 300), np.float32), Suppression())
    assert not found.any()


@pytest.mark.parametrize("max_boxes", [7, 300])
def test_each_image_has_its_own_boxes_and_ticket(kernels: Kernels, max_boxes: int) -> None:
    limits = Suppression(max_boxes=max_boxes)
    images = [make_predictions(400, 3, seed, coarse=seed == 1) for seed in range(3)]
    keys, boxes = map(np.stack, zip(*(ranked(image, 0.25) for image in images), strict=True))
    found = kernels.suppress(keys, boxes, limits, 3, first_ticket=41)
    assert list(found[:, 1]) == [41, 42, 43]
    for row, image in zip(found, images, strict=True):
        assert_equal(detections_of(row), suppress(image, limits))


@pytest.mark.parametrize("seed", [1, 7, 8])
def test_any_order_of_threads_gives_the_same(host: HostMachine, seed: int) -> None:
    predictions = make_predictions(700, 2, 11, coarse=True)
    limits = Suppression(max_iou=0.3)
    forward = run(Kernels(host), predictions, limits)
    np.testing.assert_array_equal(run(Kernels(host.in_order(seed)), predictions, limits), forward)
