# SPDX-License-Identifier: Apache-2.0
"""Learning rates, momentum and accumulation against the published schedule."""

import pytest

from training.recipe import AdamW, Recipe, WarmUp
from training.sampling import Sampling
from training.schedule import Schedule, decay_factor

STEPS = 7393
"""Batches of 16 in an epoch of COCO."""


def paper(images_per_batch: int = 16) -> Schedule:
    return Schedule(Recipe(), STEPS, images_per_batch)


@pytest.mark.parametrize(
    ("epoch", "lr"), [(4, 0.0099208), (250, 0.00505), (499, 1.198e-4)], ids=str
)
def test_the_rate_falls_in_a_straight_line_to_a_hundredth(epoch: int, lr: float) -> None:
    assert paper().at(epoch, 0).lr == pytest.approx(lr)


def test_without_warm_up_the_first_epochs_have_the_published_rates() -> None:
    schedule = Schedule(Recipe(warm_up=WarmUp(epochs=0, min_batches=0)), STEPS, 16)
    assert schedule.at(0, 0).lr == 0.01
    assert schedule.at(1, 0).lr == pytest.approx(0.0099802)


def test_biases_warm_up_from_above_and_the_rest_from_nothing() -> None:
    first, middle, last = (paper().at(*at) for at in ((0, 0), (1, STEPS // 2), (3, 0)))
    assert (first.lr, first.bias_lr, first.momentum, first.accumulate) == (0.0, 0.1, 0.8, 1)
    half = (STEPS + STEPS // 2) / (3 * STEPS)
    assert middle.lr == pytest.approx(0.0099802 * half)
    assert middle.bias_lr == pytest.approx(0.1 + (0.0099802 - 0.1) * half)
    assert middle.momentum == pytest.approx(0.8 + 0.137 * half)
    assert last.lr == last.bias_lr == pytest.approx(0.0099406)
    assert (last.momentum, last.accumulate) == (0.937, 4)


def test_a_warm_up_has_a_hundred_batches_at_least() -> None:
    assert Schedule(Recipe(), 5, 16).warm_up_batches == 100
    assert paper().warm_up_batches == 3 * STEPS


@pytest.mark.parametrize(("batch", "accumulate"), [(16, 4), (32, 2), (64, 1), (128, 1), (48, 1)])
def test_batches_add_up_to_the_nominal_one(batch: int, accumulate: int) -> None:
    assert paper(batch).at(10, 0).accumulate == accumulate


@pytest.mark.parametrize(("batch", "factor"), [(16, 1), (32, 1), (64, 1), (128, 2)])
def test_decay_grows_with_the_images_of_an_update(batch: int, factor: float) -> None:
    assert decay_factor(Recipe(sampling=Sampling(batch_size=batch)), batch) == factor


def test_adam_keeps_its_momentum_while_it_warms_up() -> None:
    schedule = Schedule(Recipe(optimiser=AdamW()), STEPS, 16)
    assert {schedule.at(epoch, 0).momentum for epoch in range(5)} == {0.9}
    assert schedule.at(0, 0).bias_lr == 0.0
