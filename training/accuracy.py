# SPDX-License-Identifier: Apache-2.0
"""What a training asks of evaluation: how good a detector is, as two numbers."""

from collections.abc import Callable

from model.network import Detector
from training.evaluation import Views, evaluate
from training.predictors import TorchPredictor
from training.records import Split

Evaluate = Callable[[Detector], dict[str, float]]
"""From a detector, fused and on the device it was trained on, to its `ap` and `ap50`."""


def accuracy(detector: Detector, split: Split, views: Views) -> dict[str, float]:
    """Return the AP of a detector that has the classes of a split, 0 where nothing is labelled."""
    predictor = TorchPredictor(detector, next(detector.parameters()).device)
    figures = evaluate(predictor, split.classes, split, views).overall
    return {"ap": max(figures["AP"], 0.0), "ap50": max(figures["AP50"], 0.0)}
