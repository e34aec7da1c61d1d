# SPDX-License-Identifier: Apache-2.0
"""What a detector finds in one image. Axes: N boxes."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int64

Selection = np.ndarray | slice | list[int]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Detections:
    """N boxes, best score first."""

    xyxy: Float32[np.ndarray, "N 4"]
    """Left, top, right, bottom, in pixels of the image they were found in."""
    score: Float32[np.ndarray, " N"]
    """Probability of the box's class, in [0, 1]."""
    class_id: Int64[np.ndarray, " N"]

    def __post_init__(self) -> None:
        count = len(self.score)
        columns = {
            "xyxy": (self.xyxy, (count, 4), np.float32),
            "score": (self.score, (count,), np.float32),
            "class_id": (self.class_id, (count,), np.int64),
        }
        for name, (column, shape, dtype) in columns.items():
            if column.shape != shape or column.dtype != dtype:
                raise ValueError(
                    f"{name} must be {np.dtype(dtype)} of shape {shape}, "
                    f"got {column.dtype} of shape {column.shape}"
                )

    def __len__(self) -> int:
        return len(self.score)

    def __getitem__(self, selection: Selection) -> "Detections":
        """Return the boxes chosen by a mask, a slice or an array of positions."""
        return Detections(
            xyxy=self.xyxy[selection],
            score=self.score[selection],
            class_id=self.class_id[selection],
        )

    @classmethod
    def empty(cls) -> "Detections":
        """Return no boxes."""
        return cls(
            xyxy=np.zeros((0, 4), np.float32),
            score=np.zeros(0, np.float32),
            class_id=np.zeros(0, np.int64),
        )
