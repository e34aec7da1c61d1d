# SPDX-License-Identifier: Apache-2.0
"""From the predictions of several looks at one picture to its detections.

Each look is suppressed on its own. Then a tile's boxes that touch its edge are left out: a
neighbour that overlaps it shows the object whole, or the whole picture does, in which an object too
large for the overlap is large enough. They are left out no sooner, since until then they drop the
lesser boxes of the same cut object. What remains is compared over all looks, the best first:

- One object seen by two looks. They differ in magnification, so their boxes agree less closely than
  those of one look: an overlap of `TWICE_IOU` is enough.
- A part of a large object that a tile took for a whole one. It lies inside a better box of another
  look that reaches beyond the tile, where the tile could not see it whole. A small object in front
  of a large one that the tile does show whole is not a part of it.

Axes: N and M boxes, B looks, A anchor points.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from jaxtyping import Bool, Float, Float32, Int64

from model.boxes import area, pairwise_intersection
from model.config import Suppression
from model.detections import Detections
from model.slicing import Region
from model.suppression import Places, keep_best, overlaps, suppress

TWICE_IOU: Final = 0.5
"""Boxes of two looks that overlap by more are of one object."""
PART_SHARE: Final = 0.7
"""A box of which more than this lies inside a larger one may be a part of it."""
EDGE_PX: Final = 4
"""Boxes this close to the edge of a tile, in canvas pixels, are taken for cut by it."""


def suppress_looks(
    predictions: Float[np.ndarray, "B rows A"],
    regions: Sequence[Region],
    canvas_hw: tuple[int, int],
    settings: Suppression,
    *,
    classes: Sequence[int] | None = None,
) -> Detections:
    """Return what all looks at one picture found, in its pixels.

    Args:
        predictions: What the network says about each look.
        regions: What each look shows, the whole picture first.
        canvas_hw: Height and width of the canvas of every look.
        settings: Thresholds and limits, for each look and for the result.
        classes: Keep boxes of these classes only.
    """
    found = [suppress(rows, settings, classes=classes) for rows in predictions]
    return join_looks(found, regions, canvas_hw, settings)


def join_looks(
    found: Sequence[Detections],
    regions: Sequence[Region],
    canvas_hw: tuple[int, int],
    settings: Suppression,
) -> Detections:
    """Return what looks at one picture found that were suppressed each on its own, in its pixels.

    Args:
        found: Boxes of each look, in pixels of its canvas.
        regions: What each look shows, the whole picture first.
        canvas_hw: Height and width of the canvas of every look.
        settings: Thresholds and limits for the result.
    """
    moved = [
        _on_source(each, region, regions[0], canvas_hw)
        for each, region in zip(found, regions, strict=True)
    ]
    return moved[0] if len(moved) == 1 else _merge(moved, regions, settings)


def _on_source(
    found: Detections, region: Region, whole: Region, canvas_hw: tuple[int, int]
) -> Detections:
    """Move a look's boxes from its canvas to the picture, less those that it cuts."""
    letterbox = region.letterbox(canvas_hw)
    if region == whole:
        moved = letterbox.to_source(found.xyxy)
    else:
        edges = letterbox.to_canvas(_edges(region, whole) - _offset(region))
        found = found[~_beyond(found.xyxy, edges, -EDGE_PX)]
        moved = letterbox.to_source(found.xyxy) + _offset(region)
    return Detections(xyxy=moved, score=found.score, class_id=found.class_id)


def _offset(region: Region) -> Float32[np.ndarray, " 4"]:
    return np.array((region.left, region.top) * 2, np.float32)


def _edges(region: Region, whole: Region) -> Float32[np.ndarray, " 4"]:
    """Return where a region cuts the picture: left, top, right, bottom, infinite where not."""
    left, top, width, height = region
    return np.array(
        (
            left if left > 0 else -np.inf,
            top if top > 0 else -np.inf,
            left + width if left + width < whole.width else np.inf,
            top + height if top + height < whole.height else np.inf,
        ),
        np.float32,
    )


def _beyond(
    xyxy: Float32[np.ndarray, "*N 4"], edges: Float32[np.ndarray, "*M 4"], by_px: float
) -> np.ndarray:
    """Return which boxes reach over an edge by more than so much."""
    outwards = np.array((-1, -1, 1, 1), np.float32)
    return ((xyxy - edges) * outwards > by_px).any(axis=-1)


def _merge(
    found: Sequence[Detections], regions: Sequence[Region], settings: Suppression
) -> Detections:
    """Let the boxes of all looks drop each other, the best first, earlier looks before later."""
    joined = Detections(
        xyxy=np.concatenate([each.xyxy for each in found]),
        score=np.concatenate([each.score for each in found]),
        class_id=np.concatenate([each.class_id for each in found]),
    )
    look = np.repeat(np.arange(len(found)), [len(each) for each in found])
    order = np.argsort(-joined.score, kind="stable")
    joined, look = joined[order], look[order]
    limits = settings.model_copy(update={"max_iou": min(TWICE_IOU, settings.max_iou)})
    edges = np.array([_edges(region, regions[0]) for region in regions])

    def drops(better: Places, worse: Places) -> np.ndarray:
        first, second = joined[better], joined[worse]
        again = overlaps(first, second, limits) | _parts(first, second, edges[look[worse]], limits)
        return again & _differ(look[better], look[worse])

    return joined[keep_best(len(joined), settings.max_boxes, drops)]


def _parts(
    better: Detections,
    worse: Detections,
    edges: Float32[np.ndarray, "M 4"],
    settings: Suppression,
) -> Bool[np.ndarray, "N M"]:
    """Return which boxes may be parts of which better ones, given the edges of their looks."""
    shared = pairwise_intersection(better.xyxy, worse.xyxy)
    parts = shared > np.float32(PART_SHARE) * area(worse.xyxy)[None, :]
    parts &= _beyond(better.xyxy[:, None], edges[None], by_px=0)
    if settings.class_aware:
        parts &= better.class_id[:, None] == worse.class_id[None, :]
    return parts


def _differ(
    first: Int64[np.ndarray, " N"], second: Int64[np.ndarray, " M"]
) -> Bool[np.ndarray, "N M"]:
    return first[:, None] != second[None, :]
