# SPDX-License-Identifier: Apache-2.0
"""From which score on a box counts, where classes differ in it. Axes: N boxes."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float32, Int64


@dataclass(frozen=True, slots=True)
class Thresholds:
    """One score for all classes, and others for some."""

    common: float
    by_class: Mapping[int, float] = field(default_factory=dict)
    """By number of the class."""

    @property
    def lowest(self) -> float:
        """The score below which no box counts."""
        return min((self.common, *self.by_class.values()))

    def of(self, class_id: Int64[np.ndarray, " N"]) -> Float32[np.ndarray, " N"]:
        """The score each box must have."""
        wanted = np.full(len(class_id), self.common, np.float32)
        for number, score in self.by_class.items():
            wanted[class_id == number] = score
        return wanted

    def levelled(
        self, score: Float32[np.ndarray, " N"], class_id: Int64[np.ndarray, " N"]
    ) -> Float32[np.ndarray, " N"]:
        """The scores as they would be if every class had the common threshold.

        The order of a class's boxes stays, 0 and 1 stay, and its threshold becomes the common one,
        so that a method that knows one threshold treats every class by its own.
        """
        if not self.by_class:
            return score
        common, own = np.float32(self.common), self.of(class_id)
        one = np.float32(1)
        above = common + (one - common) * (score - own) / np.maximum(one - own, np.float32(1e-6))
        below = np.minimum(common * score / np.maximum(own, np.float32(1e-6)), _below(common))
        return np.where(score >= own, np.minimum(above, one), below).astype(np.float32)


def _below(value: np.float32) -> np.float32:
    return np.nextafter(value, np.float32(0))
