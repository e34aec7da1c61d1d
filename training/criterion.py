# SPDX-License-Identifier: Apache-2.0
"""The loss of a detector in training: every head's terms, weighted and named.

    assign -> sum target scores over heads and ranks -> measure -> weigh

With several processes the sums of target scores, and the numbers of images, are added up over all
of them first. Averaged over the processes, as distributed training averages gradients, losses and
gradients are then those of the joint batch in one process.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from model.config import Settings
from training.assignment import Assignment, AssignmentConfig, assign
from training.losses import Flat, Terms, flatten, measure, predict
from training.pgi import GuidedLogits
from training.targets import Targets

Weight = Annotated[float, Field(ge=0)]
SumOverRanks = Callable[[Tensor], Tensor]
"""Returns the sum of a small vector over all processes; called once for each loss."""


class LossConfig(Settings):
    """What counts how much; the defaults are those of the paper."""

    box: Weight = 7.5
    score: Weight = 0.5
    distribution: Weight = 1.5
    auxiliary: Weight = 0.25
    """Weight of each auxiliary head beside the main one, which has 1."""
    lead: Literal["own", "main"] = "own"
    """Which objects an auxiliary head learns from: its own assignment, or that of the main head.

    `main` is lead-head-guided assignment (LHG in table 4 of the paper).
    """
    assignment: AssignmentConfig = AssignmentConfig()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Losses:
    """Weighted terms of all heads, for each image on average."""

    box: Float[Tensor, ""]
    score: Float[Tensor, ""]
    distribution: Float[Tensor, ""]
    num_images: Float[Tensor, ""]
    """Images of the batch, those of all processes."""
    positives: Float[Tensor, ""]
    """Anchor points of this process that the main head learns an object from."""

    @property
    def total(self) -> Float[Tensor, ""]:
        """Return the sum over the batch, whose gradients an optimizer step adds up."""
        return (self.box + self.score + self.distribution) * self.num_images


class Criterion:
    """Compares the logits of every head with the objects of the batch."""

    def __init__(self, config: LossConfig, sum_over_ranks: SumOverRanks = torch.clone) -> None:
        """Fix what counts how much.

        Args:
            config: Weights, and how anchor points are given to objects.
            sum_over_ranks: Of several processes; each has to call its criterion equally often.
        """
        self.config = config
        self.sum_over_ranks = sum_over_ranks

    def __call__(self, logits: GuidedLogits, targets: Targets) -> Losses:
        """Return the losses of a batch; a detector without branches has no auxiliary logits."""
        heads = [flatten(head) for head in (logits.main, *logits.auxiliary)]
        num_images, num_classes, _ = heads[0].score.shape
        targets = targets.learnable(num_images, num_classes)
        return self._weigh(heads, targets, self._assign(heads, targets))

    def _assign(self, heads: list[Flat], targets: Targets) -> list[Assignment]:
        config = self.config.assignment
        if self.config.lead == "main":
            return [assign(predict(heads[0]), targets, config)] * len(heads)
        return [assign(predict(head), targets, config) for head in heads]

    def _weigh(self, heads: list[Flat], targets: Targets, assignments: list[Assignment]) -> Losses:
        """Add up the terms of all heads, each divided by its own sum of target scores."""
        scores = [assignment.score.sum() for assignment in assignments]
        one = scores[0].new_ones(())
        counted = torch.stack((one, one * len(heads[0].score), *scores))
        ranks, num_images, *sums = self.sum_over_ranks(counted)
        total = Terms(*one.new_zeros(3))
        weights = [1.0, *[self.config.auxiliary] * (len(heads) - 1)]
        for weight, head, assignment, score in zip(weights, heads, assignments, sums, strict=True):
            scale = weight * ranks / score.clamp(min=1)
            terms = measure(head, targets, assignment)
            total = Terms(*(whole + term * scale for whole, term in zip(total, terms, strict=True)))
        return Losses(
            box=total.box * self.config.box,
            score=total.score * self.config.score,
            distribution=total.distribution * self.config.distribution,
            num_images=num_images,
            positives=one * len(assignments[0].anchor),
        )
