# SPDX-License-Identifier: Apache-2.0
"""What a person looks at after a training or an evaluation, as PNG files.

Drawn by matplotlib, which is imported here alone and only when something is drawn; pictures with
boxes are drawn by the contact sheets.
"""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import cv2
import numpy as np

from model.errors import DataError, MissingExtra
from model.files import replacing
from training.contact_sheet import comparison_sheet
from training.evaluation import Found
from training.evaluation_report import EvaluationReport
from training.matching import ConfusionMatrix
from training.records import Split

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
else:  # annotations are looked up when the tests check shapes
    Axes = Figure = Any

MOST_NAMED: Final = 12
"""Classes that have a line and a name of their own; of more, the most frequent have."""
MOST_NUMBERS: Final = 16
"""Classes up to which the cells of a confusion matrix hold numbers."""
COMPARED: Final = 12
"""Images shown with what was found in them beside what is there."""
LOSSES: Final = ("box", "score", "distribution")
_DPI: Final = 110
_RECALLS: Final = np.linspace(0, 1, 101)


def draw_evaluation(folder: Path, report: EvaluationReport, split: Split, found: Found) -> None:
    """Draw everything about an evaluation into a folder.

    Raises:
        MissingExtra: matplotlib is not installed.
        DataError: the folder cannot be written.
    """
    require_matplotlib()
    _make(folder)
    draw_curves(folder / "precision-recall.png", report)
    draw_confusion(folder / "confusion.png", report.confusion)
    with_objects = [index for index in sorted(found) if len(split.objects(index))]
    steps = np.linspace(0, len(with_objects) - 1, min(COMPARED, len(with_objects)))
    shown = [with_objects[int(step)] for step in steps.round()]
    if shown:
        sheet = comparison_sheet(split, {index: found[index] for index in shown}, 0.25)
        write_png(folder / "predictions.png", sheet)


def draw_history(path: Path, results: Path) -> None:
    """Draw losses and AP over the epochs of a training.

    Args:
        path: The picture to write.
        results: A CSV file with a column `epoch`, the losses of `LOSSES`, and the figures of
            evaluations, whose names begin with `ap`; empty where there was none.
    """
    columns = _read_columns(results)
    losses = {name: values for name, values in columns.items() if name in LOSSES}
    figures = {name: values for name, values in columns.items() if name.lower().startswith("ap")}
    epochs = columns.get("epoch")
    if epochs is None or not losses | figures:
        raise DataError(f"{results}: expected the columns epoch and losses or AP, got {[*columns]}")
    figure, (left, right) = _subplots(2, (10.0, 4.0))
    _draw_lines(left, epochs, losses, "loss")
    _draw_lines(right, epochs, figures, "AP")
    right.set_ylim(bottom=0)
    _save(figure, path)


def draw_curves(path: Path, report: EvaluationReport) -> None:
    """Draw precision over recall of each class, at an overlap of one half."""
    rows = [row for row in report.classes if row.figures["AP50"] >= 0]
    figure, (axes,) = _subplots(1, (8.0, 5.0))
    for row in sorted(rows, key=lambda row: -row.num_objects)[:MOST_NAMED]:
        label = f"{row.name} {row.figures['AP50']:.3f}"
        axes.plot(_RECALLS, row.curve.precision, linewidth=1, label=label)
    if rows:
        mean = np.mean([row.curve.precision for row in rows], axis=0)
        label = f"mean of {len(rows)} {report.overall['AP50']:.3f}"
        axes.plot(_RECALLS, mean, linewidth=2.5, color="black", label=label)
        axes.legend(title="AP50", loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
    axes.set_title(f"{report.split}, {report.num_images} images, IoU 0.5", fontsize=10)
    axes.grid(alpha=0.3)
    _save(figure, path)


def draw_confusion(path: Path, confusion: ConfusionMatrix) -> None:
    """Draw what objects were taken for: shares of each row, and counts where there is room."""
    counts = confusion.counts
    present = np.flatnonzero((counts[:-1].sum(axis=1) + counts[:, :-1].sum(axis=0)) > 0)
    chosen = np.append(present, len(counts) - 1)
    counts = counts[np.ix_(chosen, chosen)]
    names = [(*confusion.classes, "background")[place] for place in chosen]
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = min(max(4.0, 0.5 * len(names) + 2), 16.0)
    figure, (axes,) = _subplots(1, (side + 1, side))
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, label="share of the row", fraction=0.046)
    axes.set_xticks(range(len(names)), names, rotation=90)
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(labelsize=9 if len(names) <= MOST_NUMBERS else 6)
    axes.set(xlabel="found as", ylabel="is")
    axes.set_title(f"score > {confusion.min_score}, IoU 0.5", fontsize=10)
    if len(names) <= MOST_NUMBERS:
        _write_numbers(axes, counts, shares)
    _save(figure, path)


def write_png(path: Path, picture: np.ndarray) -> None:
    """Write a picture in RGB."""
    _, png = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    try:
        with replacing(path) as temporary:
            temporary.write_bytes(png.tobytes())
    except OSError as failure:
        raise _unwritable(path, failure) from None


def require_matplotlib() -> None:
    """Say how to install matplotlib where it is not."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        raise MissingExtra(
            "plots need matplotlib (extra: plots); install it with: pip install 'sightline[plots]'"
        ) from None


def _subplots(count: int, size: tuple[float, float]) -> tuple[Figure, list[Axes]]:
    """A figure that belongs to no window, and its axes side by side."""
    require_matplotlib()
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    return figure, [figure.add_subplot(1, count, place + 1) for place in range(count)]


def _save(figure: Figure, path: Path) -> None:
    try:
        with replacing(path) as temporary:
            figure.savefig(temporary, dpi=_DPI, format=path.suffix[1:])
    except OSError as failure:
        raise _unwritable(path, failure) from None


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as failure:
        raise _unwritable(folder, failure) from None


def _unwritable(path: Path, failure: OSError) -> DataError:
    return DataError(f"{path}: cannot be written ({(failure.strerror or str(failure)).lower()})")


def _write_numbers(axes: Axes, counts: np.ndarray, shares: np.ndarray) -> None:
    for row, column in np.argwhere(counts > 0):
        colour = "white" if shares[row, column] > 0.5 else "black"
        text = f"{counts[row, column]}"
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=8)


def _draw_lines(
    axes: Axes,
    epochs: Sequence[float],
    columns: Mapping[str, Sequence[float]],
    what: str,
) -> None:
    for name, values in columns.items():
        known = np.isfinite(values)
        places, heights = np.asarray(epochs)[known], np.asarray(values)[known]
        axes.plot(places, heights, marker="." if len(places) < 30 else None, label=name)
    axes.set(xlabel="epoch", ylabel=what)
    axes.locator_params(axis="x", integer=True)
    axes.grid(alpha=0.3)
    if columns:
        axes.legend(frameon=False, fontsize=9)


def _read_columns(results: Path) -> dict[str, list[float]]:
    """Read the columns of numbers; what is empty is not a number."""
    try:
        with results.open(newline="", encoding="utf-8") as file:
            rows: list[dict[Any, Any]] = list(csv.DictReader(file, skipinitialspace=True))
    except OSError as failure:
        raise DataError(f"{results}: cannot be read ({(failure.strerror or '').lower()})") from None
    names = [name for name in rows[0] if name] if rows else []
    return {name.strip(): [_number(row[name]) for row in rows] for name in names}


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return float("nan")
