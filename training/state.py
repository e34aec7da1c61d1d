# SPDX-License-Identifier: Apache-2.0
"""Everything that a training has come to: with it, and the recipe, it can be taken up again."""

from dataclasses import dataclass, field
from typing import Annotated

import torch
from pydantic import Field

from model.config import Settings
from training.criterion import Losses
from training.ema import Average
from training.pgi import GuidedDetector
from training.sampling import Position

Number = Annotated[float, Field(allow_inf_nan=True)]


class Row(Settings):
    """What is known of an epoch, a line of results.csv."""

    epoch: int
    box: Number
    score: Number
    distribution: Number
    ap: float | None = None
    ap50: float | None = None
    lr: float
    images_per_s: float
    seconds: float
    """With its evaluation."""


class Sums(Settings):
    """Losses of an epoch so far, times the images that they are averages of."""

    box: float = 0.0
    score: float = 0.0
    distribution: float = 0.0
    images: float = 0.0
    seconds: float = 0.0

    def plus(self, losses: Losses, seconds: float) -> "Sums":
        """Return these and those of one batch more."""
        terms = torch.stack((losses.box, losses.score, losses.distribution)).detach()
        images = float(losses.num_images)
        box, score, distribution = (terms * images).tolist()
        return Sums(
            box=self.box + box,
            score=self.score + score,
            distribution=self.distribution + distribution,
            images=self.images + images,
            seconds=self.seconds + seconds,
        )


@dataclass(kw_only=True, eq=False)
class TrainState:
    """A training between two updates."""

    guided: GuidedDetector
    average: Average
    optimizer: torch.optim.Optimizer
    position: Position = field(default_factory=Position)
    """The next batch."""
    sums: Sums = field(default_factory=Sums)
    rows: list[Row] = field(default_factory=list)

    @property
    def best(self) -> Row | None:
        """The epoch of the highest AP, the last of equals; without any, the last epoch."""
        return max(reversed(self.rows), key=_ap, default=None)

    @property
    def epochs_without_better(self) -> int:
        """Return how many epochs ago the AP was higher than ever before."""
        if self.best is None or self.best.ap is None:
            return 0
        return self.rows[-1].epoch - max(self.rows, key=_ap).epoch


def _ap(row: Row) -> float:
    return -1.0 if row.ap is None else row.ap
