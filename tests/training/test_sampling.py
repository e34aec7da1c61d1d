# SPDX-License-Identifier: Apache-2.0
"""Which image comes when: by seed, epoch and place, and nothing else."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tests.training.datasets_on_disk import Box, split_of
from training.records import Split
from training.sampling import Plan, Position, Sampling, Shard, class_weights, sample_generator

RED: list[Box] = [(0, 0, 0, 20, 20)]
GREEN: list[Box] = [(1, 0, 0, 20, 20)]


@pytest.fixture
def split(tmp_path: Path) -> Split:
    """Ten images: eight with red, one of these with green too, one with nothing, one green."""
    return split_of(tmp_path, [RED] * 7 + [RED + GREEN, [], GREEN], size=(20, 20))


def test_every_image_comes_once_an_epoch_and_the_last_batch_is_filled_up(split: Split) -> None:
    plan = Plan(split, Sampling(batch_size=4))
    assert plan.steps_per_epoch == 3
    tickets = list(plan.tickets(Position(), 1))
    drawn = [index for ticket in tickets for index in ticket.indices]
    assert sorted(drawn[:10]) == list(range(10))
    assert drawn[10:] == drawn[:2]
    assert [ticket.last for ticket in tickets] == [False, False, True]


def test_epochs_differ_and_seeds_differ(split: Split) -> None:
    orders = {
        tuple(Plan(split, Sampling(seed=seed)).order(epoch)) for seed in (0, 1) for epoch in (0, 1)
    }
    assert len(orders) == 4


def test_training_goes_on_where_it_stopped(split: Split) -> None:
    plan = Plan(split, Sampling(batch_size=4, multi_scale=0.5))
    whole = list(plan.tickets(Position(), 3))
    for done, ticket in enumerate(whole):
        assert list(plan.tickets(ticket.position, 3)) == whole[done:]
    assert list(plan.tickets(Position(epoch=3), 3)) == []


def test_processes_share_each_step_of_one_that_is_alone(split: Split) -> None:
    alone = Plan(split, Sampling(batch_size=4, multi_scale=0.5)).tickets(Position(), 2)
    pair = [
        Plan(split, Sampling(batch_size=2, multi_scale=0.5), Shard(rank=rank, world=2)).tickets(
            Position(), 2
        )
        for rank in (0, 1)
    ]
    for whole, first, second in zip(alone, *pair, strict=True):
        assert whole.indices == first.indices + second.indices
        assert whole.places == first.places + second.places
        assert whole.image_size == first.image_size == second.image_size


def test_a_rank_outside_the_world_is_refused() -> None:
    with pytest.raises(ValueError, match="rank must be 0 to 1, got 2"):
        Shard(rank=2, world=2)


def test_batches_are_of_several_sizes_within_their_share(split: Split) -> None:
    plan = Plan(split, Sampling(batch_size=1, image_size=320, multi_scale=0.5))
    sizes = Counter(ticket.image_size for ticket in plan.tickets(Position(), 20))
    assert min(sizes) == 160
    assert max(sizes) == 480
    assert all(size % 32 == 0 for size in sizes)
    assert len(sizes) == 11


def test_rare_classes_come_more_often_where_classes_are_balanced(split: Split) -> None:
    plan = Plan(split, Sampling(batch_size=10, balance="classes"))
    drawn = Counter(int(index) for epoch in range(50) for index in plan.order(epoch))
    assert set(drawn) == set(range(10))
    red, both, empty, green = drawn[0], drawn[7], drawn[8], drawn[9]
    assert green == pytest.approx(both, rel=0.15)
    assert green / red == pytest.approx(2, rel=0.15)  # root of 8 images against 2
    assert empty == pytest.approx(red, rel=0.15)


def test_weights_are_shares(split: Split) -> None:
    weights = class_weights(split)
    assert weights.sum() == pytest.approx(1)
    np.testing.assert_allclose(weights[9] / weights[0], 2)


def test_generators_differ_by_seed_epoch_and_place() -> None:
    keys = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]
    assert len({sample_generator(*key).random() for key in keys}) == 4
    assert sample_generator(3, 2, 1).random() == sample_generator(3, 2, 1).random()
