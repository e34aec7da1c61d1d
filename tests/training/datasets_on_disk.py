# SPDX-License-Identifier: Apache-2.0
"""Small data sets for tests: pictures with rectangles of one colour, and what is said of them."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from model.boxes import to_cxcywh
from training.records import Objects, Record, Split

BACKGROUND = (30, 40, 50)
COLOURS = ((255, 0, 0), (0, 255, 0), (0, 0, 255))
Box = tuple[int, int, int, int, int]
"""Class, left, top, right, bottom."""


def picture(height: int, width: int, boxes: Sequence[Box] = ()) -> np.ndarray:
    """A picture with a rectangle of its class's colour for each box."""
    pixels = np.full((height, width, 3), BACKGROUND, np.uint8)
    for class_id, left, top, right, bottom in boxes:
        pixels[top:bottom, left:right] = COLOURS[class_id]
    return pixels


def write_image(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def write_labels(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def rows(boxes: Sequence[Box], height: int, width: int) -> str:
    """Boxes as lines of a label file."""
    shares = to_cxcywh(np.array([box[1:] for box in boxes], float).reshape(-1, 4))
    shares /= (width, height, width, height)
    return "\n".join(
        " ".join(map(str, (box[0], *row))) for box, row in zip(boxes, shares, strict=True)
    )


def outline(box: Box, height: int, width: int) -> str:
    """A box as the line of a polygon."""
    class_id, left, top, right, bottom = box
    corners = ((left, top), (right, top), (right, bottom), (left, bottom))
    return " ".join([str(class_id), *(f"{x / width} {y / height}" for x, y in corners)])


def add(root: Path, name: str, boxes: Sequence[Box] = (), size: tuple[int, int] = (48, 64)) -> Path:
    """An image and its labels, `name` being its path below images/."""
    path = write_image(root / "images" / f"{name}.png", picture(*size, boxes))
    write_labels(root / "labels" / f"{name}.txt", rows(boxes, *size))
    return path


def write_yaml(root: Path, **values: object) -> Path:
    """A data.yaml with three classes and the split train, unless something else is said."""
    tree = {"train": "images/train", "names": ["red", "green", "blue"]} | values
    path = root / "data.yaml"
    path.write_text(yaml.safe_dump({k: v for k, v in tree.items() if v is not None}))
    return path


def write_coco(path: Path, images: dict[str, tuple[int, int, Sequence[Box]]]) -> Path:
    """A COCO file, its category ids far from the classes' places."""
    boxes = [
        {"image_id": number, "category_id": 10 * c + 7, "bbox": [x0, y0, x1 - x0, y1 - y0]}
        for number, (_, _, found) in enumerate(images.values())
        for c, x0, y0, x1, y1 in found
    ]
    tree = {
        "categories": [
            {"id": 10 * n + 7, "name": c} for n, c in enumerate(("red", "green", "blue"))
        ],
        "images": [
            {"id": number, "file_name": name, "height": height, "width": width}
            for number, (name, (height, width, _)) in enumerate(images.items())
        ],
        "annotations": [box | {"id": number} for number, box in enumerate(boxes)],
    }
    path.write_text(json.dumps(tree))
    return path


def fingerprint(root: Path) -> dict[str, tuple[str, int]]:
    """Every file below a folder: what it holds and when it was changed."""
    return {
        str(path.relative_to(root)): (
            hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder",
            path.stat().st_mtime_ns,
        )
        for path in sorted(root.rglob("*"))
    }


def split_of(
    folder: Path,
    images: Sequence[Sequence[Box]],
    *,
    size: tuple[int, int] = (120, 160),
    outlined: bool = False,
    annotated: Sequence[Sequence[bool]] | None = None,
) -> Split:
    """A split of pictures with rectangles, without a data.yaml."""
    records = []
    for number, boxes in enumerate(images):
        path = write_image(folder / f"{number}.png", picture(*size, boxes))
        known = (True, True, True) if annotated is None else annotated[number]
        records.append(
            Record(
                path=path,
                image_hw=size,
                objects=objects_of(boxes, outlined=outlined),
                annotated=np.array(known, bool),
                folder="",
            )
        )
    return Split("train", ("red", "green", "blue"), records)


def objects_of(boxes: Sequence[Box], *, outlined: bool = False) -> Objects:
    xyxy = np.array([box[1:] for box in boxes], np.float32).reshape(-1, 4)
    return Objects(
        xyxy=xyxy,
        class_id=np.array([box[0] for box in boxes], np.int64),
        crowd=np.zeros(len(boxes), bool),
        polygons=tuple(_corners(row) if outlined else None for row in xyxy),
    )


def _corners(xyxy: np.ndarray) -> np.ndarray:
    left, top, right, bottom = xyxy
    return np.array(((left, top), (right, top), (right, bottom), (left, bottom)), np.float32)
