# SPDX-License-Identifier: Apache-2.0
"""What an evaluation found, as data, as JSON and as a table."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.markup import escape
from rich.table import Table

from model.average_precision import FIGURES
from model.released import Reliability
from training.matching import ConfusionMatrix, Threshold
from training.protocols import Protocol

Figures = dict[str, float]
"""AP, AP50, AP75 and AP by size, from 0 to 1; -1 where there is no object to find."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PrecisionRecall:
    """Precision at an overlap of one half, at recalls of 0, .01 to 1."""

    precision: Float[np.ndarray, " R"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassFigures:
    """How well one class is found."""

    name: str
    num_images: int
    """Images that were annotated for it."""
    num_objects: int
    figures: Figures
    threshold: Threshold | None
    """The score to keep its boxes from; None where none is there, or none was found."""
    curve: PrecisionRecall


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderFigures:
    """How well the images of one source folder are understood."""

    name: str
    num_images: int
    num_objects: int
    figures: Figures


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationReport:
    """The outcome of one evaluation."""

    split: str
    num_images: int
    protocol: Protocol
    image_size: int
    overall: Figures
    """The mean of all classes that have an object."""
    classes: tuple[ClassFigures, ...]
    folders: tuple[FolderFigures, ...]
    unknown: tuple[str, ...]
    """Classes of the data that the model does not know; they do not count."""
    confusion: ConfusionMatrix
    calibration: tuple[Reliability, ...]
    """What scores are worth, of all classes together."""

    def as_dict(self) -> dict[str, Any]:
        """Return everything but the curves, in types that JSON knows."""
        return {
            "split": self.split,
            "images": self.num_images,
            "protocol": self.protocol,
            "image_size": self.image_size,
            **self.overall,
            "classes": {
                row.name: {"images": row.num_images, "objects": row.num_objects}
                | row.figures
                | {"threshold": asdict(row.threshold) if row.threshold else None}
                for row in self.classes
            },
            "folders": {
                row.name: {"images": row.num_images, "objects": row.num_objects} | row.figures
                for row in self.folders
            },
            "calibration": [row.model_dump() for row in self.calibration],
            "not_known_to_the_model": list(self.unknown),
            "confusion": {
                "min_score": self.confusion.min_score,
                "classes": [*self.confusion.classes, "background"],
                "counts": self.confusion.counts.tolist(),
            },
        }

    def table(self) -> Group:
        """Return the figures of all, of each class and of each folder, to be printed."""
        by_class = _table(
            f"{self.split}: {self.num_images} images, {self.protocol}, {self.image_size} px",
            "class",
            ("score", "F1"),
        )
        for row in self.classes:
            if not row.num_objects:
                continue
            best = row.threshold
            more = (f"{best.min_score:.2f}", _short(best.f1)) if best else ("-", "-")
            _add(by_class, row, more)
        objects = sum(row.num_objects for row in self.classes)
        by_class.add_section()
        everything = ("all", f"{self.num_images}", f"{objects}")
        by_class.add_row(*everything, *_cells(self.overall), "", "", style="bold")
        tables = [by_class]
        if len(self.folders) > 1:
            by_folder = _table("", "folder")
            for folder in self.folders:
                _add(by_folder, folder)
            tables.append(by_folder)
        return Group(*tables, *self._note())

    def _note(self) -> Iterator[str]:
        absent = [row.name for row in self.classes if not row.num_objects]
        if absent:
            yield f"no object of: {escape(', '.join(absent))}"
        if self.unknown:
            yield f"not known to the model, and not counted: {escape(', '.join(self.unknown))}"


def _table(title: str, first: str, more: tuple[str, ...] = ()) -> Table:
    table = Table(
        title=title or None,
        title_justify="left",
        box=SIMPLE_HEAD,
        show_edge=False,
        padding=(0, 1, 0, 0),
    )
    table.add_column(first, no_wrap=True, min_width=10)
    for column in ("imgs", "objs", *map(_heading, FIGURES), *more):
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _add(table: Table, row: ClassFigures | FolderFigures, more: tuple[str, ...] = ()) -> None:
    counts = (f"{row.num_images}", f"{row.num_objects}")
    table.add_row(escape(row.name), *counts, *_cells(row.figures), *more)


def _cells(figures: Figures) -> list[str]:
    return [_short(value) if value >= 0 else "-" for value in figures.values()]


def _short(value: float) -> str:
    """Return a share in four characters, so that the table fits beside long names."""
    return f"{value:.3f}".removeprefix("0")[:4]


def _heading(figure: str) -> str:
    """Return AP_small as S, and so on; what is not of a size as it is."""
    name, _, of_size = figure.partition("_")
    return of_size[:1].upper() or name
