# SPDX-License-Identifier: Apache-2.0
"""From predictions to detections: score filter and greedy non-maximum suppression.

Axes: A anchor points, C classes, N candidates, best first. A row of predictions holds one
quantity of all anchor points: left, top, right, bottom, then one score per class.
"""

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from jaxtyping import Bool, Float, Float32, Int64

from model.boxes import area, pairwise_intersection
from model.config import Suppression
from model.detections import Detections

MAX_CANDIDATES: Final = 30_000
"""Candidates of one image that are looked at, the best ones."""
BLOCK: Final = 256
"""Candidates that are compared at once."""
_LOW_BITS: Final = np.uint64(32)

Places = Int64[np.ndarray, " N"]
Drops = Callable[[Places, Places], np.ndarray]
"""Which of the better candidates, by their places, would drop which of the worse: N x M."""


def suppress(
    predictions: Float[np.ndarray, "rows A"],
    settings: Suppression,
    *,
    classes: Sequence[int] | None = None,
) -> Detections:
    """Keep the best of the boxes that overlap; equal scores in the order of their anchors.

    Args:
        predictions: What the network says about one image.
        settings: Thresholds and limits.
        classes: Keep boxes of these classes only; others neither appear nor drop a box.
    """
    scores = np.asarray(predictions[4:], np.float32)
    find = _every_label if settings.multi_label else _best_label
    anchors, class_id = find(scores, np.float32(settings.min_score))
    if classes is not None:
        wanted = np.isin(class_id, np.asarray(classes, np.int64))
        anchors, class_id = anchors[wanted], class_id[wanted]
    candidates = _rank(predictions[:4], scores, anchors, class_id)

    def drops(better: Places, worse: Int64[np.ndarray, " M"]) -> np.ndarray:
        first = candidates[better]
        return overlaps(first, first if worse is better else candidates[worse], settings)

    return candidates[keep_best(len(candidates), settings.max_boxes, drops)]


def keep_best(count: int, max_boxes: int, drops: Drops) -> Places:
    """Return the places of the candidates, best first, that no better one drops.

    Blocks of candidates are compared with the boxes kept so far, then among themselves; what
    comes after the last box kept is never looked at.
    """
    kept = np.zeros(0, np.int64)
    for first in range(0, count, BLOCK):
        block = np.arange(first, min(first + BLOCK, count))
        if len(kept):
            block = block[~drops(kept, block).any(axis=0)]
        kept = np.concatenate((kept, block[_survivors(drops(block, block))]))
        if len(kept) >= max_boxes:
            break
    return kept[:max_boxes]


def overlaps(better: Detections, worse: Detections, settings: Suppression) -> np.ndarray:
    """Return which boxes overlap which by more than the limit, free of any division."""
    shared = pairwise_intersection(better.xyxy, worse.xyxy)
    union = area(better.xyxy)[:, None] + area(worse.xyxy)[None, :] - shared
    overlap = shared > np.float32(settings.max_iou) * union
    if settings.class_aware:
        overlap &= better.class_id[:, None] == worse.class_id[None, :]
    return overlap


def _best_label(
    scores: Float32[np.ndarray, "C A"], min_score: np.float32
) -> tuple[Int64[np.ndarray, " N"], Int64[np.ndarray, " N"]]:
    """Return the anchors whose best class scores above a limit, and that class."""
    anchors = np.flatnonzero(scores.max(axis=0) > min_score)
    return anchors, scores[:, anchors].argmax(axis=0)


def _every_label(
    scores: Float32[np.ndarray, "C A"], min_score: np.float32
) -> tuple[Int64[np.ndarray, " N"], Int64[np.ndarray, " N"]]:
    """Return every anchor and class that score above a limit."""
    cells = np.flatnonzero(scores > min_score)
    class_id, anchors = np.divmod(cells, scores.shape[1])
    return anchors, class_id


def _rank(
    boxes: Float[np.ndarray, "4 A"],
    scores: Float32[np.ndarray, "C A"],
    anchors: Int64[np.ndarray, " N"],
    class_id: Int64[np.ndarray, " N"],
) -> Detections:
    """Return the best candidates, best first, less those without a finite box.

    Scores are positive floats, whose bits grow with them: turned over, in the high half of an
    integer with the place in the low half, one plain sort gives the order and breaks its ties.
    """
    num_classes = np.uint64(len(scores))
    place = anchors.astype(np.uint64) * num_classes + class_id.astype(np.uint64)
    bits = (~scores[class_id, anchors].view(np.uint32)).astype(np.uint64)
    key = bits << _LOW_BITS | place
    if len(key) > MAX_CANDIDATES:
        key = np.partition(key, MAX_CANDIDATES)[:MAX_CANDIDATES]
    key.sort()
    low_half = (key & np.uint64(0xFFFFFFFF)).astype(np.int64)
    anchor, label = np.divmod(low_half, len(scores))
    xyxy = np.ascontiguousarray(boxes[:, anchor].T, np.float32)
    ranked = Detections(xyxy=xyxy, score=scores[label, anchor], class_id=label)
    finite = np.flatnonzero(np.isfinite(xyxy).all(axis=1))
    return ranked if len(finite) == len(ranked) else ranked[finite]


def _survivors(drops: Bool[np.ndarray, "N N"]) -> Bool[np.ndarray, " N"]:
    """Return which boxes of a block are left when the better ones have dropped the others."""
    alive = np.ones(len(drops), bool)
    worse = np.triu(drops, k=1)
    for place in np.flatnonzero(worse.any(axis=1)):
        if alive[place]:
            alive &= ~worse[place]
    return alive
