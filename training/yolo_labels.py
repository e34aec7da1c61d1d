# SPDX-License-Identifier: Apache-2.0
"""Label files of the YOLO layout: a line an object, its numbers shares of the image's sides.

`class cx cy w h` is a box; `class x y x y x y ...` is a polygon, of three corners or more. Both may
stand in one file.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from model.boxes import clip, to_xyxy
from training.dataset_report import Kind, Problem
from training.records import Objects, Polygon

BOX_NUMBERS: Final = 5
SLACK: Final = 1e-3
"""What rounding may add to a share."""
EXCLUDING: Final[frozenset[Kind]] = frozenset(
    ("unreadable label", "class id outside the list", "box out of range")
)
"""Faults after which nobody knows what is in the image."""


def label_path(image: Path) -> Path:
    """Return where the labels of an image are: the last folder `images` is `labels` there."""
    parts = list(image.with_suffix(".txt").parts)
    for place in range(len(parts) - 2, -1, -1):
        if parts[place] == "images":
            parts[place] = "labels"
            break
    return Path(*parts)


def read_labels(
    path: Path, image_hw: tuple[int, int], num_classes: int
) -> tuple[Objects | None, list[Problem]]:
    """Read the objects of one image, or None where they cannot be known, and what is wrong."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        problem = Problem(
            kind="unreadable label", path=path, what="not UTF-8 text that can be read"
        )
        return None, [problem]
    rows: dict[tuple[float, ...], _Row] = {}
    problems = []
    for line, numbers in _numbered(text):
        row = _read_row(numbers, image_hw, num_classes)
        if isinstance(row, _Fault):
            problems.append(Problem(kind=row.kind, path=path, line=line, what=row.what))
        elif row.key in rows:
            problems.append(Problem(kind="duplicate row", path=path, line=line))
        else:
            rows[row.key] = row
    if any(problem.kind in EXCLUDING for problem in problems):
        return None, problems
    return _as_objects(list(rows.values())), problems


@dataclass(frozen=True, slots=True)
class _Fault:
    kind: Kind
    what: str


@dataclass(frozen=True, slots=True)
class _Row:
    key: tuple[float, ...]
    class_id: int
    xyxy: np.ndarray
    polygon: Polygon | None


def _numbered(text: str) -> Iterator[tuple[int, str]]:
    for line, content in enumerate(text.splitlines(), start=1):
        if content.strip():
            yield line, content


def _read_row(line: str, image_hw: tuple[int, int], num_classes: int) -> _Row | _Fault:
    try:
        numbers = tuple(map(float, line.split()))
    except ValueError:
        return _Fault("unreadable label", f"not numbers: {line.strip()[:60]!r}")
    if not np.isfinite(numbers).all():
        return _Fault("unreadable label", f"not finite: {line.strip()[:60]!r}")
    if len(numbers) != BOX_NUMBERS and (len(numbers) < 7 or len(numbers) % 2 == 0):
        return _Fault("unreadable label", f"expected 5 numbers or a polygon, got {len(numbers)}")
    class_id = int(numbers[0])
    if class_id != numbers[0] or not 0 <= class_id < num_classes:
        return _Fault("class id outside the list", f"{numbers[0]:g}, known 0 to {num_classes - 1}")
    shares = np.array(numbers[1:])
    if shares.min() < -SLACK or shares.max() > 1 + SLACK:
        worst = shares[np.argmax(np.abs(shares - 0.5))]
        return _Fault("box out of range", f"{worst:g}, expected shares from 0 to 1")
    return _shape(numbers, shares, image_hw)


def _shape(
    numbers: tuple[float, ...], shares: np.ndarray, image_hw: tuple[int, int]
) -> _Row | _Fault:
    """Turn shares into pixels."""
    width_height = np.array(image_hw[::-1], float)
    polygon = None
    if len(numbers) == BOX_NUMBERS:
        xyxy = to_xyxy(shares[None] * np.tile(width_height, 2))[0]
    else:
        polygon = np.clip(shares.reshape(-1, 2), 0, 1) * width_height
        xyxy = np.concatenate((polygon.min(axis=0), polygon.max(axis=0)))
    xyxy = clip(xyxy[None], image_hw)[0]
    if (xyxy[2:] <= xyxy[:2]).any():
        return _Fault("empty box", "a side of no length")
    return _Row(numbers, int(numbers[0]), xyxy, polygon)


def _as_objects(rows: list[_Row]) -> Objects:
    return Objects(
        xyxy=np.array([row.xyxy for row in rows], np.float32).reshape(-1, 4),
        class_id=np.array([row.class_id for row in rows], np.int64),
        crowd=np.zeros(len(rows), bool),
        polygons=tuple(
            None if row.polygon is None else row.polygon.astype(np.float32) for row in rows
        ),
    )
