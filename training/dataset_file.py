# SPDX-License-Identifier: Apache-2.0
"""data.yaml: where the images of a data set are, and what its classes are called.

Every fault is named with the file and the line it stands on.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

import yaml

from model.errors import DataError

SPLITS: Final = ("train", "val", "test")
KEYS: Final = (*SPLITS, "path", "names", "nc", "annotated")
FOREIGN: Final = ("download", "roboflow")
"""Keys of other tools that say nothing about the images; they are passed over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetFile:
    """What a data.yaml says, its paths absolute."""

    path: Path
    root: Path
    classes: tuple[str, ...] | None
    """Without them they are the categories of its COCO files."""
    sources: dict[str, tuple[Path, ...]]
    """Folders, lists of paths (.txt) and COCO files (.json) of each split."""
    annotated: dict[str, frozenset[str]]
    """Classes that each folder was annotated for; a folder not named here was for all."""


def read_dataset_file(path: Path) -> DatasetFile:
    """Read a data.yaml.

    Raises:
        DataError: it cannot be read, or says something that is not understood.
    """
    path = path.absolute()
    tree = _Tree(path)
    tree.refuse_unknown()
    root = (path.parent / tree.text("path", ".")).resolve()
    classes = _classes(tree)
    sources = {
        split: tuple(_source(tree, split, root, entry) for entry in tree.texts(split))
        for split in SPLITS
        if tree.values.get(split) is not None
    }
    if not sources:
        raise tree.fault(None, f"no images: expected at least one of {', '.join(SPLITS)}")
    return DatasetFile(
        path=path,
        root=root,
        classes=classes,
        sources=sources,
        annotated=_annotated(tree, classes),
    )


class _Tree:
    """The values of a YAML mapping, and the line of each key."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            content = path.read_text(encoding="utf-8")
            node = yaml.compose(content, Loader=yaml.SafeLoader)
            values = yaml.safe_load(content)
        except (OSError, UnicodeDecodeError) as failure:
            reason = failure.strerror if isinstance(failure, OSError) else "it is not UTF-8 text"
            raise DataError(f"{path}: cannot read this data set: {reason}") from None
        except (yaml.YAMLError, ValueError) as fault:
            raise DataError(f"{path}: not valid YAML: {' '.join(str(fault).split())}") from None
        if not isinstance(values, dict) or node is None:
            found = "nothing" if values is None else type(values).__name__
            raise DataError(f"{path}: expected a mapping with path, names and val, got {found}")
        self.values: dict[Any, Any] = values
        self._lines = dict(_lines(node))

    def fault(self, key: Any, what: str) -> DataError:
        """Return an error that names the line of a key, or of a key below it."""
        keys = key if isinstance(key, tuple) else (key,)
        line = self._lines.get(keys)
        return DataError(f"{self.path}{f':{line}' if line else ''}: {what}")

    def refuse_unknown(self) -> None:
        for key in self.values:
            if key in KEYS or key in FOREIGN:
                continue
            near = get_close_matches(str(key), KEYS, n=1)
            hint = f"; did you mean {near[0]}?" if near else f"; known are {', '.join(KEYS)}"
            raise self.fault(key, f"unknown key {key!r}{hint}")

    def text(self, key: str, default: str) -> str:
        value = self.values.get(key, default)
        if not isinstance(value, str):
            raise self.fault(key, f"{key}: expected a text, got {value!r}")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        value = self.values[key]
        entries = value if isinstance(value, list) else [value]
        if not entries or not all(isinstance(entry, str) for entry in entries):
            raise self.fault(key, f"{key}: expected a path or a list of paths, got {value!r}")
        return tuple(entries)


def _lines(node: yaml.Node, above: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], int]]:
    """Each key with those above it, and its line from 1."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            name = yaml.safe_load(key.value) if key.tag.endswith(":int") else key.value
            yield (*above, name), key.start_mark.line + 1
            yield from _lines(value, (*above, name))


def _classes(tree: _Tree) -> tuple[str, ...] | None:
    names = tree.values.get("names")
    if names is None:
        return None
    if isinstance(names, dict):
        if sorted(map(str, names)) != sorted(map(str, range(len(names)))):
            raise tree.fault(
                "names", f"names: expected the class ids 0 to {len(names) - 1}, got {list(names)}"
            )
        names = [names[key] for key in sorted(names, key=int)]
    if not isinstance(names, list) or not names:
        raise tree.fault("names", f"names: expected a list of class names, got {names!r}")
    classes = tuple(map(str, names))
    repeated = sorted({name for name in classes if classes.count(name) > 1})
    if repeated:
        raise tree.fault("names", f"names: {', '.join(repeated)} more than once")
    count = tree.values.get("nc", len(classes))
    if count != len(classes):
        raise tree.fault("nc", f"nc: {count}, but names has {len(classes)} classes")
    return classes


def _source(tree: _Tree, split: str, root: Path, entry: str) -> Path:
    path = root / Path(entry).expanduser()
    if path.is_dir() or (path.is_file() and path.suffix.lower() in (".txt", ".json")):
        return path
    if path.is_file():
        expected = "a folder of images, a .txt of paths or a COCO .json"
        raise tree.fault(split, f"{split}: {path} is a file; expected {expected}")
    raise tree.fault(split, f"{split}: {path} does not exist (paths start at {root})")


def _annotated(tree: _Tree, classes: tuple[str, ...] | None) -> dict[str, frozenset[str]]:
    folders = tree.values.get("annotated") or {}
    if not isinstance(folders, dict):
        raise tree.fault("annotated", f"annotated: expected folder: [classes], got {folders!r}")
    for folder, names in folders.items():
        key = ("annotated", folder)
        if not isinstance(names, list):
            raise tree.fault(key, f"annotated.{folder}: expected a list of classes, got {names!r}")
        unknown = [str(name) for name in names if classes and str(name) not in classes]
        if unknown:
            raise tree.fault(key, f"annotated.{folder}: {', '.join(unknown)} not among names")
    return {str(folder): frozenset(map(str, names)) for folder, names in folders.items()}
