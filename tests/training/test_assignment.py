# SPDX-License-Identifier: Apache-2.0
"""Task-aligned assignment: the published values, its rules one by one, memory, independence."""

import pytest
import torch

from model.head import STRIDES, LevelLogits, Logits
from tests.benchmarks.allocations import Allocations
from tests.benchmarks.objects import random_logits, random_targets
from tests.training.targets import (
    NO_OBJECTS,
    golden_logits,
    golden_targets,
    make_targets,
    rows_of,
)
from training.assignment import Assignment, AssignmentConfig, GridLevel, Predicted, assign
from training.losses import flatten, predict
from training.overlap import complete_iou
from training.targets import Targets

PUBLISHED = AssignmentConfig(conflicts="everyone")
FOREGROUND = [0, 8, 18, 19, 20, 21, 26, 27, 28, 29, 34, 35, 36, 37, 42, 43, 44, 64]
CLASSES = [2, 2, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 1, 1, 1, 2]
# fmt: off
SCORES = [0, 2e-6, 0.072428, 0.08063, 0.06096, 0.032773, 0.0257, 0.034564, 0.031821, 0.031134,
          0.077937, 0.101068, 0.088187, 0.054661, 0.049471, 0.049864, 0.035145, 0]
# fmt: on


@pytest.mark.parametrize("conflicts", ["claimants", "everyone"])
def test_values_are_those_of_the_published_training(conflicts: str) -> None:
    """No conflict here has a third party, so both rules agree."""
    targets = golden_targets()
    found = assign(
        predict(flatten(golden_logits(0))), targets, AssignmentConfig(conflicts=conflicts)
    )
    assert found.image.tolist() == [0] * len(FOREGROUND)
    assert found.anchor.tolist() == FOREGROUND
    assert targets.class_id[found.object_id].tolist() == CLASSES
    assert found.score.tolist() == pytest.approx(SCORES, abs=1e-6)
    assert found.score.sum().item() == pytest.approx(0.82634634, rel=1e-6)


def test_an_object_without_an_anchor_point_inside_gets_none() -> None:
    """The fourth of these, 1.28 pixels wide; and one beside the image, and an empty one."""
    found = assign(predict(flatten(golden_logits(0))), golden_targets(), PUBLISHED)
    assert 3 not in found.object_id
    rows = [(0, 0, (-40.0, 0.0, -8.0, 64.0)), (1, 0, (12.0, 12.0, 12.0, 12.0))]
    found = assign(predict(flatten(golden_logits(0))), make_targets(rows), PUBLISHED)
    assert len(found.anchor) == 0


def test_no_objects_give_no_positives() -> None:
    for conflicts in ("claimants", "everyone"):
        found = assign(
            predict(flatten(golden_logits(0))), NO_OBJECTS, AssignmentConfig(conflicts=conflicts)
        )
        assert found.score.shape == found.anchor.shape == found.object_id.shape == (0,)


@pytest.mark.parametrize(
    ("left", "expected"),
    [
        pytest.param(4.0, [1], id="a side through a centre leaves it outside"),
        pytest.param(3.999, [0, 1], id="a side just before it leaves it inside"),
    ],
)
def test_a_centre_has_to_lie_inside(left: float, expected: list[int]) -> None:
    predicted = _predicted(GridLevel(8, 4, 4), torch.tensor([0.0, 0.0, 16.0, 8.0]).expand(16, 4))
    found = assign(predicted, make_targets([(0, 0, (left, 0.0, 16.0, 8.0))]), PUBLISHED)
    assert found.anchor.tolist() == expected


@pytest.mark.parametrize("image_hw", [(160, 160), (96, 224)], ids=["square", "wide"])
def test_an_object_gets_the_best_aligned_anchor_points_of_all_levels(
    image_hw: tuple[int, int],
) -> None:
    """Against every pair of an object and an anchor point, looked at in one table."""
    targets = make_targets([(0, 3, (20.0, 10.0, 130.0, 80.0))])
    predicted = predict(flatten(_cropped(random_logits(1, 5, max(image_hw)), image_hw)))
    found = assign(predicted, targets, AssignmentConfig(candidates=7))

    overlap = complete_iou(targets.xyxy, predicted.xyxy[0]).clamp(min=0)
    aligned = predicted.score_logits[0, 3].sigmoid().sqrt() * overlap**6
    best = (aligned * _inside(predicted, targets)[0]).topk(7).indices
    assert found.anchor.tolist() == sorted(best.tolist())
    expected = aligned[found.anchor] / (aligned[best].max() + 1e-9) * overlap[best].max()
    assert torch.allclose(found.score, expected, rtol=1e-4)


@pytest.mark.parametrize("image_hw", [(96, 224), (224, 96)], ids=["wide", "high"])
@pytest.mark.parametrize(
    "box",
    [(-10.0, -10.0, 500.0, 500.0), (50.0, 30.0, 90.0, 95.0), (200.0, 5.0, 230.0, 400.0)],
    ids=["around the image", "inside", "over its edge"],
)
def test_with_room_for_all_an_object_gets_every_anchor_point_inside_it(
    image_hw: tuple[int, int], box: tuple[float, float, float, float]
) -> None:
    targets = make_targets([(0, 0, box)])
    predicted = predict(flatten(_cropped(random_logits(1, 1, 224), image_hw)))
    found = assign(predicted, targets, AssignmentConfig(candidates=1000))
    (expected,) = _inside(predicted, targets)[0].nonzero(as_tuple=True)
    assert torch.equal(found.anchor, expected)


def test_the_best_anchor_point_of_an_object_scores_its_overlap() -> None:
    targets = random_targets(2, 6, image_size=160, num_classes=5, mean_size=50)
    logits = random_logits(2, 5, 160)
    predicted = predict(flatten(logits))
    found = assign(predicted, targets, AssignmentConfig(score_power=0, overlap_power=1))
    overlap = complete_iou(
        targets.xyxy[found.object_id], predicted.xyxy[found.image, found.anchor]
    ).clamp(min=0)
    assert len(found.anchor) > 20
    assert torch.allclose(found.score, overlap, atol=1e-6)


def _contested() -> tuple[Predicted, Targets]:
    """An anchor point inside two objects whose box is nearer to a third, which it lies outside."""
    rows = [
        (0, 0, (10.0, 10.0, 30.0, 30.0)),
        (0, 1, (8.0, 8.0, 34.0, 34.0)),
        (0, 2, (16.0, 16.0, 50.0, 50.0)),
    ]
    boxes = torch.tensor([(0, 0, 1, 1), (0, 0, 1, 1), (0, 0, 1, 1), (14, 14, 46, 46)]).float()
    return _predicted(GridLevel(10, 2, 2), boxes), make_targets(rows)


def test_in_published_training_a_contested_anchor_point_goes_to_any_object() -> None:
    predicted, targets = _contested()
    found = assign(predicted, targets, AssignmentConfig(candidates=1, conflicts="everyone"))
    assert found.anchor.tolist() == [3]
    assert found.object_id.tolist() == [2]
    overlap = complete_iou(targets.xyxy, predicted.xyxy[0, 3])
    assert found.score.item() == pytest.approx(overlap[2].item(), rel=1e-3)


def test_a_contested_anchor_point_goes_to_one_of_its_claimants() -> None:
    predicted, targets = _contested()
    found = assign(predicted, targets, AssignmentConfig(candidates=1))
    overlap = complete_iou(targets.xyxy, predicted.xyxy[0, 3])
    assert overlap.argmax() == 2
    assert found.anchor.tolist() == [3]
    assert found.object_id.tolist() == [1]
    assert overlap[1] > overlap[0]
    assert found.score.item() == pytest.approx(overlap[1].item(), rel=1e-3)


def test_an_anchor_point_has_one_object() -> None:
    targets = random_targets(3, 40, image_size=160, num_classes=5, mean_size=60)
    for conflicts in ("claimants", "everyone"):
        config = AssignmentConfig(conflicts=conflicts)
        found = assign(predict(flatten(random_logits(3, 5, 160))), targets, config)
        cells = list(zip(found.image.tolist(), found.anchor.tolist(), strict=True))
        assert len(set(cells)) == len(cells) > 100
        assert cells == sorted(cells)
        assert torch.equal(targets.image[found.object_id], found.image)


def test_of_equal_boxes_an_anchor_point_goes_to_the_class_it_scores_higher() -> None:
    """Whichever comes first: a box of two classes is taught as both."""
    box = (20.0, 20.0, 130.0, 130.0)
    predicted = predict(flatten(random_logits(1, 2, 160)))
    one = _classes(predicted, make_targets([(0, 0, box), (0, 1, box)]))
    other = _classes(predicted, make_targets([(0, 1, box), (0, 0, box)]))
    overlap = complete_iou(torch.tensor(box), predicted.xyxy[0])
    better = predicted.score_logits[0].argmax(dim=0)
    assert one == other
    assert set(one.values()) == {0, 1}
    assert all(better[anchor] == chosen for anchor, chosen in one.items() if overlap[anchor] > 0.01)


def test_the_order_of_objects_does_not_matter() -> None:
    targets = random_targets(2, 30, image_size=160, num_classes=5, mean_size=60)
    predicted = predict(flatten(random_logits(2, 5, 160)))
    order = torch.randperm(60, generator=torch.Generator().manual_seed(1)).tolist()
    shuffled = rows_of(targets, order)
    one = assign(predicted, targets, AssignmentConfig())
    other = assign(predicted, shuffled, AssignmentConfig())
    assert torch.equal(one.anchor, other.anchor)
    assert torch.equal(targets.xyxy[one.object_id], shuffled.xyxy[other.object_id])
    assert torch.allclose(one.score, other.score)


@pytest.mark.parametrize("conflicts", ["claimants", "everyone"])
def test_an_image_gets_the_same_whatever_else_is_in_the_batch(conflicts: str) -> None:
    config = AssignmentConfig(conflicts=conflicts)
    targets = random_targets(3, 30, image_size=160, num_classes=5, mean_size=60)
    predicted = predict(flatten(random_logits(3, 5, 160)))
    together = assign(predicted, targets, config)
    for image in range(3):
        (own,) = (targets.image == image).nonzero(as_tuple=True)
        alone = Predicted(
            levels=predicted.levels,
            xyxy=predicted.xyxy[image : image + 1],
            score_logits=predicted.score_logits[image : image + 1],
        )
        found = assign(
            alone,
            Targets(
                image=torch.zeros_like(own),
                class_id=targets.class_id[own],
                xyxy=targets.xyxy[own],
            ),
            config,
        )
        part = together.image == image
        assert torch.equal(found.anchor, together.anchor[part])
        assert torch.equal(own[found.object_id], together.object_id[part])
        assert torch.allclose(found.score, together.score[part])


def test_large_and_small_objects_of_one_batch_are_all_served() -> None:
    """From no anchor point inside to all of them; each gets as many as are inside, up to 10."""
    sides = [3.0, 9.0, 17.0, 33.0, 65.0, 129.0, 257.0, 320.0]
    rows = [(place, 0, (0.0, 0.0, side, side)) for place, side in enumerate(sides)]
    targets = make_targets(rows)
    predicted = predict(flatten(random_logits(len(rows), 1, 320)))
    found = assign(predicted, targets, AssignmentConfig())
    expected = _inside(predicted, targets).sum(dim=1).clamp(max=10)
    counts = torch.bincount(found.object_id, minlength=len(rows))
    assert expected.tolist() == [0, 2, 6, 10, 10, 10, 10, 10]
    assert torch.equal(counts, expected)


@pytest.mark.parametrize("mean_size", [40, 2000], ids=["usual", "each fills the image"])
@pytest.mark.parametrize("conflicts", ["claimants", "everyone"])
def test_a_thousand_objects_in_an_image_of_640_pixels_take_few_megabytes(
    mean_size: float, conflicts: str
) -> None:
    """8,400 anchor points: a table of their four distances to each object would have 134 MB."""
    targets = random_targets(1, 1000, image_size=640, num_classes=80, mean_size=mean_size)
    predicted = predict(flatten(random_logits(1, 80, 640)))
    with Allocations() as seen:
        assign(predicted, targets, AssignmentConfig(conflicts=conflicts))
    assert seen.largest_bytes < 2e6
    assert seen.peak_bytes < 10e6


def test_a_denser_image_costs_the_others_nothing() -> None:
    """Objects are packed, not padded to the most that any image has."""
    crowd = random_targets(1, 500, image_size=320, num_classes=3, mean_size=30)
    peaks = []
    for num_images in (1, 8):
        predicted = predict(flatten(random_logits(num_images, 3, 320)))
        with Allocations() as seen:
            assign(predicted, crowd, AssignmentConfig())
        peaks.append(seen.peak_bytes)
    places = 8 * 2100 * 8  # one whole number for each anchor point of each image
    assert peaks[1] < peaks[0] + 8 * places


def _predicted(level: GridLevel, boxes: torch.Tensor) -> Predicted:
    logits = torch.zeros(1, 3, len(boxes))
    return Predicted(levels=(level,), xyxy=boxes[None].contiguous(), score_logits=logits)


def _cropped(logits: Logits, image_hw: tuple[int, int]) -> Logits:
    """The same maps, of an image cut to this size."""
    height, width = image_hw
    p3, p4, p5 = (
        LevelLogits(*(part[:, :, : height // stride, : width // stride] for part in level))
        for level, stride in zip(logits, STRIDES, strict=True)
    )
    return p3, p4, p5


def _inside(predicted: Predicted, targets: Targets) -> torch.Tensor:
    """Which anchor points lie inside which objects, in one table."""
    centres = []
    for stride, height, width in predicted.levels:
        y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        centres.append(stride * (torch.stack((x, y), dim=2).flatten(0, 1) + 0.5))
    centre = torch.cat(centres)
    low, high = targets.xyxy[:, None].split(2, dim=2)
    return ((centre > low) & (centre < high)).all(dim=2)


def _classes(predicted: Predicted, targets: Targets) -> dict[int, int]:
    """The class each anchor point inside learns, when every one of them is a candidate."""
    every: Assignment = assign(predicted, targets, AssignmentConfig(candidates=1000))
    class_id = targets.class_id[every.object_id]
    return dict(zip(every.anchor.tolist(), class_id.tolist(), strict=True))
