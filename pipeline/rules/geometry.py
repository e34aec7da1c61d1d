# SPDX-License-Identifier: Apache-2.0
"""Zones and lines in shares of the picture. Axes: N points, V corners of a polygon."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from jaxtyping import Bool, Float

from model.boxes import pairwise_iou

Point = tuple[float, float]
Box = tuple[float, float, float, float]
"""Left, top, right and bottom."""

_ON_EDGE: Final = 1e-9


class Area:
    """A polygon; its edge belongs to it, so that who is cut by the picture's edge stands inside."""

    def __init__(self, corners: Sequence[Point]) -> None:
        self._start: Float[np.ndarray, "V 2"] = np.array(corners, np.float64)
        self._end = np.roll(self._start, -1, axis=0)

    def contains(self, points: Float[np.ndarray, "N 2"]) -> Bool[np.ndarray, " N"]:
        """Whether each point lies inside or on the edge."""
        x, y = points[:, :1], points[:, 1:]
        x1, y1 = self._start.T
        x2, y2 = self._end.T
        cross = (x2 - x1) * (y - y1) - (y2 - y1) * (x - x1)  # N V
        # A ray to the right meets the edges that span its height and lie right of the point.
        spans = (y1 > y) != (y2 > y)
        odd = np.count_nonzero(spans & ((cross > 0) == (y2 > y1)), axis=1) % 2 == 1
        between = (x - x1) * (x - x2) + (y - y1) * (y - y2) <= _ON_EDGE
        on_edge = ((np.abs(cross) <= _ON_EDGE) & between).any(axis=1)
        return odd | on_edge


class Border:
    """A line from one point to another; who looks along it has a side to the left and the right."""

    def __init__(self, start: Point, end: Point) -> None:
        self._start = np.array(start, np.float64)
        self._along = np.array(end, np.float64) - self._start

    def sides(
        self, points: Float[np.ndarray, "N 2"], picture_hw: tuple[int, int]
    ) -> Float[np.ndarray, " N"]:
        """How far each point is from the line, in picture heights; more than 0 is to the left."""
        aspect = picture_hw[1] / picture_hw[0]
        along_x, along_y = self._along[0] * aspect, self._along[1]
        off_x, off_y = (points[:, 0] - self._start[0]) * aspect, points[:, 1] - self._start[1]
        return (along_y * off_x - along_x * off_y) / float(np.hypot(along_x, along_y))

    def is_met(self, before: Point, after: Point, share: float) -> bool:
        """Whether a step that meets the endless line after a share of its way meets this part."""
        met = [start + share * (end - start) for start, end in zip(before, after, strict=True)]
        place = float((met - self._start) @ self._along) / float(self._along @ self._along)
        return -_ON_EDGE <= place <= 1 + _ON_EDGE


def fault_of_polygon(corners: Sequence[Point]) -> str | None:
    """Say what keeps these corners from being a zone, or None."""
    edges = list(zip(corners, [*corners[1:], corners[0]], strict=True))
    for number, (start, end) in enumerate(edges, start=1):
        if start == end:
            return f"points {number} and {number % len(corners) + 1} are the same"
    for first in range(len(edges)):
        for second in range(first + 1, len(edges)):
            if _cross_each_other(edges, first, second):
                return f"it crosses itself: side {first + 1} meets side {second + 1}"
    if abs(sum(x1 * y2 - x2 * y1 for (x1, y1), (x2, y2) in edges)) / 2 < 1e-6:
        return "it has no area"
    return None


def _cross_each_other(edges: Sequence[tuple[Point, Point]], first: int, second: int) -> bool:
    (a, b), (c, d) = edges[first], edges[second]
    if second == first + 1:
        return _folds_back(a, b, d)
    if first == 0 and second == len(edges) - 1:
        return _folds_back(c, a, b)
    turns = (_turn(a, b, c), _turn(a, b, d), _turn(c, d, a), _turn(c, d, b))
    if turns[0] * turns[1] < 0 and turns[2] * turns[3] < 0:
        return True
    touching = zip(turns, ((a, b, c), (a, b, d), (c, d, a), (c, d, b)), strict=True)
    return any(turn == 0 and _is_between(*points) for turn, points in touching)


def _folds_back(before: Point, corner: Point, after: Point) -> bool:
    """Whether two sides that share a corner lie upon each other."""
    (x, y), (x1, y1), (x2, y2) = corner, before, after
    ahead = (x1 - x) * (x2 - x) + (y1 - y) * (y2 - y)
    return _turn(before, corner, after) == 0 and ahead > 0


def _turn(a: Point, b: Point, c: Point) -> float:
    """More than 0 where a, b and c turn one way, less where they turn the other."""
    turn = (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
    return 0.0 if abs(turn) < _ON_EDGE else turn


def _is_between(a: Point, b: Point, c: Point) -> bool:
    """Whether c, which lies on the line through a and b, lies between them."""
    return (c[0] - a[0]) * (c[0] - b[0]) + (c[1] - a[1]) * (c[1] - b[1]) <= 0


def overlap(first: Box, second: Box) -> float:
    """Intersection over union of two xyxy boxes; 0 where both are empty."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    if width <= 0 or height <= 0:
        return 0.0
    return width * height / (size(first) + size(second) - width * height)


def size(box: Box) -> float:
    """Share of the picture that a box of shares covers."""
    return (box[2] - box[0]) * (box[3] - box[1])


def pairs(first: Sequence[Box], second: Sequence[Box], min_iou: float) -> list[tuple[int, int]]:
    """Pair boxes that overlap by so much, each once, the pairs that overlap most first."""
    if not first or not second:
        return []
    iou = pairwise_iou(np.array(first, np.float64), np.array(second, np.float64))
    rows, columns = np.nonzero(iou >= min_iou)
    best_first = np.lexsort((columns, rows, -iou[rows, columns]))
    row_of: dict[int, int] = {}
    column_of: dict[int, int] = {}
    for row, column in zip(rows[best_first].tolist(), columns[best_first].tolist(), strict=True):
        if row not in column_of and column not in row_of:
            column_of[row], row_of[column] = column, row
    return sorted(column_of.items())
