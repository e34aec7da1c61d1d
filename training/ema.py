# SPDX-License-Identifier: Apache-2.0
"""The running average of weights: what is evaluated and deployed."""

import copy
import math

import torch

from training.pgi import GuidedDetector
from training.recipe import Averaging


class Average:
    """A detector in training whose every value with a point follows that of another one."""

    def __init__(self, guided: GuidedDetector, config: Averaging) -> None:
        self.guided = copy.deepcopy(guided).eval().requires_grad_(requires_grad=False)
        self.updates = 0
        self._config = config

    @torch.no_grad()
    def update(self, guided: GuidedDetector) -> None:
        """Move towards a detector's values; called after each update of its weights."""
        self.updates += 1
        decay = decay_at(self.updates, self._config)
        theirs = guided.state_dict()
        pairs = [
            (mine, theirs[name])
            for name, mine in self.guided.state_dict().items()
            if mine.is_floating_point()
        ]
        torch._foreach_lerp_([mine for mine, _ in pairs], [other for _, other in pairs], 1 - decay)


def decay_at(update: int, config: Averaging) -> float:
    """Return how much of the average is kept at an update, the first being 1."""
    return config.decay * (1 - math.exp(-update / config.ramp))
