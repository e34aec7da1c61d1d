# SPDX-License-Identifier: Apache-2.0
"""What a person watches while a training runs: a bar in an epoch, a line after it, results.csv."""

import csv
import io
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from model.files import write_whole
from training.board import Board
from training.state import Row, Sums


class Reporter:
    """Shows a training; one that is not shown still takes every call."""

    def __init__(
        self, epochs: int, steps_per_epoch: int, *, shown: bool, board: Board | None = None
    ) -> None:
        self._board = board
        self._epochs = epochs
        self._steps = steps_per_epoch
        self._console = Console(stderr=True, quiet=not shown, soft_wrap=True)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[losses]}"),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=not (shown and self._console.is_terminal),
        )
        self._task = self._bar.add_task("", total=steps_per_epoch, losses="")

    def __enter__(self) -> "Reporter":
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()
        if self._board is not None:
            self._board.close()

    def step(self, epoch: int, step: int, sums: Sums) -> None:
        """Show how far an epoch is."""
        images = max(sums.images, 1.0)
        losses = _losses(sums.box / images, sums.score / images, sums.distribution / images)
        speed = f"{sums.images / max(sums.seconds, 1e-9):.1f} images/s"
        self._bar.update(
            self._task,
            completed=step,
            description=f"epoch {epoch + 1}/{self._epochs}",
            losses=f"{losses}  {speed}",
        )

    def epoch(self, rows: Sequence[Row]) -> None:
        """Say what the last epoch came to, and when the training will end."""
        row = rows[-1]
        if self._board is not None:
            self._board.epoch(row)
        per_epoch = sum(past.seconds for past in rows) / len(rows)
        left = timedelta(seconds=round(per_epoch * (self._epochs - row.epoch - 1)))
        accuracy = "" if row.ap is None else f"  AP {row.ap:.3f}  AP50 {row.ap50:.3f}"
        self.say(
            f"epoch {row.epoch + 1}/{self._epochs}  "
            f"{_losses(row.box, row.score, row.distribution)}{accuracy}  "
            f"{row.images_per_s:.1f} images/s  {left} left"
        )

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        self._console.print(escape(text), highlight=False)


def write_results(path: Path, rows: Sequence[Row]) -> None:
    """Write one line for each epoch."""
    text = io.StringIO()
    table = csv.DictWriter(text, list(Row.model_fields), lineterminator="\n")
    table.writeheader()
    table.writerows(_rounded(row) for row in rows)
    write_whole(path, text.getvalue().encode(), "these results")


def _rounded(row: Row) -> dict[str, object]:
    return {
        name: f"{value:.6g}" if isinstance(value, float) else value
        for name, value in row.model_dump().items()
    }


def _losses(box: float, score: float, distribution: float) -> str:
    return f"box {box:.3f}  score {score:.3f}  distribution {distribution:.3f}"
