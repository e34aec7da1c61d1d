# SPDX-License-Identifier: Apache-2.0
"""Tracks: what one stream's tracker says about one frame."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tracks:
    """N tracked boxes of one frame, in pixels of the original image."""

    xyxy: Float[np.ndarray, "N 4"]
    score: Float[np.ndarray, " N"]
    class_id: Int[np.ndarray, " N"]
    track_id: Int[np.ndarray, " N"]
    """Identity over time, counted from 1 in each stream."""

    def __post_init__(self) -> None:
        count = len(self.xyxy)
        columns = {"xyxy": (count, 4), "score": (count,), "class_id": (count,)}
        for name, shape in (columns | {"track_id": (count,)}).items():
            actual = tuple(getattr(self, name).shape)
            if actual != shape:
                raise ValueError(f"{name} must have shape {shape}, got {actual}")

    def __len__(self) -> int:
        return len(self.xyxy)

    @classmethod
    def empty(cls) -> "Tracks":
        """No boxes."""
        return cls(
            xyxy=np.zeros((0, 4), np.float32),
            score=np.zeros(0, np.float32),
            class_id=np.zeros(0, np.int64),
            track_id=np.zeros(0, np.int64),
        )
