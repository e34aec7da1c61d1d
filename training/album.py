# SPDX-License-Identifier: Apache-2.0
"""Pictures of a training beside its weights: what it was shown, and how it went."""

from importlib.util import find_spec
from pathlib import Path
from typing import Final

from training.contact_sheet import contact_sheet
from training.loading import Loading, TrainingLoader
from training.plots import draw_history, write_png
from training.recipe import Recipe
from training.records import Split
from training.sampling import Position

BATCH: Final = "batch.png"
HISTORY: Final = "history.png"


def show_batch(folder: Path, split: Split, recipe: Recipe) -> None:
    """Draw the first batch of a training with its boxes, as augmented as the network sees it."""
    loader = TrainingLoader(split, recipe.sampling, recipe.augmentation, Loading(workers=0))
    batch = next(iter(loader.batches(Position(), recipe.epochs)))
    write_png(folder / BATCH, contact_sheet(batch, split.classes))


def show_history(folder: Path, results: Path) -> None:
    """Draw losses and AP, where matplotlib is there (extra: plots)."""
    if find_spec("matplotlib") is not None:
        draw_history(folder / HISTORY, results)
