# SPDX-License-Identifier: Apache-2.0
"""Which of the boxes found in one camera's picture are wanted: by class, score and place.

The detector serves all cameras, so it finds what any of them asks for; what this camera does not
want is left out before its tracker sees it. Axes: N boxes, K corners of a polygon.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from model.detections import Detections
from model.errors import ConfigError
from pipeline.cameras import CameraConfig, Polygon
from pipeline.config import PipelineConfig
from pipeline.tracking.thresholds import Thresholds


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What one camera looks for."""

    class_ids: tuple[int, ...] | None
    """None for all classes."""
    thresholds: Thresholds
    """From which score on a box counts."""
    weak_score: float | None
    """From which on it may continue a track; None where boxes that do not count are of no use."""
    ignore: tuple[Polygon, ...] = ()

    @property
    def floor(self) -> float:
        """The lowest score of any use."""
        lowest = self.thresholds.lowest
        return lowest if self.weak_score is None else min(lowest, self.weak_score)

    def of(self, found: Detections, picture_hw: tuple[int, int]) -> Detections:
        """The boxes that are wanted, of those found in a picture of this size."""
        wanted = found.score >= self._floors(found)
        if self.class_ids is not None:
            wanted &= np.isin(found.class_id, self.class_ids)
        for polygon in self.ignore:
            wanted &= ~inside(_middles(found, picture_hw), polygon)
        return found if wanted.all() else found[wanted]

    def _floors(self, found: Detections) -> np.ndarray:
        floors = self.thresholds.of(found.class_id)
        return (
            floors if self.weak_score is None else np.minimum(floors, np.float32(self.weak_score))
        )


def wanted_by(camera: CameraConfig, config: PipelineConfig, classes: Sequence[str]) -> Wanted:
    """What a camera wants, where it says so, and else what all do.

    Raises:
        ConfigError: it names a class that the model does not know.
    """
    names = camera.classes or config.classes
    common = config.suppression.min_score if camera.min_score is None else camera.min_score
    numbers = class_ids_of(tuple(camera.scores), classes) or ()
    return Wanted(
        class_ids=class_ids_of(names, classes),
        thresholds=Thresholds(common, dict(zip(numbers, camera.scores.values(), strict=True))),
        weak_score=None if config.tracking.kind == "none" else config.tracking.low_score,
        ignore=camera.ignore,
    )


def class_ids_of(names: Sequence[str], classes: Sequence[str]) -> tuple[int, ...] | None:
    """The numbers of the named classes; None where none are named.

    Raises:
        ConfigError: a name is not one of the model's.
    """
    unknown = [name for name in names if name not in classes]
    if unknown:
        shown = ", ".join(classes[:12]) + (", ..." if len(classes) > 12 else "")
        raise ConfigError(f"classes: the model knows no {', '.join(unknown)}; it knows {shown}")
    return tuple(classes.index(name) for name in names) or None


def inside(
    places: Float[np.ndarray, "N 2"], polygon: Sequence[tuple[float, float]]
) -> Bool[np.ndarray, " N"]:
    """Which places lie in a polygon: from there, a line to the right crosses its edge unevenly."""
    corners = np.asarray(polygon, np.float64)  # K, 2
    ends = np.roll(corners, -1, axis=0)
    x, y = places[:, :1], places[:, 1:]
    spans = (corners[:, 1] > y) != (ends[:, 1] > y)  # N, K
    rise = ends[:, 1] - corners[:, 1]
    share = (y - corners[:, 1]) / np.where(rise == 0, 1, rise)
    crossing = corners[:, 0] + share * (ends[:, 0] - corners[:, 0])
    return np.count_nonzero(spans & (x < crossing), axis=1) % 2 == 1


def _middles(found: Detections, picture_hw: tuple[int, int]) -> Float[np.ndarray, "N 2"]:
    """The middles of boxes as shares of width and height."""
    height, width = picture_hw
    return (found.xyxy[:, :2] + found.xyxy[:, 2:]) / 2 / (width, height)
