# SPDX-License-Identifier: Apache-2.0
"""A split with some of its classes only."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from model.errors import ConfigError
from training.records import Objects, Split


def only(split: Split, classes: Sequence[str]) -> Split:
    """Return the same images, and of their objects those of some classes, in their new order.

    Raises:
        ConfigError: the split does not know one of them.
    """
    unknown = [name for name in classes if name not in split.classes]
    if unknown:
        known = ", ".join(split.classes)
        raise ConfigError(f"classes: the data has no {', '.join(unknown)}; it has {known}")
    old = np.array([split.classes.index(name) for name in classes])
    new = np.full(len(split.classes), -1)
    new[old] = np.arange(len(old))
    records = [split[index] for index in range(len(split))]
    return Split(
        split.name,
        classes,
        [
            replace(
                record,
                objects=_renumbered(record.objects, new),
                annotated=record.annotated[old],
            )
            for record in records
        ],
    )


def _renumbered(objects: Objects, new: np.ndarray) -> Objects:
    kept = objects[new[objects.class_id] >= 0]
    return replace(kept, class_id=new[kept.class_id])
