# SPDX-License-Identifier: Apache-2.0
"""START of training data: from a data.yaml to labelled images, and what is wrong with them.

A data set is read and checked once, and never written to. What is fatal raises one `DataError`;
everything else is in the report, and what is faulty is left out. An image whose labels cannot all
be read is left out whole: with half its objects it would teach that the others are background.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from jaxtyping import Bool

from model.errors import DataError
from training.coco_files import CocoFile, read_boxes, read_coco_file
from training.dataset_file import DatasetFile, read_dataset_file
from training.dataset_report import Kind, Problem, Report, count
from training.image_check import Checked, check_images
from training.records import Objects, Record, Split, no_objects
from training.yolo_labels import label_path, read_labels

IMAGE_SUFFIXES: Final = frozenset((".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """Labelled images by split."""

    path: Path
    """The data.yaml."""
    classes: tuple[str, ...]
    splits: dict[str, Split]
    report: Report

    def __getitem__(self, name: str) -> Split:
        """Return a split, or say which there are."""
        if name not in self.splits:
            raise _no_split(self.path, name, self.splits)
        return self.splits[name]


def read_dataset(path: Path) -> Dataset:
    """Read and check a data set.

    Args:
        path: Its data.yaml.

    Raises:
        DataError: the file is wrong, or a split has no image that can be used.
    """
    reading = _Reading(read_dataset_file(path))
    splits = {name: reading.read(name) for name in reading.file.sources}
    reading.compare_splits(splits)
    report = Report(
        path=reading.file.path,
        digest=reading.digest(splits),
        classes=reading.classes,
        counts={name: count(split) for name, split in splits.items()},
        problems=tuple(reading.problems),
    )
    return Dataset(path=reading.file.path, classes=reading.classes, splits=splits, report=report)


def read_split(file: DatasetFile, name: str) -> Split:
    """Read and check one split alone.

    Raises:
        DataError: there is no such split, or it has no image that can be used.
    """
    if name not in file.sources:
        raise _no_split(file.path, name, file.sources)
    return _Reading(replace(file, sources={name: file.sources[name]})).read(name)


def _no_split(path: Path, name: str, there: Iterable[str]) -> DataError:
    return DataError(f"{path}: no split {name!r}; there are {', '.join(there)}")


@dataclass(frozen=True, slots=True)
class _Item:
    """An image that a split names."""

    path: Path
    coco: CocoFile | None


class _Reading:
    """One data set while it is read."""

    def __init__(self, file: DatasetFile) -> None:
        self.file = file
        self.problems: list[Problem] = []
        entries = [entry for sources in file.sources.values() for entry in sources]
        self._coco = {entry: read_coco_file(entry) for entry in entries if entry.suffix == ".json"}
        self.classes = file.classes or self._categories()
        for coco in self._coco.values():
            for name in coco.categories:
                if name not in self.classes:
                    self._note("unknown category", coco.path, what=name)
        items = {name: list(self._items(name)) for name in file.sources}
        self._items_of = {name: self._once(found) for name, found in items.items()}
        everything = {item.path for found in self._items_of.values() for item in found}
        self._checked = check_images(sorted(everything), str(file.path))
        self._annotations = _Annotations(file, self.classes)

    def read(self, split: str) -> Split:
        """Return the images of a split that can be used."""
        items = self._items_of[split]
        records = [record for item in items if (record := self._record(item))]
        if not records:
            raise DataError(f"{self.file.path}: {split} has no image to use: {self._why(items)}")
        unlabelled = [item for item in items if self._lacks_labels(item)]
        if len(unlabelled) == len(items):
            raise DataError(
                f"{self.file.path}: {split} has no labels: expected "
                f"{label_path(items[0].path)} for {items[0].path}"
            )
        return Split(split, self.classes, records)

    def compare_splits(self, splits: dict[str, Split]) -> None:
        """Find images with the same bytes, in one split or in two."""
        first: dict[str, tuple[str, str]] = {}
        for name, split in splits.items():
            for path in split.paths:
                digest = self._checked[Path(path)].digest
                where, other = first.setdefault(digest, (name, path))
                if where != name:
                    what = f"also in {where}: {other}"
                    self._note("leak between splits", Path(path), what=what)
                elif other != path:
                    self._note("same image twice", Path(path), what=f"as {other}")
        for folder in self._annotations.unused():
            self._note("folder without images", self.file.path, what=f"annotated.{folder}")

    def digest(self, splits: dict[str, Split]) -> str:
        """Return one digest of all images and labels in use."""
        total = hashlib.blake2b(repr(self.classes).encode(), digest_size=16)
        for name, split in splits.items():
            total.update(name.encode())
            for index, path in enumerate(split.paths):
                objects = split.objects(index)
                total.update(self._checked[Path(path)].digest.encode())
                total.update(split.annotated(index).tobytes())
                total.update(objects.xyxy.tobytes() + objects.class_id.tobytes())
                total.update(objects.crowd.tobytes())
                total.update(b"".join(p.tobytes() for p in objects.polygons if p is not None))
        return total.hexdigest()

    def _record(self, item: _Item) -> Record | None:
        checked = self._checked[item.path]
        if checked.fault:
            self._note("broken image", item.path, what=checked.fault)
            return None
        objects = self._objects(item, checked)
        if objects is None:
            return None
        annotated, folder = self._annotations.of(item.path)
        unasked = ~annotated[objects.class_id]
        for class_id in np.unique(objects.class_id[unasked]):
            what = f"{self.classes[class_id]} in {folder}"
            self._note("class not annotated here", item.path, what=what)
        return Record(
            path=item.path,
            image_hw=checked.image_hw,
            objects=objects[~unasked],
            annotated=annotated,
            folder=folder,
        )

    def _objects(self, item: _Item, checked: Checked) -> Objects | None:
        if item.coco is not None:
            objects, problems = read_boxes(item.coco, item.path, checked.image_hw, self.classes)
        elif self._lacks_labels(item):
            self._note("missing label file", label_path(item.path))
            return no_objects()
        else:
            path = label_path(item.path)
            objects, problems = read_labels(path, checked.image_hw, len(self.classes))
        self.problems.extend(problems)
        return objects

    def _lacks_labels(self, item: _Item) -> bool:
        return item.coco is None and not label_path(item.path).is_file()

    def _items(self, split: str) -> Iterator[_Item]:
        for entry in self.file.sources[split]:
            if entry in self._coco:
                coco = self._coco[entry]
                yield from (_Item(path, coco) for path in sorted(coco.stated_hw))
            elif entry.is_dir():
                yield from (_Item(path, None) for path in self._in_folder(entry))
            else:
                yield from (_Item(path, None) for path in self._in_list(entry))

    def _in_folder(self, folder: Path) -> Iterator[Path]:
        for path in sorted(folder.rglob("*")):
            if not path.is_file() or path.name.startswith("."):
                continue
            if path.suffix.lower() in IMAGE_SUFFIXES:
                yield path
            elif path.suffix.lower() != ".txt" or label_path(path).parent != path.parent:
                self._note("not an image", path)

    def _in_list(self, file: Path) -> Iterator[Path]:
        """Paths of a text file, from its own folder or the root of the data set."""
        for line, text in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
            name = text.strip()
            if not name:
                continue
            places = [file.parent / name, self.file.root / name]
            path = next((place for place in places if place.is_file()), None)
            if path is None:
                self._note("missing image", file, line=line, what=name)
            elif path.suffix.lower() not in IMAGE_SUFFIXES:
                self._note("not an image", file, line=line, what=name)
            else:
                yield path.resolve()

    def _once(self, items: Sequence[_Item]) -> list[_Item]:
        seen: dict[Path, _Item] = {}
        for item in items:
            if item.path in seen:
                self._note("image listed twice", item.path)
            seen.setdefault(item.path, item)
        return list(seen.values())

    def _categories(self) -> tuple[str, ...]:
        for coco in self._coco.values():
            return coco.categories
        raise DataError(f"{self.file.path}: no names: expected a list of class names")

    def _why(self, items: Sequence[_Item]) -> str:
        if not items:
            return "none was found"
        if self.problems:
            last = self.problems[-1]
            return f"{last} ({last.kind}, one of {len(self.problems)} faults)"
        raise AssertionError("an image was left out without a reason")

    def _note(self, kind: Kind, path: Path, *, line: int | None = None, what: str = "") -> None:
        self.problems.append(Problem(kind=kind, path=path, line=line, what=what))


class _Annotations:
    """Which classes the images of a folder were annotated for."""

    def __init__(self, file: DatasetFile, classes: tuple[str, ...]) -> None:
        self._root = file.root
        self._used: set[str] = set()
        self._masks = {
            folder: np.array([name in names for name in classes], bool)
            for folder, names in file.annotated.items()
        }
        self._all = np.ones(len(classes), bool)

    def of(self, image: Path) -> tuple[Bool[np.ndarray, " C"], str]:
        """Return the classes an image was annotated for and the folder it counts to."""
        inside = image.parent.is_relative_to(self._root)
        parent = image.parent.relative_to(self._root) if inside else image.parent
        padded = f"/{parent.as_posix()}/"
        fitting = [folder for folder in self._masks if f"/{folder.strip('/')}/" in padded]
        if not fitting:
            return self._all, parent.as_posix()
        folder = max(fitting, key=len)
        self._used.add(folder)
        return self._masks[folder], folder

    def unused(self) -> list[str]:
        return [folder for folder in self._masks if folder not in self._used]
