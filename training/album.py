# SPDX-License-Identifier: Apache-2.0
"""Pictures of a training beside its weights: what it was shown, and how it went."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from training.batches import TrainingBatch
from training.contact_sheet import contact_sheet
from training.plots import draw_history, write_png

BATCH: Final = "batch.png"
HISTORY: Final = "history.png"


def show_batch(folder: Path, batch: TrainingBatch, classes: Sequence[str]) -> None:
    """Draw a batch with its boxes, as augmented as the network sees it."""
    write_png(folder / BATCH, contact_sheet(batch, classes))


def show_history(folder: Path, results: Path) -> None:
    """Draw losses and AP, where matplotlib is there (extra: plots)."""
    if find_spec("matplotlib") is not None:
        draw_history(folder / HISTORY, results)
