# SPDX-License-Identifier: Apache-2.0
"""Geometry of boxes as arrays. Axes: N and M boxes."""

import numpy as np
from jaxtyping import Float


def pairwise_iou(
    first: Float[np.ndarray, "N 4"], second: Float[np.ndarray, "M 4"]
) -> Float[np.ndarray, "N M"]:
    """Return the intersection over union of every pair of xyxy boxes; 0 where both are empty."""
    shared = pairwise_intersection(first, second)
    union = area(first)[:, None] + area(second)[None, :] - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def pairwise_intersection(
    first: Float[np.ndarray, "N 4"], second: Float[np.ndarray, "M 4"]
) -> Float[np.ndarray, "N M"]:
    """Return the area that every pair of xyxy boxes has in common."""
    left, top, right, bottom = first.T[:, :, None]
    width = np.minimum(right, second[:, 2]) - np.maximum(left, second[:, 0])
    height = np.minimum(bottom, second[:, 3]) - np.maximum(top, second[:, 1])
    return np.maximum(width, 0) * np.maximum(height, 0)


def area(xyxy: Float[np.ndarray, "N 4"]) -> Float[np.ndarray, " N"]:
    """Return the area of each box; a box with negative sides has none."""
    sides = np.maximum(xyxy[:, 2:] - xyxy[:, :2], 0)
    return sides[:, 0] * sides[:, 1]


def to_cxcywh(xyxy: Float[np.ndarray, "N 4"]) -> Float[np.ndarray, "N 4"]:
    """Corners to centre, width and height."""
    low, high = xyxy[:, :2], xyxy[:, 2:]
    return np.concatenate(((low + high) / 2, high - low), axis=1)


def to_xyxy(cxcywh: Float[np.ndarray, "N 4"]) -> Float[np.ndarray, "N 4"]:
    """Centre, width and height to corners."""
    centre, half = cxcywh[:, :2], cxcywh[:, 2:] / 2
    return np.concatenate((centre - half, centre + half), axis=1)


def clip(xyxy: Float[np.ndarray, "N 4"], image_hw: tuple[int, int]) -> Float[np.ndarray, "N 4"]:
    """Move corners that lie outside an image to its edge."""
    height, width = image_hw
    limits = np.array((width, height, width, height), dtype=xyxy.dtype)
    return np.clip(xyxy, 0, limits)
