# SPDX-License-Identifier: Apache-2.0
"""What int8 finds beside the float detector: accuracy where boxes are labelled, else agreement."""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import numpy as np
from jaxtyping import UInt8

from model.average_precision import SETTINGS, LabelledImages, average_precision, measure
from model.config import ModelConfig, Precision, Suppression
from model.detections import Detections
from model.engines import Engine, build_engine
from model.errors import DataError
from model.quantisation import Check
from model.suppression import suppress

SURE: Final = Suppression()
"""Boxes of the float detector that count as the truth where nothing is labelled."""

FAINT: Final = SETTINGS.model_copy(update={"multi_label": False})
"""Boxes that are compared with it: every score, and one for each anchor as there."""

Canvases = Sequence[UInt8[np.ndarray, "H W 3"]]


def check_accuracy(
    weights: Path, artefact: Path, labelled: LabelledImages, image_size: int
) -> Check:
    """Measure average precision against labelled boxes, on square canvases as is the custom."""

    def ap(model: Path, precision: Precision = "auto") -> float:
        with closing(_engine(model, (image_size, image_size), precision)) as engine:
            return measure(engine, labelled)["AP"]

    return Check(
        kind="accuracy",
        data=labelled.name,
        images=len(labelled.paths),
        image_size=image_size,
        float_ap=ap(weights, "accuracy"),
        auto_ap=ap(weights),
        int8_ap=ap(artefact),
    )


def check_agreement(weights: Path, artefact: Path, canvases: Canvases) -> Check:
    """Measure how far int8 finds what the exact float detector is sure of.

    Args:
        weights: The float detector.
        artefact: The int8 one.
        canvases: What to look at, all of one shape.
    """
    truth = _in_coco_form(_find(weights, canvases, SURE, "accuracy"))
    if not truth["annotations"]:
        raise DataError(
            f"export: the float detector finds nothing in {len(canvases)} frames held out to check "
            "on; calibrate on frames that show something, or name labelled images with --data"
        )

    def agreement(model: Path) -> float:
        return average_precision(truth, dict(enumerate(_find(model, canvases, FAINT))))["AP"]

    return Check(
        kind="agreement",
        data="held-out frames",
        images=len(canvases),
        image_size=max(canvases[0].shape),
        float_ap=1.0,
        auto_ap=agreement(weights),
        int8_ap=agreement(artefact),
    )


def _find(
    model: Path, canvases: Canvases, settings: Suppression, precision: Precision = "auto"
) -> list[Detections]:
    height, width, _ = canvases[0].shape
    with closing(_engine(model, (height, width), precision)) as engine:
        return [suppress(engine.infer(canvas[None])[0], settings) for canvas in canvases]


def _engine(model: Path, canvas_hw: tuple[int, int], precision: Precision) -> Engine:
    config = ModelConfig(weights=model, engine="openvino", precision=precision)
    return build_engine(config, image_hw=canvas_hw, num_requests=1)


def _in_coco_form(found: Sequence[Detections]) -> dict[str, Any]:
    """Boxes as the truth of an evaluation."""
    boxes: list[dict[str, Any]] = []
    for image_id, detections in enumerate(found):
        for xyxy, class_id in zip(detections.xyxy, detections.class_id, strict=True):
            left, top, right, bottom = map(float, xyxy)
            boxes.append(
                {
                    "id": len(boxes) + 1,
                    "image_id": image_id,
                    "category_id": int(class_id),
                    "bbox": [left, top, right - left, bottom - top],
                    "area": (right - left) * (bottom - top),
                    "iscrowd": 0,
                }
            )
    classes = sorted({box["category_id"] for box in boxes})
    return {
        "images": [{"id": image_id} for image_id in range(len(found))],
        "annotations": boxes,
        "categories": [{"id": class_id} for class_id in classes],
    }
