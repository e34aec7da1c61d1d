# SPDX-License-Identifier: Apache-2.0
"""Labelled images as the truth of an evaluation. Only classes that an image was annotated for."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from model.boxes import area
from model.detections import Detections
from training.records import Objects, Polygon, Split


def coco_truth(split: Split, indices: Sequence[int], classes: Sequence[int]) -> dict[str, Any]:
    """Return the objects of some images in COCO's form.

    Args:
        split: The images.
        indices: Which of them; an image's identity is its place in the split.
        classes: Which classes count, by their numbers in the split.
    """
    boxes = [
        box for index in indices for box in _boxes(index, of_classes(split.objects(index), classes))
    ]
    return {
        "images": [{"id": index} for index in indices],
        "annotations": [box | {"id": number} for number, box in enumerate(boxes, start=1)],
        "categories": [{"id": number, "name": split.classes[number]} for number in classes],
    }


def of_classes(objects: Objects, classes: Sequence[int]) -> Objects:
    """Return the objects of some classes."""
    return objects[np.isin(objects.class_id, np.asarray(classes, np.int64))]


def countable(split: Split, index: int, found: Detections) -> Detections:
    """Return the boxes of classes that an image was annotated for."""
    return found[split.annotated(index)[found.class_id]]


def _boxes(index: int, objects: Objects) -> Iterator[dict[str, Any]]:
    box_areas = area(objects.xyxy)
    for place, (xyxy, class_id, crowd) in enumerate(
        zip(objects.xyxy, objects.class_id, objects.crowd, strict=True)
    ):
        left, top, right, bottom = map(float, xyxy)
        outline = objects.polygons[place]
        yield {
            "image_id": index,
            "category_id": int(class_id),
            "bbox": [left, top, right - left, bottom - top],
            "area": float(box_areas[place]) if outline is None else _area_within(outline),
            "iscrowd": int(crowd),
        }


def _area_within(outline: Polygon) -> float:
    """Return the pixels inside an outline: COCO sorts objects into sizes by them."""
    x, y = outline[:, 0].astype(np.float64), outline[:, 1].astype(np.float64)
    return float(abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2)
