# SPDX-License-Identifier: Apache-2.0
"""Copy-paste: mirrored copies of objects put where they hide little.

Only an object with a polygon can be cut out. It is mirrored with the whole picture, so a copy
comes to lie opposite its original. Axes: N objects.
"""

from typing import Final

import cv2
import numpy as np

from model.boxes import area, pairwise_intersection
from training.records import Objects, Polygon

MAX_HIDDEN: Final = 0.3
"""Share of any object that a copy may hide, by their boxes."""


def paste_mirrored(
    pixels: np.ndarray, objects: Objects, share: float, rng: np.random.Generator
) -> Objects:
    """Paste some of the objects that can be into `pixels`, and return all that are then there.

    Args:
        pixels: The sample, which is drawn on.
        objects: What is in it.
        share: Of the candidates, to be pasted.
        rng: Chooses which.
    """
    outlined = np.array([polygon is not None for polygon in objects.polygons], bool)
    if not share or not outlined.any():
        return objects
    width = pixels.shape[1]
    mirrored = mirror(objects, width)
    hidden = pairwise_intersection(mirrored.xyxy, objects.xyxy) / area(objects.xyxy)
    candidates = np.flatnonzero(outlined & (hidden < MAX_HIDDEN).all(axis=1))
    count = round(share * len(candidates))
    if not count:
        return objects
    copies = mirrored[rng.choice(candidates, count, replace=False)]
    mask = np.zeros(pixels.shape[:2], np.uint8)
    for polygon in copies.polygons:
        assert polygon is not None
        _fill(mask, polygon)
    np.copyto(pixels, pixels[:, ::-1].copy(), where=mask[:, :, None].astype(bool))
    return join((objects, copies))


def mirror(objects: Objects, width: int) -> Objects:
    """Return objects as they lie in the picture seen from behind."""
    xyxy = objects.xyxy.copy()
    xyxy[:, [0, 2]] = width - objects.xyxy[:, [2, 0]]
    return Objects(
        xyxy=xyxy,
        class_id=objects.class_id,
        crowd=objects.crowd,
        polygons=tuple(
            None if polygon is None else np.array((width, 0), polygon.dtype) - polygon * (1, -1)
            for polygon in objects.polygons
        ),
    )


def join(parts: "tuple[Objects, ...]") -> Objects:
    """Return the objects of several as those of one."""
    return Objects(
        xyxy=np.concatenate([part.xyxy for part in parts]),
        class_id=np.concatenate([part.class_id for part in parts]),
        crowd=np.concatenate([part.crowd for part in parts]),
        polygons=tuple(polygon for part in parts for polygon in part.polygons),
    )


def _fill(mask: np.ndarray, polygon: Polygon) -> None:
    """Mark the pixels whose centre lies inside."""
    points = np.rint((polygon - 0.5) * 16).astype(np.int32)
    cv2.fillPoly(mask, [points], 1, shift=4)
