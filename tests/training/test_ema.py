# SPDX-License-Identifier: Apache-2.0
"""The running average of weights."""

import pytest
import torch

from tests.training.builders import make_guided
from training.ema import Average, decay_at
from training.recipe import Averaging


@pytest.mark.parametrize(
    ("update", "decay"),
    [(1, 0.0004998), (100, 0.04877), (2000, 0.63207), (10000, 0.99316)],
    ids=str,
)
def test_the_decay_rises_as_published(update: int, decay: float) -> None:
    assert decay_at(update, Averaging()) == pytest.approx(decay, rel=1e-4)


def test_every_value_with_a_point_is_averaged_and_counters_are_left_alone() -> None:
    guided = make_guided("T")
    average = Average(guided, Averaging())
    before = {name: tensor.clone() for name, tensor in guided.state_dict().items()}
    with torch.no_grad():
        for tensor in guided.state_dict().values():
            tensor.add_(1)
    average.update(guided)
    decay = decay_at(1, Averaging())
    for name, tensor in average.guided.state_dict().items():
        moved = 1 - decay if tensor.is_floating_point() else 0
        torch.testing.assert_close(tensor, before[name] + moved, rtol=1e-5, atol=1e-5)


def test_the_average_does_not_follow_by_itself() -> None:
    guided = make_guided("T")
    average = Average(guided, Averaging())
    with torch.no_grad():
        guided.detector.head.box["p3"].out.bias.fill_(7)
    assert (average.guided.detector.head.box["p3"].out.bias != 7).all()
