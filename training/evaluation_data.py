# SPDX-License-Identifier: Apache-2.0
"""The images that something is measured on: a split of a data.yaml, or a COCO data set."""

from pathlib import Path

from model.errors import DataError
from training.dataset_file import DatasetFile, read_dataset_file
from training.datasets import read_split
from training.records import Split


def read_evaluation_split(path: Path, name: str = "val") -> Split:
    """Read one split.

    Args:
        path: A data.yaml, a COCO JSON file, or a folder that holds one of the two.
        name: Which split; what a COCO file holds is called so, whatever it is.

    Raises:
        DataError: there is no such thing.
    """
    if path.is_dir():
        path = _inside(path)
    if path.suffix.lower() == ".json":
        if not path.is_file():
            raise DataError(f"{path}: no such file; expected a data.yaml or a COCO .json")
        path = path.absolute()
        file = DatasetFile(
            path=path, root=path.parent, classes=None, sources={name: (path,)}, annotated={}
        )
        return read_split(file, name)
    return read_split(read_dataset_file(path), name)


def _inside(folder: Path) -> Path:
    if (folder / "data.yaml").is_file():
        return folder / "data.yaml"
    files = sorted(folder.glob("instances_*.json"))
    if len(files) != 1:
        raise DataError(
            f"{folder}: no data set: expected a data.yaml or one instances_*.json in it, found "
            f"{len(files)} of those"
        )
    return files[0]
