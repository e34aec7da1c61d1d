# SPDX-License-Identifier: Apache-2.0
"""How boxes lie in the result of an engine that suppresses overlaps itself.

Axes: B looks, K boxes at most. Each look has 1 + K rows of six: the first holds the number of its
boxes and zeros, the others left, top, right, bottom in canvas pixels, score and class number, best
first. Rows behind the last box say nothing.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32

from model.detections import Detections


def write_found(found: Sequence[Detections], rows: Float32[np.ndarray, "B rows 6"]) -> None:
    """Write the boxes of each look into its rows."""
    for boxes, look in zip(found, rows, strict=True):
        count = len(boxes)
        look[0] = count, 0, 0, 0, 0, 0
        look[1 : 1 + count, :4] = boxes.xyxy
        look[1 : 1 + count, 4] = boxes.score
        look[1 : 1 + count, 5] = boxes.class_id


def read_found(rows: Float32[np.ndarray, "B rows 6"]) -> list[Detections]:
    """Return the boxes of each look, in memory of their own."""
    return [_boxes(look[1 : 1 + int(look[0, 0])]) for look in rows]


def _boxes(rows: Float32[np.ndarray, "N 6"]) -> Detections:
    return Detections(
        xyxy=rows[:, :4].copy(), score=rows[:, 4].copy(), class_id=rows[:, 5].astype(np.int64)
    )
