# SPDX-License-Identifier: Apache-2.0
"""The terms of one head: published values, gradients, independence of the images of a batch."""

import pytest
import torch

from model.head import LevelLogits, Logits
from tests.benchmarks.objects import random_logits, random_targets
from tests.training.targets import NO_OBJECTS, make_targets, rows_of
from training.assignment import Assignment, AssignmentConfig, assign
from training.losses import Terms, distribution_loss, flatten, measure, predict, sides_around
from training.targets import Targets


def terms_of(logits: Logits, targets: Targets) -> Terms:
    flat = flatten(logits)
    return measure(flat, targets, assign(predict(flat), targets, AssignmentConfig()))


def test_sides_are_those_of_the_published_training() -> None:
    sides = sides_around(torch.tensor([[2.5, 2.5]]), torch.tensor([[0.0, 0.0, 40.0, 4.0]]))
    assert sides[0].tolist() == pytest.approx([2.5, 2.5, 14.99, 1.5])


def test_the_distribution_loss_is_that_of_the_published_training() -> None:
    logits = 0.01 * torch.arange(64.0)[None]
    loss = distribution_loss(logits, torch.tensor([[2.3, 0.0, 14.99, 7.5]]))
    assert loss.tolist() == pytest.approx([2.7866762], abs=1e-6)


def test_the_distribution_loss_is_least_where_its_bins_are_right() -> None:
    """The whole of it on the two bins around the side, in the right shares."""
    right = torch.full((1, 4, 16), -40.0)
    right[:, :, 5], right[:, :, 6] = torch.tensor(0.75).log(), torch.tensor(0.25).log()
    sides = torch.full((1, 4), 5.25)
    least = distribution_loss(right.flatten(1), sides)
    entropy = -(0.75 * torch.tensor(0.75).log() + 0.25 * torch.tensor(0.25).log())
    assert least.item() == pytest.approx(entropy.item(), abs=1e-6)
    assert distribution_loss(right.roll(1, dims=2).flatten(1), sides) > least


def test_a_score_loss_is_the_cross_entropy_with_a_table_of_targets() -> None:
    targets = random_targets(2, 8, image_size=96, num_classes=4, mean_size=40)
    flat = flatten(random_logits(2, 4, 96))
    found = assign(predict(flat), targets, AssignmentConfig())
    table = torch.zeros_like(flat.score)
    table[found.image, targets.class_id[found.object_id], found.anchor] = found.score
    expected = torch.nn.functional.binary_cross_entropy_with_logits(
        flat.score, table, reduction="sum"
    )
    assert table.sum() > 0
    assert measure(flat, targets, found).score.item() == pytest.approx(expected.item(), rel=1e-6)


def test_gradients_agree_with_finite_differences() -> None:
    """In float64, with the assignment held.

    The predicted boxes are squares like the objects: the shapes' part of the overlap, whose weight
    counts as a constant, then has no gradient at all. Boxes of any shape: test_overlap.py.
    """
    random = torch.Generator().manual_seed(0)
    sizes = ((4, 4), (2, 2), (1, 1))
    inputs = [
        part
        for height, width in sizes
        for part in (
            torch.randn(2, 1, 16, height, width, generator=random, dtype=torch.float64)
            .expand(2, 4, 16, height, width)
            .reshape(2, 64, height, width)
            .clone()
            .requires_grad_(),
            torch.randn(
                2, 2, height, width, generator=random, dtype=torch.float64
            ).requires_grad_(),
        )
    ]
    targets = make_targets([(0, 1, (2.0, 3.0, 21.0, 22.0)), (1, 0, (0.0, 0.0, 30.0, 30.0))])
    found = Assignment(
        image=torch.tensor([0, 0, 1]),
        anchor=torch.tensor([5, 16, 20]),
        object_id=torch.tensor([0, 0, 1]),
        score=torch.tensor([0.5, 0.25, 0.75]),
    )

    def terms(*parts: torch.Tensor) -> Terms:
        return measure(flatten(_levels(parts)), targets, found)

    assert terms(*inputs).box.dtype == torch.float64
    assert torch.autograd.gradcheck(terms, inputs, atol=1e-6)


def test_only_positives_have_a_box_to_learn() -> None:
    logits = _with_gradients(random_logits(2, 3, 64))
    flat = flatten(logits)
    targets = make_targets([(1, 0, (5.0, 5.0, 50.0, 40.0))])
    found = assign(predict(flat), targets, AssignmentConfig())
    terms = measure(flat, targets, found)
    (terms.box + terms.distribution).backward()
    learnt = torch.cat([level.box.grad.flatten(2).any(dim=1) for level in logits], dim=1)
    image, anchor = learnt.nonzero(as_tuple=True)
    assert image.tolist() == [1] * len(anchor)
    assert len(anchor) > 3
    assert set(anchor.tolist()) <= set(found.anchor.tolist())


def test_the_terms_of_a_batch_are_the_sum_of_those_of_its_images() -> None:
    """One of them has no objects."""
    targets = random_targets(3, 10, image_size=96, num_classes=4, mean_size=40)
    targets = rows_of(targets, [row for row in range(30) if targets.image[row] != 1])
    logits = random_logits(3, 4, 96)
    together = terms_of(logits, targets)
    alone = []
    for image in range(3):
        own = (targets.image == image).nonzero()[:, 0].tolist()
        part = rows_of(targets, own)
        part.image.zero_()
        alone.append(terms_of(_images(logits, [image]), part))
    for whole, *parts in zip(together, *alone, strict=True):
        assert whole.item() == pytest.approx(sum(parts).item(), rel=1e-5)


def test_the_order_of_images_and_objects_does_not_matter() -> None:
    targets = random_targets(3, 10, image_size=96, num_classes=4, mean_size=40)
    logits = random_logits(3, 4, 96)
    moved = rows_of(targets, torch.randperm(30).tolist())
    moved.image.copy_(torch.tensor([2, 0, 1])[moved.image])
    one, other = terms_of(logits, targets), terms_of(_images(logits, [1, 2, 0]), moved)
    for here, there in zip(one, other, strict=True):
        assert here.item() == pytest.approx(there.item(), rel=1e-5)


def test_anchor_points_are_exact_in_half_precision() -> None:
    """A map of 300 columns has points that bfloat16 cannot tell apart."""
    p3, p4, p5 = (
        LevelLogits(
            torch.zeros(1, 64, 1, width, dtype=torch.bfloat16),
            torch.zeros(1, 1, 1, width, dtype=torch.bfloat16),
        )
        for width in (300, 150, 75)
    )
    flat = flatten((p3, p4, p5))
    assert flat.point_xy[:300, 0].tolist() == [column + 0.5 for column in range(300)]
    assert flat.point_xy.dtype == flat.box.dtype == flat.score.dtype == torch.float32


def test_a_batch_without_objects_teaches_scores_alone() -> None:
    logits = _with_gradients(random_logits(2, 3, 64))
    terms = terms_of(logits, NO_OBJECTS)
    assert terms.box.item() == terms.distribution.item() == 0
    torch.stack(terms).sum().backward()
    assert all(not level.box.grad.any() for level in logits)
    assert all((level.score.grad > 0).all() for level in logits)


def _levels(parts: tuple[torch.Tensor, ...]) -> Logits:
    p3, p4, p5 = (LevelLogits(*parts[place : place + 2]) for place in (0, 2, 4))
    return p3, p4, p5


def _images(logits: Logits, images: list[int]) -> Logits:
    p3, p4, p5 = (LevelLogits(level.box[images], level.score[images]) for level in logits)
    return p3, p4, p5


def _with_gradients(logits: Logits) -> Logits:
    for level in logits:
        level.box.requires_grad_()
        level.score.requires_grad_()
    return logits
