# SPDX-License-Identifier: Apache-2.0
"""Which class of a model is which class of a data set: those of one name."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from model.detections import Detections
from model.errors import DataError

SHOWN = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassMap:
    """The classes that a model and a data set both know."""

    of_model: tuple[int, ...]
    """Their numbers in the model."""
    of_data: tuple[int, ...]
    """Their numbers in the data set, in the same order."""

    @classmethod
    def by_name(cls, model: Sequence[str], data: Sequence[str]) -> "ClassMap":
        """Find the classes of one name.

        Raises:
            DataError: there is none.
        """
        shared = [name for name in data if name in model]
        if not shared:
            raise DataError(
                f"no class in common: the model knows {_some(model)}, the data {_some(data)}; "
                "name the data's classes as the model does, or train on the data"
            )
        return cls(
            of_model=tuple(model.index(name) for name in shared),
            of_data=tuple(data.index(name) for name in shared),
        )

    def to_data(self, found: Detections) -> Detections:
        """Return boxes of the model's classes under the data's numbers, without the others."""
        number_of = np.full(max(self.of_model, default=0) + 1, -1, np.int64)
        number_of[list(self.of_model)] = self.of_data
        within = found[found.class_id < len(number_of)]
        class_id = number_of[within.class_id]
        renamed = Detections(xyxy=within.xyxy, score=within.score, class_id=class_id)
        return renamed[class_id >= 0]


def _some(names: Sequence[str]) -> str:
    more = f", ... ({len(names)})" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
