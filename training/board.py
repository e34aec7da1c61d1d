# SPDX-License-Identifier: Apache-2.0
"""Losses and AP as TensorBoard shows them, beside results.csv."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from model.errors import MissingExtra
from training.state import Row

FOLDER: Final = "tensorboard"
_NOT_SHOWN: Final = frozenset({"epoch", "seconds"})


class Board:
    """Writes one step for each epoch, from 1; a training taken up again goes on in the graphs."""

    def __init__(self, output: Path, done: Sequence[Row]) -> None:
        """Open the folder in a training's output.

        Args:
            output: The training's.
            done: Epochs that are there already; what was written of later ones is not shown.

        Raises:
            MissingExtra: TensorBoard is not installed.
        """
        self._writer = _writer(output / FOLDER, purge_step=len(done) + 1)

    def epoch(self, row: Row) -> None:
        """Write what an epoch came to."""
        for name, value in row.model_dump(exclude=set(_NOT_SHOWN), exclude_none=True).items():
            self._writer.add_scalar(name, value, row.epoch + 1)
        self._writer.flush()

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()


def _writer(folder: Path, *, purge_step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise MissingExtra(
            "tensorboard=true needs TensorBoard: pip install 'sightline[tensorboard]', "
            "or leave it out; results.csv and history.png have the same"
        ) from None
    return SummaryWriter(str(folder), purge_step=purge_step)
