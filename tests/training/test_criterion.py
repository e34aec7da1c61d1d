# SPDX-License-Identifier: Apache-2.0
"""The loss of all heads: published values, one or many heads, missing objects, ranks, precision."""

import pytest
import torch

from model.head import LevelLogits, Logits
from tests.benchmarks.allocations import Allocations
from tests.benchmarks.objects import random_logits, random_targets
from tests.training.builders import make_guided
from tests.training.targets import (
    NO_OBJECTS,
    golden_guided,
    golden_targets,
    make_targets,
    rows_of,
)
from training.assignment import AssignmentConfig, assign
from training.criterion import Criterion, LossConfig, Losses
from training.losses import flatten, predict
from training.pgi import GuidedLogits
from training.targets import Targets

PUBLISHED = AssignmentConfig(conflicts="everyone")
OWN = Criterion(LossConfig(assignment=PUBLISHED))
LEAD = Criterion(LossConfig(assignment=PUBLISHED, lead="main"))


def values(losses: Losses) -> list[float]:
    named = (losses.total, losses.box, losses.score, losses.distribution)
    return [value.item() for value in named]


@pytest.mark.parametrize(
    ("logits", "expected"),
    [
        pytest.param(
            golden_guided(0), (114.358353, 5.6578965, 47.440994, 4.0802851), id="one head"
        ),
        pytest.param(
            golden_guided(0, 1), (142.628693, 6.9222021, 59.350471, 5.0416727), id="one branch"
        ),
        pytest.param(
            golden_guided(0, 1, 2), (170.442337, 8.0171623, 71.399529, 5.8044806), id="two branches"
        ),
    ],
)
def test_values_are_those_of_the_published_training(
    logits: GuidedLogits, expected: tuple[float, ...]
) -> None:
    assert values(OWN(logits, golden_targets())) == pytest.approx(expected, rel=1e-6)


def test_led_by_the_main_head_values_are_published_ones_but_for_the_floor() -> None:
    """The original divides by the sum of target scores here, 0.826, however small; we by 1."""
    published = [173.268875, 8.5573215, 71.874268, 6.2028532]
    floored = [value * 0.82634634 for value in published]
    assert values(LEAD(golden_guided(0, 1), golden_targets())) == pytest.approx(floored, rel=1e-6)


@pytest.mark.parametrize(
    ("criterion", "logits", "expected"),
    [
        pytest.param(OWN, golden_guided(0), 93.885338, id="one head"),
        pytest.param(OWN, golden_guided(0, 1), 117.363098, id="a branch"),
        pytest.param(LEAD, golden_guided(0, 1), 117.363098, id="led: infinite in the original"),
    ],
)
def test_a_batch_without_objects_has_the_published_loss(
    criterion: Criterion, logits: GuidedLogits, expected: float
) -> None:
    losses = criterion(logits, NO_OBJECTS)
    assert losses.total.item() == pytest.approx(expected, rel=1e-6)
    assert losses.box.item() == losses.distribution.item() == losses.positives.item() == 0


def test_an_object_too_small_for_an_anchor_point_counts_as_none() -> None:
    tiny = make_targets([(0, 1, (32.5, 32.5, 33.5, 33.5))])
    losses = LEAD(golden_guided(0, 1), tiny)
    assert losses.total.item() == pytest.approx(117.363098, rel=1e-6)


def test_led_by_the_main_head_a_branch_learns_what_the_main_one_was_given() -> None:
    """Its own boxes, taken far away, change what it is given only where it chooses itself."""
    logits = golden_guided(0, 1)
    (auxiliary,) = logits.auxiliary
    p3, p4, p5 = (
        LevelLogits(torch.roll(level.box, 1, dims=3), torch.roll(level.score, 1, dims=2))
        for level in auxiliary
    )
    other = GuidedLogits(logits.main, ((p3, p4, p5),))
    led = [_learnt(LEAD, which) for which in (logits, other)]
    free = [_learnt(OWN, which) for which in (logits, other)]
    assert torch.equal(led[0], led[1])
    assert not torch.equal(free[0], free[1])


def test_weights_are_settings() -> None:
    plain = Criterion(LossConfig(box=1, score=1, distribution=1, auxiliary=0))
    losses = plain(golden_guided(0, 1), golden_targets())
    expected = [5.6578965 / 7.5, 47.440994 / 0.5, 4.0802851 / 1.5]
    assert values(losses)[1:] == pytest.approx(expected, rel=1e-6)


def test_ranks_agree_with_the_joint_batch_in_one_process() -> None:
    """Averaged over two ranks of unequal batches, losses and gradients are those of the whole."""
    targets = random_targets(3, 10, image_size=160, num_classes=4, mean_size=120)
    whole = [random_logits(3, 4, 160, seed) for seed in (0, 1)]
    joint, gradients = _backward(Criterion(LossConfig()), whole, targets)

    shares = ([0], [1, 2])
    batches = [([_images(head, own) for head in whole], _of(targets, own)) for own in shares]
    counted: list[torch.Tensor] = []
    for heads, own in batches:
        counting = Criterion(LossConfig(), lambda sums: (counted.append(sums), sums)[1])
        counting(GuidedLogits(heads[0], (heads[1],)), own)
    together = Criterion(LossConfig(), lambda _: torch.stack(counted).sum(dim=0))
    ranks = [_backward(together, heads, own) for heads, own in batches]

    mean = _mean([values(losses) for losses, _ in ranks])
    assert mean == pytest.approx(values(joint), rel=1e-5)
    assert all((sums[2:] > 1).all() for sums in counted), "no floor hides the sum"
    rejoined = torch.cat([gradient for _, gradient in ranks]) / 2
    assert torch.allclose(rejoined, gradients, rtol=1e-5, atol=1e-7)


def test_under_bfloat16_autocast_nothing_is_rounded_that_the_heads_did_not_round() -> None:
    targets = random_targets(2, 20, image_size=160, num_classes=4, mean_size=40)
    half = [_to(random_logits(2, 4, 160, seed), torch.bfloat16) for seed in (0, 1)]
    exact = [_to(head, torch.float32) for head in half]
    criterion = Criterion(LossConfig())
    with torch.autocast("cpu", torch.bfloat16):
        losses = criterion(GuidedLogits(half[0], (half[1],)), targets)
    assert losses.total.dtype == torch.float32
    assert values(losses) == values(criterion(GuidedLogits(exact[0], (exact[1],)), targets))


def test_classes_that_an_image_was_not_annotated_for_are_left_out_of_its_loss() -> None:
    """As if the head had no such class, in this image alone."""
    logits = random_logits(2, 3, 160)
    targets = random_targets(2, 10, image_size=160, num_classes=2, mean_size=120)
    annotated = torch.tensor([[True, True, True], [True, True, False]])
    masked = Targets(
        image=targets.image, class_id=targets.class_id, xyxy=targets.xyxy, annotated=annotated
    )
    for level in logits:
        level.score.requires_grad_()
    losses = Criterion(LossConfig())(GuidedLogits(logits, ()), masked)
    losses.total.backward()
    for level in logits:
        assert not level.score.grad[1, 2].any()
        assert (level.score.grad[0, 2] > 0).all()

    divisor = _score_sum(logits, targets)
    assert divisor > 1
    full = Criterion(LossConfig())(GuidedLogits(logits, ()), targets)
    absent = sum(torch.nn.functional.softplus(level.score[1, 2]).sum() for level in logits)
    scores = full.score.item() - 0.5 * absent.item() / divisor
    assert losses.score.item() == pytest.approx(scores, rel=1e-4)
    assert losses.box.item() == pytest.approx(full.box.item(), rel=1e-6)


def test_an_object_of_a_class_not_annotated_there_is_not_looked_at() -> None:
    targets = make_targets([(0, 0, (5.0, 5.0, 60.0, 60.0)), (0, 2, (20.0, 20.0, 90.0, 90.0))])
    annotated = torch.tensor([[True, True, False]])
    logits = GuidedLogits(random_logits(1, 3, 96), ())
    with_it, without = (
        Targets(image=t.image, class_id=t.class_id, xyxy=t.xyxy, annotated=annotated)
        for t in (targets, rows_of(targets, [0]))
    )
    criterion = Criterion(LossConfig())
    assert values(criterion(logits, with_it)) == values(criterion(logits, without))


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        pytest.param(
            make_targets([(0, 3, (0, 0, 9, 9))]), "class_id must be in 0..2, got 3", id="class"
        ),
        pytest.param(
            make_targets([(0, -1, (0, 0, 9, 9))]), "class_id must be in 0..2, got -1", id="below"
        ),
        pytest.param(
            make_targets([(2, 0, (0, 0, 9, 9))]), "image must be in 0..1, got 2", id="image"
        ),
        pytest.param(
            make_targets([(0, 0, (0, 0, float("nan"), 9))]), "xyxy must be finite", id="nan"
        ),
        pytest.param(
            make_targets([], torch.ones(2, 4, dtype=torch.bool)),
            r"annotated must have shape \(2, 3\), got \(2, 4\)",
            id="mask",
        ),
    ],
)
def test_objects_that_do_not_fit_the_batch_are_refused(targets: Targets, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OWN(golden_guided(0), targets)


def test_columns_of_other_lengths_or_types_are_refused() -> None:
    none = torch.zeros(0, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"xyxy must be torch.float32 of shape \(0, 4\)"):
        Targets(image=none, class_id=none, xyxy=torch.zeros(0, 4, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"class_id must be torch.int64 of shape \(1,\)"):
        Targets(image=none.new_zeros(1), class_id=none, xyxy=torch.zeros(1, 4))


def test_a_dense_batch_needs_no_more_than_its_logits_do() -> None:
    """1,000 objects in an image of 640 pixels: no tensor is larger than its maps of boxes."""
    targets = random_targets(1, 1000, image_size=640, num_classes=8, mean_size=40)
    logits = random_logits(1, 8, 640)
    for level in logits:
        level.box.requires_grad_()
        level.score.requires_grad_()
    with Allocations() as seen:
        Criterion(LossConfig())(GuidedLogits(logits, ()), targets).total.backward()
    assert seen.largest_bytes <= 8400 * 64 * 4


@pytest.mark.parametrize("each", [0, 3], ids=["no objects", "objects"])
def test_every_parameter_of_a_guided_detector_gets_a_finite_gradient(each: int) -> None:
    """Also where there is nothing to learn a box from: distributed training waits for each."""
    guided = make_guided()
    targets = random_targets(2, each, image_size=64, num_classes=3, mean_size=40)
    Criterion(LossConfig())(guided(torch.rand(2, 3, 64, 64)), targets).total.backward()
    gradients = {name: parameter.grad for name, parameter in guided.named_parameters()}
    assert [name for name, gradient in gradients.items() if gradient is None] == []
    assert all(gradient.isfinite().all() for gradient in gradients.values())


def test_a_few_steps_on_one_batch_lower_every_loss() -> None:
    guided = make_guided()
    images = torch.rand(2, 3, 64, 64)
    targets = make_targets([(0, 0, (4.0, 4.0, 40.0, 60.0)), (1, 2, (20.0, 8.0, 60.0, 30.0))])
    optimizer = torch.optim.Adam(guided.parameters(), lr=2e-3)
    history = []
    for _ in range(15):
        losses = Criterion(LossConfig())(guided(images), targets)
        optimizer.zero_grad()
        losses.total.backward()
        optimizer.step()
        history.append(losses)
    assert history[-1].total < 0.5 * history[0].total
    assert history[-1].score < history[0].score


def _learnt(criterion: Criterion, logits: GuidedLogits) -> torch.Tensor:
    """The anchor points whose box the auxiliary head learns from."""
    (auxiliary,) = logits.auxiliary
    boxes = [level.box.detach().requires_grad_() for level in auxiliary]
    p3, p4, p5 = (
        LevelLogits(box, level.score) for box, level in zip(boxes, auxiliary, strict=True)
    )
    criterion(GuidedLogits(logits.main, ((p3, p4, p5),)), golden_targets()).total.backward()
    return torch.cat([box.grad.flatten(2).any(dim=1) for box in boxes], dim=1)


def _score_sum(logits: Logits, targets: Targets) -> float:
    """What terms are divided by."""
    found = assign(predict(flatten(logits)), targets, AssignmentConfig())
    return max(found.score.sum().item(), 1.0)


def _backward(
    criterion: Criterion, heads: list[Logits], targets: Targets
) -> tuple[Losses, torch.Tensor]:
    """The losses of two heads, and the gradients of all their logits, a row for each image."""
    leaves = [
        [LevelLogits(*(part.detach().requires_grad_() for part in level)) for level in head]
        for head in heads
    ]
    main, auxiliary = (tuple(levels) for levels in leaves)
    losses = criterion(GuidedLogits(main, (auxiliary,)), targets)
    losses.total.backward()
    parts = [part.grad.flatten(1) for levels in leaves for level in levels for part in level]
    return losses, torch.cat(parts, dim=1)


def _of(targets: Targets, images: list[int]) -> Targets:
    """The objects of some images, which come first in the new batch."""
    rows = [row for row in range(len(targets)) if int(targets.image[row]) in images]
    part = rows_of(targets, rows)
    part.image.sub_(images[0])
    return part


def _images(logits: Logits, images: list[int]) -> Logits:
    p3, p4, p5 = (LevelLogits(level.box[images], level.score[images]) for level in logits)
    return p3, p4, p5


def _to(logits: Logits, dtype: torch.dtype) -> Logits:
    p3, p4, p5 = (LevelLogits(level.box.to(dtype), level.score.to(dtype)) for level in logits)
    return p3, p4, p5


def _mean(rows: list[list[float]]) -> list[float]:
    return [sum(column) / len(rows) for column in zip(*rows, strict=True)]
