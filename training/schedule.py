# SPDX-License-Identifier: Apache-2.0
"""How fast training learns at each batch: a warm-up, then a straight line down.

Everything follows from the number of the batch, so a training taken up again needs no memory of
its own. Rates fall once an epoch.
"""

from dataclasses import dataclass

from training.recipe import Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """What holds for one batch."""

    lr: float
    bias_lr: float
    momentum: float
    accumulate: int
    """Batches that make an update."""


class Schedule:
    """The rates of a whole training."""

    def __init__(self, recipe: Recipe, steps_per_epoch: int, images_per_batch: int) -> None:
        """Plan a training.

        Args:
            recipe: Its rates and warm-up.
            steps_per_epoch: Batches.
            images_per_batch: Those of all processes together.
        """
        self._recipe = recipe
        self._steps_per_epoch = steps_per_epoch
        self._accumulate = recipe.nominal_batch / images_per_batch
        warm_up = recipe.warm_up
        self.warm_up_batches = max(round(warm_up.epochs * steps_per_epoch), warm_up.min_batches)

    def at(self, epoch: int, step: int) -> Rates:
        """Return the rates of a batch."""
        optimiser = self._recipe.optimiser
        lr = optimiser.lr * falling(epoch, self._recipe.epochs, self._recipe.last_lr)
        batch = epoch * self._steps_per_epoch + step
        share = min(batch / self.warm_up_batches, 1.0) if self.warm_up_batches else 1.0
        accumulate = max(round(self._accumulate), 1)
        if share < 1:
            accumulate = max(round(between(1.0, self._accumulate, share)), 1)
        return Rates(
            lr=between(0.0, lr, share),
            bias_lr=between(optimiser.first_bias_lr, lr, share),
            momentum=between(optimiser.first_momentum, optimiser.momentum, share),
            accumulate=accumulate,
        )


def falling(epoch: int, epochs: int, last: float) -> float:
    """Return the share of the first learning rate that an epoch has; `last` is never reached."""
    return (1 - epoch / epochs) * (1 - last) + last


def decay_factor(recipe: Recipe, images_per_batch: int) -> float:
    """Return what decay is multiplied by: the images of an update over the nominal ones."""
    accumulate = max(round(recipe.nominal_batch / images_per_batch), 1)
    return images_per_batch * accumulate / recipe.nominal_batch


def between(first: float, last: float, share: float) -> float:
    """Return the value at a share of the way."""
    return last if share == 1 else first + (last - first) * share
