# SPDX-License-Identifier: Apache-2.0
"""Published weights of every code base under one naming, the official one.

Both sides of the house read them through `read_published`: import takes the main branch, training
the whole of a training form.
"""

from dataclasses import dataclass
from pathlib import Path

import torch

from model.contents import read_contents
from model.errors import WeightsError
from model.layouts import Branches, Layout, Tensors, official, split


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Published:
    """A published file: its tensors under official names, and what it says about itself."""

    path: Path
    layout: Layout
    tensors: Tensors
    """Under official names of the file's own form, `model.{layer}.{path}`, in float32."""
    classes: dict[int, str] | None
    """Names of classes by position, where the file has them."""
    num_classes: int | None
    """As the file's description of its network has it."""
    licence: str

    def branches(self) -> Branches:
        """Return what is deployed, under the converted form's names, apart from the rest."""
        return split(self.path, self.tensors)

    def class_names(self, count: int) -> tuple[str, ...]:
        """Return the name of each class; numbered ones if the file has none.

        Raises:
            WeightsError: the file describes another number of classes than its tensors have.
        """
        if self.num_classes not in (None, count):
            raise WeightsError(
                f"{self.path}: made for {self.num_classes} classes by its own description, its "
                f"head scores {count}"
            )
        if self.classes is None:
            return tuple(f"class_{place}" for place in range(count))
        if sorted(self.classes) != list(range(count)) or not all(self.classes.values()):
            raise WeightsError(f"{self.path}: it does not name each of its {count} classes")
        return tuple(self.classes[place] for place in range(count))


def read_published(path: Path) -> Published:
    """Read a published file of any layout and container. Nothing in it is run.

    Raises:
        WeightsError: it is damaged, or of no known layout.
    """
    contents = read_contents(path)
    layout, tensors = official(path, contents.tensors)
    return Published(
        path=path,
        layout=layout,
        tensors=_with_counts(path, tensors),
        classes=contents.classes,
        num_classes=contents.num_classes,
        licence=contents.licence,
    )


def _with_counts(path: Path, tensors: Tensors) -> Tensors:
    """Complete the counters beside running means: some files lack them, or convert them."""
    counts: Tensors = {}
    for name in tensors:
        if name.endswith(".running_mean"):
            counter = f"{name.removesuffix('running_mean')}num_batches_tracked"
            found = tensors.get(counter, torch.zeros(()))
            if found.numel() != 1:
                raise WeightsError(f"{path}: {counter} holds {found.numel()} numbers, expected 1")
            counts[counter] = found.reshape(()).to(torch.int64)
    return tensors | counts
