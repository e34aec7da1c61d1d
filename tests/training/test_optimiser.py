# SPDX-License-Identifier: Apache-2.0
"""Which parameters are in which group, and at which rates they are updated."""

import pytest
import torch

from tests.training.builders import make_guided
from training.optimiser import group_parameters, make_optimizer, set_rates
from training.recipe import AdamW, Sgd
from training.schedule import Rates

RATES = Rates(lr=0.01, bias_lr=0.05, momentum=0.85, accumulate=1)


def test_size_t_has_the_published_numbers_of_parameters_in_each_group() -> None:
    # The published 305 weights count the two constants of the bins, which are no parameters here.
    groups = group_parameters(make_guided("T", num_classes=80))
    assert [len(group) for group in groups] == [303, 303, 291]


def test_frozen_parameters_are_in_no_group() -> None:
    guided = make_guided("T")
    guided.detector.backbone.requires_grad_(requires_grad=False)
    kept = sum(parameter.requires_grad for parameter in guided.parameters())
    assert sum(map(len, group_parameters(guided))) == kept


@pytest.mark.parametrize("config", [Sgd(), AdamW()], ids=lambda config: config.kind)
def test_only_weights_of_convolutions_decay(config: Sgd | AdamW) -> None:
    optimizer = make_optimizer(make_guided("T"), config, decay=0.25)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.0, 0.25, 0.0]
    weights = optimizer.param_groups[1]["params"]
    assert all(parameter.ndim == 4 for parameter in weights)


@pytest.mark.parametrize("config", [Sgd(), AdamW()], ids=lambda config: config.kind)
def test_biases_have_a_rate_of_their_own(config: Sgd | AdamW) -> None:
    optimizer = make_optimizer(make_guided("T"), config, decay=0.0)
    set_rates(optimizer, RATES)
    assert [group["lr"] for group in optimizer.param_groups] == [0.05, 0.01, 0.01]
    for group in optimizer.param_groups:
        assert (group["betas"][0] if "betas" in group else group["momentum"]) == 0.85


def test_an_update_of_sgd_is_nesterov_s() -> None:
    layer = torch.nn.Conv2d(1, 1, 1)
    optimizer = make_optimizer(layer, Sgd(), decay=0.5)
    set_rates(optimizer, RATES)
    weight = layer.weight.item()
    for parameter in layer.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    # Nesterov steps along the slope, and along the velocity that the slope has just given.
    slope = 1 + 0.5 * weight
    assert layer.weight.item() == pytest.approx(weight - 0.01 * (slope + 0.85 * slope))
