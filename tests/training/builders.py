# SPDX-License-Identifier: Apache-2.0
"""Small inputs for the tests of training: detectors with branches, published tensors."""

import torch

from model.head import BINS, Logits
from model.network import Detector
from model.scales import SCALES, ScaleName
from training.auxiliary import RELEASED, FormName
from training.official_names import bins_names, numbering_of, training_names
from training.pgi import GuidedDetector, GuidedLogits


def make_guided(
    scale: ScaleName = "T", form: FormName | None = None, num_classes: int = 3
) -> GuidedDetector:
    """A detector and its branches, both with random weights and normalisations."""
    torch.manual_seed(0)
    detector = Detector(SCALES[scale], num_classes)
    guided = GuidedDetector(detector, form or RELEASED[scale])
    for module in guided.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.8, 1.6)
            torch.nn.init.uniform_(module.bias, -0.2, 0.2)
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return guided


def training_tensors(guided: GuidedDetector) -> dict[str, torch.Tensor]:
    """The tensors of a detector in training under their official names, with both constants."""
    names = training_names(guided)
    tensors = {names[ours]: tensor for ours, tensor in guided.state_dict().items()}
    bins = torch.arange(BINS, dtype=torch.float32).reshape(1, BINS, 1, 1)
    numbering = numbering_of(guided.form, guided.detector.scale.passes)
    return tensors | {name: bins.clone() for name in bins_names(numbering)}


def summed(logits: GuidedLogits) -> torch.Tensor:
    """One number that every logit of every head has a part in."""
    heads = (logits.main, *logits.auxiliary)
    return torch.stack([_sum_of(head) for head in heads]).sum()


def _sum_of(logits: Logits) -> torch.Tensor:
    return torch.stack(
        [level.box.square().sum() + level.score.square().sum() for level in logits]
    ).sum()
