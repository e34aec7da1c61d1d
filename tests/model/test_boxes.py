# SPDX-License-Identifier: Apache-2.0
"""Geometry of boxes."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from model.boxes import area, clip, pairwise_iou, to_cxcywh, to_xyxy

corners = arrays(np.float64, (5, 4), elements=st.floats(-1000, 1000))


def boxes_of(values: np.ndarray) -> np.ndarray:
    return np.concatenate(
        (np.minimum(values[:, :2], values[:, 2:]), np.maximum(values[:, :2], values[:, 2:])), axis=1
    )


def test_iou_of_known_boxes() -> None:
    first = np.array([[0, 0, 2, 2], [5, 5, 5, 5]], np.float32)
    second = np.array([[0, 0, 2, 2], [1, 0, 3, 2], [4, 4, 6, 6]], np.float32)
    expected = [[1, 1 / 3, 0], [0, 0, 0]]
    np.testing.assert_allclose(pairwise_iou(first, second), expected, rtol=1e-6)


def test_iou_with_no_boxes_is_empty() -> None:
    none = np.zeros((0, 4), np.float32)
    assert pairwise_iou(none, np.ones((3, 4), np.float32)).shape == (0, 3)


@given(corners, corners)
def test_iou_is_symmetric_and_within_0_and_1(first: np.ndarray, second: np.ndarray) -> None:
    iou = pairwise_iou(boxes_of(first), boxes_of(second))
    assert ((iou >= 0) & (iou <= 1 + 1e-9)).all()
    np.testing.assert_allclose(iou, pairwise_iou(boxes_of(second), boxes_of(first)).T)


@given(corners)
def test_centre_form_and_back_is_the_same_box(values: np.ndarray) -> None:
    boxes = boxes_of(values)
    np.testing.assert_allclose(to_xyxy(to_cxcywh(boxes)), boxes, atol=1e-9)


def test_area_of_a_turned_box_is_zero() -> None:
    turned = np.array([[3, 3, 1, 1], [0, 0, 2, 3]], np.float32)
    np.testing.assert_array_equal(area(turned), [0, 6])


def test_clip_keeps_corners_inside_the_image() -> None:
    outside = np.array([[-5, -5, 700, 500]], np.float32)
    np.testing.assert_array_equal(clip(outside, (480, 640)), [[0, 0, 640, 480]])
