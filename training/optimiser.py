# SPDX-License-Identifier: Apache-2.0
"""The optimizer and its groups: only the weights of convolutions decay."""

from typing import Final, NamedTuple

import torch
from torch import nn

from training.recipe import AdamW, Sgd
from training.schedule import Rates

BIASES: Final = 0
"""Place of the group of biases, which warms up on its own."""


class Groups(NamedTuple):
    """Parameters by what is done to them, those that are frozen left out."""

    biases: list[nn.Parameter]
    """Those of normalisations among them."""
    weights: list[nn.Parameter]
    """Of convolutions."""
    gains: list[nn.Parameter]
    """Of normalisations."""


def group_parameters(module: nn.Module) -> Groups:
    """Sort the parameters of a module."""
    groups = Groups([], [], [])
    for part in module.modules():
        for name, parameter in part.named_parameters(recurse=False):
            if not parameter.requires_grad:
                continue
            if name == "bias":
                groups.biases.append(parameter)
            elif isinstance(part, nn.modules.batchnorm._BatchNorm):  # noqa: SLF001 - public name
                groups.gains.append(parameter)
            else:
                groups.weights.append(parameter)
    return groups


def make_optimizer(module: nn.Module, config: Sgd | AdamW, decay: float) -> torch.optim.Optimizer:
    """Make the optimizer of a module.

    Args:
        module: What is trained.
        config: Which optimizer, and its rates.
        decay: Of the weights of convolutions, for the images that an update really has.
    """
    groups = group_parameters(module)
    sorted_out = [
        {"params": groups.biases, "weight_decay": 0.0},
        {"params": groups.weights, "weight_decay": decay},
        {"params": groups.gains, "weight_decay": 0.0},
    ]
    if isinstance(config, Sgd):
        return torch.optim.SGD(sorted_out, config.lr, config.momentum, nesterov=True)
    betas = (config.momentum, config.second_momentum)
    return torch.optim.AdamW(sorted_out, config.lr, betas)


def set_rates(optimizer: torch.optim.Optimizer, rates: Rates) -> None:
    """Have the next update made at these rates."""
    for place, group in enumerate(optimizer.param_groups):
        group["lr"] = rates.bias_lr if place == BIASES else rates.lr
        if "betas" in group:
            group["betas"] = (rates.momentum, group["betas"][1])
        else:
            group["momentum"] = rates.momentum
