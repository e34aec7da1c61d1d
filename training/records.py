# SPDX-License-Identifier: Apache-2.0
"""Labelled images: one record for each, and a split that keeps many of them in few arrays.

A split is columns, not objects: worker processes read it without touching a reference count, so
the memory they share with their parent stays shared. Axes: N objects of an image, P corners of a
polygon, C classes.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np
from jaxtyping import Bool, Float, Int

T = TypeVar("T", bound=Hashable)
Polygon = Float[np.ndarray, "P 2"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Objects:
    """N objects of one image, in pixels of the image as it is looked at."""

    xyxy: Float[np.ndarray, "N 4"]
    class_id: Int[np.ndarray, " N"]
    crowd: Bool[np.ndarray, " N"]
    """Whether a box stands for a group: it is not learned, and finding it is no mistake."""
    polygons: tuple[Polygon | None, ...]
    """The outline of each object, where it is known."""

    def __post_init__(self) -> None:
        count = len(self.xyxy)
        for name, shape in {"xyxy": (count, 4), "class_id": (count,), "crowd": (count,)}.items():
            actual = tuple(getattr(self, name).shape)
            if actual != shape:
                raise ValueError(f"{name} must have shape {shape}, got {actual}")
        if len(self.polygons) != count:
            raise ValueError(f"expected {count} polygons, got {len(self.polygons)}")

    def __len__(self) -> int:
        return len(self.xyxy)

    def __getitem__(self, chosen: np.ndarray) -> "Objects":
        positions = np.arange(len(self))[chosen]
        return Objects(
            xyxy=self.xyxy[positions],
            class_id=self.class_id[positions],
            crowd=self.crowd[positions],
            polygons=tuple(self.polygons[position] for position in positions),
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Record:
    """One image and what is known about it."""

    path: Path
    image_hw: tuple[int, int]
    """After the turn that the file asks for."""
    objects: Objects
    annotated: Bool[np.ndarray, " C"]
    """Classes that somebody looked for; the others are unknown here, not absent."""
    folder: str
    """The source folder, from the root of the data set."""


class Split:
    """The records of one part of a data set, in a fixed order."""

    def __init__(self, name: str, classes: Sequence[str], records: Sequence[Record]) -> None:
        self.name = name
        self.classes = tuple(classes)
        self.paths = tuple(str(record.path) for record in records)
        self.image_hw = np.array([r.image_hw for r in records], np.int32).reshape(-1, 2)
        self._folders, self._folder = _distinct([record.folder for record in records])
        sets, self._set = _distinct([tuple(map(bool, r.annotated)) for r in records])
        self._sets = np.array(sets, bool).reshape(-1, len(self.classes))
        objects = [record.objects for record in records]
        self._first = _offsets([len(found) for found in objects])
        self._xyxy = _joined([found.xyxy for found in objects], (0, 4), np.float32)
        self._class_id = _joined([found.class_id for found in objects], (0,), np.int64)
        self._crowd = _joined([found.crowd for found in objects], (0,), np.bool_)
        outlines = [outline for found in objects for outline in found.polygons]
        self._corner = _offsets([0 if outline is None else len(outline) for outline in outlines])
        known = [outline for outline in outlines if outline is not None]
        self._corners = _joined(known, (0, 2), np.float32)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Record:
        if not 0 <= index < len(self):
            raise IndexError(f"{index}: expected 0 to {len(self) - 1}")
        height, width = map(int, self.image_hw[index])
        return Record(
            path=Path(self.paths[index]),
            image_hw=(height, width),
            objects=self.objects(index),
            annotated=self.annotated(index),
            folder=self._folders[self._folder[index]],
        )

    def objects(self, index: int) -> Objects:
        """Return what is in one image."""
        first, end = map(int, self._first[index : index + 2])
        return Objects(
            xyxy=self._xyxy[first:end],
            class_id=self._class_id[first:end],
            crowd=self._crowd[first:end],
            polygons=tuple(self._polygon(place) for place in range(first, end)),
        )

    def annotated(self, index: int) -> Bool[np.ndarray, " C"]:
        """Return the classes that one image was annotated for."""
        return self._sets[self._set[index]]

    def alike(self, index: int) -> Int[np.ndarray, " K"]:
        """Return every image annotated for the same classes as this one, itself among them."""
        return self._groups[int(self._set[index])]

    def count_objects(self) -> Int[np.ndarray, " C"]:
        """Return how many objects of each class there are."""
        return np.bincount(self._class_id, minlength=len(self.classes))

    def presence(self) -> Bool[np.ndarray, "I C"]:
        """Return which classes each image has an object of."""
        present = np.zeros((len(self), len(self.classes)), bool)
        owner = np.repeat(np.arange(len(self)), np.diff(self._first))
        present[owner, self._class_id] = True
        return present

    def has_polygons(self) -> bool:
        """Say whether the outline of any object is known."""
        return len(self._corners) > 0

    @cached_property
    def _groups(self) -> list[Int[np.ndarray, " K"]]:
        return [np.flatnonzero(self._set == number) for number in range(len(self._sets))]

    def _polygon(self, place: int) -> Polygon | None:
        first, end = map(int, self._corner[place : place + 2])
        return self._corners[first:end] if end > first else None


def no_objects() -> Objects:
    """Return what is in an image without objects."""
    return Objects(
        xyxy=np.zeros((0, 4), np.float32),
        class_id=np.zeros(0, np.int64),
        crowd=np.zeros(0, bool),
        polygons=(),
    )


def _distinct(values: Sequence[T]) -> tuple[list[T], np.ndarray]:
    """Return each value once, and for every one its place among them."""
    places: dict[T, int] = {}
    numbers = [places.setdefault(value, len(places)) for value in values]
    return list(places), np.array(numbers, np.int32)


def _offsets(counts: Sequence[int]) -> np.ndarray:
    return np.concatenate(([0], np.cumsum(counts, dtype=np.int64)))


def _joined(parts: Sequence[np.ndarray], empty: tuple[int, ...], kind: type) -> np.ndarray:
    return np.concatenate([np.zeros(empty, kind), *parts]).astype(kind)
