# SPDX-License-Identifier: Apache-2.0
"""What a check of a data set found: its counts, and everything that is wrong with it."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np

from training.records import Split

Kind = Literal[
    "broken image",
    "not an image",
    "missing image",
    "image listed twice",
    "missing label file",
    "unreadable label",
    "class id outside the list",
    "box out of range",
    "empty box",
    "duplicate row",
    "class not annotated here",
    "unknown category",
    "other size stated",
    "folder without images",
    "leak between splits",
    "same image twice",
]

# fmt: off
CONSEQUENCES: Final[dict[Kind, str]] = {
    "broken image":              "left out",
    "not an image":              "left out",
    "missing image":             "left out",
    "image listed twice":        "taken once",
    "missing label file":        "taken as an image without objects",
    "unreadable label":          "image left out",
    "class id outside the list": "image left out",
    "box out of range":          "image left out",
    "empty box":                 "row left out",
    "duplicate row":             "row left out",
    "class not annotated here":  "box left out",
    "unknown category":          "its boxes left out",
    "other size stated":         "image left out",
    "folder without images":     "nothing to annotate",
    "leak between splits":       "kept: figures on the later split are too good",
    "same image twice":          "kept",
}
# fmt: on
EXAMPLES: Final = 3
"""Faults of one kind that the text shows; all are in `problems`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One fault, and where it is."""

    kind: Kind
    path: Path
    line: int | None = None
    """Of the file, from 1."""
    what: str = ""

    def __str__(self) -> str:
        where = f"{self.path}:{self.line}" if self.line else f"{self.path}"
        return f"{where}: {self.what}" if self.what else where


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What one split holds once the faulty is left out."""

    images: int
    without_objects: int
    objects: tuple[int, ...]
    """Of each class."""
    annotated: tuple[int, ...]
    """Images that each class was looked for in."""
    crowds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The outcome of one check."""

    path: Path
    digest: str
    """Of every image and label that is used: equal data, equal digest."""
    classes: tuple[str, ...]
    counts: dict[str, Counts]
    problems: tuple[Problem, ...]

    def of_kind(self, kind: Kind) -> tuple[Problem, ...]:
        """Return the faults of one kind, in the order they were found."""
        return tuple(problem for problem in self.problems if problem.kind == kind)

    def text(self) -> str:
        """Return the report as lines to print."""
        return "\n".join(
            (f"{self.path} (data {self.digest[:12]})", *self._table(), *self._faults())
        )

    def _table(self) -> Iterator[str]:
        rows: list[Sequence[str]] = [("", *self.counts)]
        rows.append(("images", *(f"{count.images}" for count in self.counts.values())))
        rows.append(
            ("without objects", *(f"{count.without_objects}" for count in self.counts.values()))
        )
        for place, name in enumerate(self.classes):
            rows.append((name, *(_cell(count, place) for count in self.counts.values())))
        return _aligned(rows)

    def _faults(self) -> Iterator[str]:
        by_kind: dict[Kind, list[Problem]] = defaultdict(list)
        for problem in self.problems:
            by_kind[problem.kind].append(problem)
        for kind in CONSEQUENCES:
            found = by_kind.get(kind, [])
            if found:
                yield f"{kind}: {len(found)} ({CONSEQUENCES[kind]})"
                yield from (f"  {problem}" for problem in found[:EXAMPLES])
            if len(found) > EXAMPLES:
                yield f"  and {len(found) - EXAMPLES} more"


def count(split: Split) -> Counts:
    """Count what a split holds."""
    annotated = np.array([split.annotated(index) for index in range(len(split))], bool)
    objects = [split.objects(index) for index in range(len(split))]
    return Counts(
        images=len(split),
        without_objects=sum(len(found) == 0 for found in objects),
        objects=tuple(map(int, split.count_objects())),
        annotated=tuple(map(int, annotated.reshape(-1, len(split.classes)).sum(axis=0))),
        crowds=sum(int(found.crowd.sum()) for found in objects),
    )


def _cell(counts: Counts, place: int) -> str:
    """Objects of one class, and in how many images it was looked for unless in all."""
    looked = counts.annotated[place]
    beside = "" if looked == counts.images else f" (in {looked} images)"
    return f"{counts.objects[place]}{beside}"


def _aligned(rows: Iterable[Sequence[str]]) -> Iterator[str]:
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *others in rows:
        cells = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        yield "  ".join(("", first.ljust(widths[0]), *cells)).rstrip()
