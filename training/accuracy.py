# SPDX-License-Identifier: Apache-2.0
"""What a training asks of evaluation: how good a detector is, as two numbers."""

from collections.abc import Callable
from typing import Any

import torch

from model.average_precision import SETTINGS, average_precision
from model.detections import Detections
from model.network import Detector
from model.suppression import suppress
from training.loading import EvaluationLoader, Loading
from training.protocols import EvaluationPlan
from training.records import Split

Evaluate = Callable[[Detector], dict[str, float]]
"""From a detector, fused and on the device it was trained on, to its `ap` and `ap50`."""


def evaluate_squares(
    detector: Detector, split: Split, loading: Loading, image_size: int, batch_size: int
) -> dict[str, float]:
    """Return the accuracy of a detector on the images of a split, each in a square."""
    device = next(detector.parameters()).device
    plan = EvaluationPlan(split, "square", image_size=image_size, batch_size=batch_size)
    found: dict[int, Detections] = {}
    for batch in EvaluationLoader(split, plan, loading):
        with torch.inference_mode():
            predictions = detector(batch.images.to(device).float() / 255).cpu().numpy()
        for index, letterbox, prediction in zip(
            batch.indices, batch.letterboxes, predictions, strict=True
        ):
            boxes = suppress(prediction, SETTINGS, multi_label=True)
            found[index] = Detections(
                xyxy=letterbox.to_source(boxes.xyxy), score=boxes.score, class_id=boxes.class_id
            )
    figures = average_precision(_truth(split), found)
    return {"ap": max(figures["AP"], 0.0), "ap50": max(figures["AP50"], 0.0)}


def _truth(split: Split) -> dict[str, Any]:
    boxes: list[dict[str, Any]] = []
    images: list[dict[str, Any]] = []
    for index in range(len(split)):
        height, width = map(int, split.image_hw[index])
        images.append({"id": index, "height": height, "width": width})
        objects = split.objects(index)
        for xyxy, class_id, crowd in zip(
            objects.xyxy, objects.class_id, objects.crowd, strict=True
        ):
            left, top, right, bottom = map(float, xyxy)
            size = [left, top, right - left, bottom - top]
            boxes.append(
                {
                    "id": len(boxes) + 1,
                    "image_id": index,
                    "category_id": int(class_id),
                    "bbox": size,
                    "area": size[2] * size[3],
                    "iscrowd": int(crowd),
                }
            )
    categories = [{"id": place, "name": name} for place, name in enumerate(split.classes)]
    return {"images": images, "annotations": boxes, "categories": categories}
