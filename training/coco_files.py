# SPDX-License-Identifier: Apache-2.0
"""Objects from a COCO JSON file: boxes in pixels, polygons where there are any."""

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from model.boxes import clip
from model.errors import DataError
from training.dataset_report import Problem
from training.records import Objects, Polygon

Faults = list[Problem]


@dataclass(frozen=True, slots=True, kw_only=True)
class CocoFile:
    """What one file says, by image."""

    path: Path
    categories: tuple[str, ...]
    """Their names, by rising identity."""
    stated_hw: dict[Path, tuple[int, int] | None]
    """The images, and the size that each is said to have."""
    boxes: dict[Path, list[dict[str, Any]]]
    """The annotations of each image; each has the `name` of its category."""


def read_coco_file(path: Path) -> CocoFile:
    """Read a COCO file and find its images.

    Images are looked for beside the file, in `images/` beside it, and by bare name below that.

    Raises:
        DataError: it is not such a file.
    """
    tree = _read_json(path)
    try:
        names = {category["id"]: str(category["name"]) for category in tree["categories"]}
        finder = _Finder(path.parent)
        files = {image["id"]: finder.find(image["file_name"]) for image in tree["images"]}
        stated = {files[image["id"]]: _stated_hw(image) for image in tree["images"]}
        boxes: dict[Path, list[dict[str, Any]]] = defaultdict(list)
        for box in tree["annotations"]:
            boxes[files[box["image_id"]]].append(box | {"name": names[box["category_id"]]})
    except (KeyError, TypeError, AttributeError) as fault:
        raise DataError(f"{path}: not in COCO's form ({fault!r})") from None
    return CocoFile(
        path=path,
        categories=tuple(names[number] for number in sorted(names)),
        stated_hw=stated,
        boxes=dict(boxes),
    )


def read_boxes(
    coco: CocoFile, image: Path, image_hw: tuple[int, int], classes: Sequence[str]
) -> tuple[Objects | None, Faults]:
    """Return the objects of one image, or None where they cannot be known, and what is wrong."""
    stated = coco.stated_hw[image]
    if stated is not None and stated != image_hw:
        what = f"{image.name} is {image_hw[1]}x{image_hw[0]}, stated {stated[1]}x{stated[0]}"
        return None, [Problem(kind="other size stated", path=coco.path, what=what)]
    problems: Faults = []
    rows: dict[tuple[Any, ...], _Row] = {}
    for box in coco.boxes.get(image, []):
        if box["name"] not in classes:
            continue
        row = _read_row(coco.path, box, image_hw)
        if isinstance(row, Problem):
            problems.append(row)
        elif row.key in rows:
            problems.append(_problem("duplicate row", coco.path, box))
        else:
            rows[row.key] = row
    if any(problem.kind == "unreadable label" for problem in problems):
        return None, problems
    return _as_objects(rows.values(), classes), problems


@dataclass(frozen=True, slots=True)
class _Row:
    key: tuple[Any, ...]
    name: str
    xyxy: np.ndarray
    crowd: bool
    polygon: Polygon | None


def _problem(kind: Any, path: Path, box: dict[str, Any], what: str = "") -> Problem:
    where = f"annotation {box.get('id')}"
    return Problem(kind=kind, path=path, what=f"{where}: {what}" if what else where)


def _read_row(path: Path, box: dict[str, Any], image_hw: tuple[int, int]) -> _Row | Problem:
    try:
        left, top, width, height = map(float, box["bbox"])
        polygon = _polygon(box.get("segmentation"))
        crowd = bool(box.get("iscrowd", 0))
    except (KeyError, TypeError, ValueError):
        return _problem("unreadable label", path, box, f"bbox {str(box.get('bbox'))[:60]}")
    corners = np.array(((left, top, left + width, top + height),))
    if not np.isfinite(corners).all():
        return _problem("unreadable label", path, box, f"bbox {box['bbox']}")
    xyxy = clip(corners, image_hw)[0]
    if (xyxy[2:] <= xyxy[:2]).any():
        return _problem("empty box", path, box, f"bbox {box['bbox']}")
    return _Row((box["name"], left, top, width, height, crowd), box["name"], xyxy, crowd, polygon)


def _polygon(segmentation: Any) -> Polygon | None:
    """Join the parts of an outline by bridges without area; run lengths are not outlines."""
    if not isinstance(segmentation, list) or not segmentation:
        return None
    parts = [np.array(part, np.float32).reshape(-1, 2) for part in segmentation]
    if len(parts) == 1:
        return parts[0] if len(parts[0]) >= 3 else None
    rings = [np.concatenate((part, part[:1])) for part in parts]
    return np.concatenate((*rings, *(part[:1] for part in reversed(parts[:-1]))))


def _as_objects(rows: Iterable[_Row], classes: Sequence[str]) -> Objects:
    rows = list(rows)
    return Objects(
        xyxy=np.array([row.xyxy for row in rows], np.float32).reshape(-1, 4),
        class_id=np.array([classes.index(row.name) for row in rows], np.int64),
        crowd=np.array([row.crowd for row in rows], bool),
        polygons=tuple(row.polygon for row in rows),
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        tree = json.loads(path.read_bytes())
    except OSError as failure:
        raise DataError(f"{path}: cannot read this file: {failure.strerror}") from None
    except (ValueError, RecursionError) as fault:
        line = f":{fault.lineno}" if isinstance(fault, json.JSONDecodeError) else ""
        raise DataError(f"{path}{line}: not JSON that can be read") from None
    if not isinstance(tree, dict):
        raise DataError(f"{path}: not in COCO's form: expected a mapping at its top")
    return tree


def _stated_hw(image: dict[str, Any]) -> tuple[int, int] | None:
    if "height" in image and "width" in image:
        return int(image["height"]), int(image["width"])
    return None


class _Finder:
    """Where the images of a file are."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._by_name: dict[str, Path] | None = None

    def find(self, name: str) -> Path:
        for place in (self._folder / name, self._folder / "images" / name):
            if place.is_file():
                return place
        if self._by_name is None:
            below = (self._folder / "images").rglob("*")
            self._by_name = {path.name: path for path in below if path.is_file()}
        return self._by_name.get(Path(name).name, self._folder / name)
