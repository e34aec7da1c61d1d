# SPDX-License-Identifier: Apache-2.0
"""START of evaluation: how good the boxes of a detector are on labelled images.

Every score above 0.001, IoU 0.7, every label of an anchor, 300 boxes (`model.average_precision`).
An image counts for the classes it was annotated for, and only classes that both the detector and
the data know count at all. Between the epochs of a training:

    report = evaluate(TorchPredictor(ema, device), classes, split, Views(image_size=640))
    report.overall["AP"]

Processes that train together each `find` in a shard of the images, and one of them `score`s what
all have found. Axes: B batch, H and W of the canvas, A anchor points.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor

from model.average_precision import Curves, candidates, compare
from model.detections import Detections
from training.class_map import ClassMap
from training.evaluation_report import (
    ClassFigures,
    EvaluationReport,
    FolderFigures,
    PrecisionRecall,
)
from training.ground_truth import coco_truth, countable, of_classes
from training.loading import EvaluationLoader, Loading
from training.matching import Pair, best_threshold, calibration, confusion
from training.protocols import EvaluationPlan, Protocol
from training.records import Split
from training.sampling import Shard

CONFUSION_SCORE: Final = 0.25
"""Boxes of the confusion matrix score above this, as those of `sightline run` do."""

Predict = Callable[[UInt8[Tensor, "B 3 H W"]], Float[np.ndarray, "B rows A"]]
"""What a detector says about images on their canvas."""
Found = Mapping[int, Detections]
"""The boxes of each image by its place in the split, under the data's class numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Views:
    """How images are looked at to be evaluated."""

    protocol: Protocol = "rectangular"
    image_size: int = 640
    batch_size: int = 32
    loading: Loading = field(default_factory=Loading)


def evaluate(
    predict: Predict, model_classes: Sequence[str], split: Split, views: Views
) -> EvaluationReport:
    """Measure a detector on every image of a split.

    Args:
        predict: Looks at a batch.
        model_classes: What the detector calls its classes.
        split: The images.
        views: How they lie before it.

    Raises:
        DataError: the detector knows no class of the data, or an image cannot be read.
    """
    known = ClassMap.by_name(model_classes, split.classes)
    return score(split, find(predict, known, split, views), known, views)


def find(
    predict: Predict, known: ClassMap, split: Split, views: Views, shard: Shard | None = None
) -> dict[int, Detections]:
    """Return the boxes that could count in the images of a split, or in a shard of them."""
    plan = EvaluationPlan(
        split,
        views.protocol,
        image_size=views.image_size,
        batch_size=views.batch_size,
        shard=shard,
    )
    found: dict[int, Detections] = {}
    for batch in EvaluationLoader(split, plan, views.loading):
        rows = predict(batch.images)
        for index, letterbox, of_image in zip(batch.indices, batch.letterboxes, rows, strict=True):
            boxes = candidates(of_image, letterbox, known.of_model)
            found[index] = countable(split, index, known.to_data(boxes))
    return found


def score(split: Split, found: Found, known: ClassMap, views: Views) -> EvaluationReport:
    """Compare what was found with what is there."""
    indices = sorted(found)
    counted = sorted(known.of_data)
    curves = compare(coco_truth(split, indices, counted), dict(found))
    pairs = [(found[index], of_classes(split.objects(index), counted)) for index in indices]
    names = [split.classes[number] for number in counted]
    return EvaluationReport(
        split=split.name,
        num_images=len(indices),
        protocol=views.protocol,
        image_size=views.image_size,
        overall=curves.figures(),
        classes=tuple(_of_class(split, number, curves, indices, pairs) for number in counted),
        folders=_of_folders(split, found, counted),
        unknown=tuple(c for number, c in enumerate(split.classes) if number not in counted),
        confusion=confusion(pairs, counted, names, CONFUSION_SCORE),
        calibration=calibration(pairs, counted),
    )


def _of_class(
    split: Split, class_id: int, curves: Curves, indices: Sequence[int], pairs: Sequence[Pair]
) -> ClassFigures:
    place = curves.class_ids.index(class_id)
    return ClassFigures(
        name=split.classes[class_id],
        num_images=sum(bool(split.annotated(index)[class_id]) for index in indices),
        num_objects=sum(int(((t.class_id == class_id) & ~t.crowd).sum()) for _, t in pairs),
        figures=curves.figures(class_id),
        threshold=best_threshold(pairs, class_id),
        curve=PrecisionRecall(precision=curves.precision[0, :, place, 0]),
    )


def _of_folders(split: Split, found: Found, counted: Sequence[int]) -> tuple[FolderFigures, ...]:
    """Figures of the images of each source folder, of the classes that have objects there."""
    folders: dict[str, list[int]] = {}
    for index in sorted(found):
        folders.setdefault(split[index].folder, []).append(index)
    return tuple(
        FolderFigures(
            name=folder,
            num_images=len(inside),
            num_objects=sum(len(of_classes(split.objects(index), counted)) for index in inside),
            figures=compare(
                coco_truth(split, inside, counted), {index: found[index] for index in inside}
            ).figures(),
        )
        for folder, inside in folders.items()
    )
