# SPDX-License-Identifier: Apache-2.0
"""Images laid onto a sample by matrices: geometry is decided first, pixels are resampled once.

A mosaic that is then moved and scaled need not be drawn before it is moved: every tile goes from
its file to its place in the sample in one step, and what will not be seen is not drawn. Shrinking
is the triangle filter whatever the scale. Axes: H and W height and width, N objects.
"""

from dataclasses import dataclass, replace
from typing import Final, Protocol, runtime_checkable

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from model.boxes import area
from training.pictures import resample
from training.records import Objects, Polygon

Matrix = Float[np.ndarray, "3 3"]
Region = tuple[float, float, float, float]
"""Left, top, right, bottom."""

MIN_SIDE_PX: Final = 2.0
MIN_VISIBLE: Final = 0.1
MAX_ASPECT: Final = 100.0


@runtime_checkable
class Pictures(Protocol):
    """Where pixels come from."""

    def open(self, index: int, scale: float) -> Image.Image:
        """Return an image, perhaps smaller than its file if it is to be shrunk by `scale`."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tile:
    """One image on a sample."""

    index: int
    image_hw: tuple[int, int]
    matrix: Matrix
    """Pixels of the image to pixels of the sample."""
    region: Region
    """The part of the image that is shown, in its pixels."""

    @property
    def upright(self) -> bool:
        """Whether rows stay rows and columns stay columns."""
        across, down = self.matrix[0, 1], self.matrix[1, 0]
        return bool(across == 0 and down == 0 and self.matrix[0, 0] > 0 and self.matrix[1, 1] > 0)

    def placed(self) -> "Tile":
        """Move the edges of an upright tile to whole pixels, so that objects fit to the dot."""
        if not self.upright:
            return self
        left, top, right, bottom = self.region
        matrix = np.eye(3)
        for axis, (low, high) in enumerate(((left, right), (top, bottom))):
            scale, offset = self.matrix[axis, axis], self.matrix[axis, 2]
            first, end = round(scale * low + offset), round(scale * high + offset)
            matrix[axis, axis] = (end - first) / max(high - low, 1e-9)
            matrix[axis, 2] = first - matrix[axis, axis] * low
        return replace(self, matrix=matrix)


def draw(tile: Tile, pictures: Pictures, sample: UInt8[np.ndarray, "H W 3"]) -> None:
    """Draw what can be seen of a placed tile."""
    if tile.upright:
        _draw_upright(tile, pictures, sample)
    elif np.linalg.det(tile.matrix) != 0:
        _draw_turned(tile, pictures, sample)


def move(objects: Objects, tile: Tile, sample_hw: tuple[int, int]) -> Objects:
    """Carry the objects of an image over, cut to what is seen of it; polygons give exact boxes.

    Left out is what is `MIN_SIDE_PX` thin or less, thinner than one to `MAX_ASPECT`, or seen to no
    more than `MIN_VISIBLE`.
    """
    height, width = sample_hw
    limits = (0.0, 0.0, float(width), float(height))
    polygons = tuple(
        None if polygon is None else _move_polygon(polygon, tile, limits)
        for polygon in objects.polygons
    )
    xyxy = _move_boxes(objects.xyxy.astype(np.float64), tile)
    for place, polygon in enumerate(polygons):
        if polygon is not None:
            xyxy[place] = _extent(polygon)
    xyxy = _limited(xyxy, limits)
    whole = area(objects.xyxy) * abs(np.linalg.det(tile.matrix[:2, :2]))
    moved = Objects(
        xyxy=xyxy.astype(np.float32),
        class_id=objects.class_id,
        crowd=objects.crowd,
        polygons=polygons,
    )
    return moved[_worth_keeping(xyxy, whole)]


def _worth_keeping(xyxy: np.ndarray, whole: np.ndarray) -> np.ndarray:
    width, height = (xyxy[:, 2:] - xyxy[:, :2]).T
    seen = area(xyxy) / np.maximum(whole, 1e-9)
    aspect = np.maximum(width, height) / np.maximum(np.minimum(width, height), 1e-9)
    large = (width > MIN_SIDE_PX) & (height > MIN_SIDE_PX)
    return large & (seen > MIN_VISIBLE) & (aspect < MAX_ASPECT)


def _draw_upright(tile: Tile, pictures: Pictures, sample: np.ndarray) -> None:
    across, down = float(tile.matrix[0, 0]), float(tile.matrix[1, 1])
    start = tile.matrix[:2, 2]
    low = np.rint(np.array(tile.region[:2]) * (across, down) + start).astype(int)
    high = np.rint(np.array(tile.region[2:]) * (across, down) + start).astype(int)
    left, top = map(int, np.maximum(low, 0))
    right, bottom = map(int, np.minimum(high, sample.shape[1::-1]))
    if right <= left or bottom <= top:
        return
    picture = pictures.open(tile.index, max(across, down))
    height, width = tile.image_hw
    to_picture = np.array((picture.width / width, picture.height / height))
    first = ((left, top) - start) / (across, down) * to_picture
    end = ((right, bottom) - start) / (across, down) * to_picture
    region = (float(first[0]), float(first[1]), float(end[0]), float(end[1]))
    sample[top:bottom, left:right] = resample(picture, region, (bottom - top, right - left))


def _draw_turned(tile: Tile, pictures: Pictures, sample: np.ndarray) -> None:
    """Shrink upright as far as the tile is shrunk, then turn."""
    height, width = tile.image_hw
    across, down = (float(np.linalg.norm(tile.matrix[:2, axis])) for axis in (0, 1))
    picture = pictures.open(tile.index, max(across, down))
    size_hw = (
        max(round(min(height * down, picture.height)), 1),
        max(round(min(width * across, picture.width)), 1),
    )
    small = resample(picture, (0.0, 0.0, picture.width, picture.height), size_hw)
    to_small = np.array((size_hw[1] / width, size_hw[0] / height))
    low = np.rint(np.array(tile.region[:2]) * to_small).astype(int)
    high = np.rint(np.array(tile.region[2:]) * to_small).astype(int)
    shown = small[low[1] : high[1], low[0] : high[0]]
    if not shown.size:
        return
    # One pixel around, so that neighbours meet; half a pixel, because OpenCV counts from centres.
    shown = cv2.copyMakeBorder(shown, 1, 1, 1, 1, cv2.BORDER_REPLICATE)
    to_image = scaling(*(1 / to_small)) @ translation(low[0] - 0.5, low[1] - 0.5)
    matrix = translation(-0.5, -0.5) @ tile.matrix @ to_image
    cv2.warpAffine(
        shown,
        matrix[:2],
        (sample.shape[1], sample.shape[0]),
        dst=sample,
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_TRANSPARENT,
    )


def _move_boxes(xyxy: np.ndarray, tile: Tile) -> np.ndarray:
    left, top, right, bottom = _limited(xyxy, tile.region).T
    xs = np.stack((left, right, right, left), axis=1)
    ys = np.stack((top, top, bottom, bottom), axis=1)
    corners = apply(tile.matrix, np.stack((xs, ys), axis=2).reshape(-1, 2)).reshape(-1, 4, 2)
    return np.concatenate((corners.min(axis=1), corners.max(axis=1)), axis=1)


def _move_polygon(polygon: Polygon, tile: Tile, limits: Region) -> Polygon:
    seen = cut(polygon.astype(np.float64), tile.region)
    return cut(apply(tile.matrix, seen), limits)


def cut(polygon: Polygon, region: Region) -> Polygon:
    """Cut a polygon to a region, one edge of it after the other (Sutherland and Hodgman)."""
    for axis, limit, sign in zip((0, 1, 0, 1), region, (1, 1, -1, -1), strict=True):
        inside = sign * (polygon[:, axis] - limit) >= 0
        if inside.all():
            continue
        after = np.roll(polygon, -1, axis=0)
        crossing = inside != np.roll(inside, -1)
        step = after[:, axis] - polygon[:, axis]
        share = (limit - polygon[:, axis]) / np.where(crossing, step, 1)
        crossed = polygon + share[:, None] * (after - polygon)
        both = np.stack((polygon, crossed), axis=1).reshape(-1, 2)
        polygon = both[np.stack((inside, crossing), axis=1).reshape(-1)]
    return polygon


def apply(matrix: Matrix, points: Float[np.ndarray, "P 2"]) -> Float[np.ndarray, "P 2"]:
    """Move points by a matrix."""
    return points @ matrix[:2, :2].T + matrix[:2, 2]


def translation(right: float, down: float) -> Matrix:
    """Return the matrix that moves by so many pixels."""
    return np.array(((1, 0, right), (0, 1, down), (0, 0, 1)), np.float64)


def scaling(across: float, down: float) -> Matrix:
    """Return the matrix that enlarges from the origin."""
    return np.diag((across, down, 1.0))


def _limited(xyxy: np.ndarray, region: Region) -> np.ndarray:
    low, high = np.tile(region[:2], 2), np.tile(region[2:], 2)
    return np.clip(xyxy, low, high)


def _extent(polygon: Polygon) -> np.ndarray:
    if not len(polygon):
        return np.zeros(4)
    return np.concatenate((polygon.min(axis=0), polygon.max(axis=0)))
