# SPDX-License-Identifier: Apache-2.0
"""COCO's average precision of an engine, through our letterbox and suppression.

Square letterbox, every score above 0.001, IoU 0.7, 300 boxes, every label of an anchor: what the
published figures are measured with. The evaluator is imported where it is used, because only
those who measure need it.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageOps

from model.config import Suppression
from model.detections import Detections
from model.engines.contract import Engine
from model.errors import DataError, MissingExtra
from model.letterbox import Letterbox, letterbox_image
from model.suppression import suppress

SETTINGS: Final = Suppression(min_score=0.001, max_iou=0.7, max_boxes=300, multi_label=True)
FIGURES: Final = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large")
AREAS: Final = ((0, 1e10), (0, 32**2), (32**2, 96**2), (96**2, 1e10))
"""Least and most pixels of an object that counts for all, small, medium and large."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledImages:
    """Pictures and the boxes that are in them."""

    name: str
    paths: dict[int, Path]
    """Where each image is, by its identity in `truth`."""
    truth: dict[str, Any]
    """The boxes in COCO's form, each category's identity being its place in the model's classes."""


def read_coco(folder: Path, classes: Sequence[str], *, limit: int | None = None) -> LabelledImages:
    """Read a folder that holds `images/` and one `instances_*.json`.

    Args:
        folder: The data set.
        classes: Names of the model's classes; boxes of others are left out.
        limit: Only so many images, the first ones.

    Raises:
        DataError: the folder holds something else, or none of the classes.
    """
    truth = _read_instances(folder)
    place = {name: number for number, name in enumerate(classes)}
    try:
        known = {c["id"]: place[c["name"]] for c in truth["categories"] if c["name"] in place}
        images = sorted(truth["images"], key=lambda image: image["id"])[:limit]
        kept = {image["id"] for image in images}
        boxes = [
            box | {"category_id": known[box["category_id"]]}
            for box in truth["annotations"]
            if box["category_id"] in known and box["image_id"] in kept
        ]
        names = {image["id"]: Path(image["file_name"]).name for image in images}
    except (KeyError, TypeError, AttributeError) as fault:
        raise DataError(f"{folder}: its boxes are not in COCO's form ({fault!r})") from None
    if not boxes:
        raise DataError(f"{folder}: no box of the model's classes ({', '.join(classes[:5])}, ...)")
    categories = [{"id": number, "name": classes[number]} for number in sorted(known.values())]
    return LabelledImages(
        name=folder.resolve().name,
        paths=_find_images(folder, names),
        truth={"images": images, "annotations": boxes, "categories": categories},
    )


def read_picture(path: Path) -> UInt8[np.ndarray, "H W 3"]:
    """Read an image file as RGB, turned as it says."""
    try:
        return np.asarray(ImageOps.exif_transpose(Image.open(path)).convert("RGB"))
    except (OSError, SyntaxError, Image.DecompressionBombError):
        raise DataError(f"{path}: not an image that can be read") from None


def measure(engine: Engine, data: LabelledImages) -> dict[str, float]:
    """Return COCO's figures of an engine whose canvas is of any size."""
    found = {name: detect(engine, read_picture(path)) for name, path in data.paths.items()}
    return average_precision(data.truth, found)


def detect(engine: Engine, image: UInt8[np.ndarray, "H W 3"]) -> Detections:
    """Find every box that could count, in pixels of the image."""
    _, height, width, _ = engine.input_shape
    letterbox = Letterbox.fit((image.shape[0], image.shape[1]), (height, width))
    return candidates(engine.infer(letterbox_image(image, letterbox)[None])[0], letterbox)


def candidates(
    predictions: Float[np.ndarray, "rows A"],
    letterbox: Letterbox,
    classes: Sequence[int] | None = None,
) -> Detections:
    """Return every box that could count, in pixels of the image.

    Args:
        predictions: What the network says about one image.
        letterbox: How the image lay before it.
        classes: Boxes of these classes only; the others take no place among the 300.
    """
    found = suppress(predictions, SETTINGS, classes=classes)
    return Detections(
        xyxy=letterbox.to_source(found.xyxy), score=found.score, class_id=found.class_id
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Curves:
    """Precision over recall of K classes, at T limits of overlap, R recalls and sizes.

    It is -1 where there is no object to find.
    """

    class_ids: tuple[int, ...]
    precision: Float[np.ndarray, "T R K sizes"]

    def figures(self, class_id: int | None = None) -> dict[str, float]:
        """Return COCO's figures of one class, or the mean of all; -1 without an object."""
        chosen = slice(None) if class_id is None else [self.class_ids.index(class_id)]
        of = self.precision[:, :, chosen]
        every, at_50, at_75 = of[..., 0], of[0, ..., 0], of[5, ..., 0]
        sizes = (of[..., 1], of[..., 2], of[..., 3])
        return {
            name: _mean(part)
            for name, part in zip(FIGURES, (every, at_50, at_75, *sizes), strict=True)
        }


def average_precision(truth: dict[str, Any], found: dict[int, Detections]) -> dict[str, float]:
    """Return COCO's figures of the boxes found in each image.

    Args:
        truth: The boxes that are there, in COCO's form.
        found: The boxes found, by the image's identity in `truth`.
    """
    if not any(map(len, found.values())):
        return dict.fromkeys(FIGURES, 0.0)
    return compare(truth, found).figures()


def compare(truth: dict[str, Any], found: dict[int, Detections]) -> Curves:
    """Return the curves of the boxes found; arguments as of `average_precision`."""
    coco = require_evaluator()
    class_ids = tuple(sorted(category["id"] for category in truth["categories"]))
    results = [box for name, boxes in found.items() for box in _as_coco(name, boxes)]
    whole = coco.COCO(truth)
    if not results:
        return Curves(class_ids=class_ids, precision=_nothing_found(truth, class_ids))
    evaluation = coco.COCOeval_faster(whole, whole.loadRes(results), "bbox")
    evaluation.params.imgIds = sorted(found)
    evaluation.evaluate()
    evaluation.accumulate()
    return Curves(class_ids=class_ids, precision=evaluation.eval["precision"][..., -1])


def require_evaluator() -> ModuleType:
    """Return the evaluator, or say how to install it."""
    try:
        import faster_coco_eval
    except ImportError:
        raise MissingExtra(
            "average precision needs faster-coco-eval (extra: evaluate); install it with: "
            "pip install 'sightline[evaluate]'"
        ) from None
    return faster_coco_eval


def _as_coco(image_id: int, found: Detections) -> Iterator[dict[str, Any]]:
    """Boxes as COCO results: left, top, width, height, to 3 decimals; scores to 5."""
    for xyxy, score, class_id in zip(found.xyxy, found.score, found.class_id, strict=True):
        left, top, right, bottom = map(float, xyxy)
        yield {
            "image_id": image_id,
            "category_id": int(class_id),
            "bbox": [round(side, 3) for side in (left, top, right - left, bottom - top)],
            "score": round(float(score), 5),
        }


def _mean(precision: np.ndarray) -> float:
    known = precision[precision > -1]
    return round(float(known.mean()), 4) if known.size else -1.0


def _nothing_found(
    truth: dict[str, Any], class_ids: Sequence[int]
) -> Float[np.ndarray, "T R K sizes"]:
    """Return no precision for classes and sizes that have an object."""
    precision = np.full((10, 101, len(class_ids), len(AREAS)), -1.0)
    for box in truth["annotations"]:
        if not box.get("iscrowd", 0):
            sizes = [low <= box["area"] <= high for low, high in AREAS]
            precision[:, :, class_ids.index(box["category_id"]), sizes] = 0.0
    return precision


def _read_instances(folder: Path) -> dict[str, Any]:
    files = sorted(folder.glob("instances_*.json")) if folder.is_dir() else []
    if len(files) != 1 or not (folder / "images").is_dir():
        raise DataError(
            f"{folder}: not a COCO data set: expected a folder with images/ and one "
            f"instances_*.json, found {len(files)} of those"
        )
    try:
        tree = json.loads(files[0].read_bytes())
    except (OSError, ValueError, RecursionError):
        raise DataError(f"{files[0]}: not JSON that can be read") from None
    if not isinstance(tree, dict):
        raise DataError(f"{files[0]}: its boxes are not in COCO's form")
    return tree


def _find_images(folder: Path, names: dict[int, str]) -> dict[int, Path]:
    files = {path.name: path for path in (folder / "images").rglob("*") if path.is_file()}
    missing = [name for name in names.values() if name not in files]
    if missing:
        raise DataError(f"{folder}/images: lacks {missing[0]} and {len(missing) - 1} more")
    return {number: files[name] for number, name in names.items()}
