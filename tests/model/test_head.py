# SPDX-License-Identifier: Apache-2.0
"""Box distributions, anchor points, and the biases a head starts with."""

import math

import pytest
import torch

from model.head import Head, LevelLogits, Logits, anchor_points, decode, expected_sides


def make_logits(height: int = 4, width: int = 6, num_classes: int = 2) -> Logits:
    p3, p4, p5 = (
        LevelLogits(
            torch.zeros(1, 64, height // step, width // step),
            torch.zeros(1, num_classes, height // step, width // step),
        )
        for step in (1, 2, 2)
    )
    return p3, p4, p5


def test_equal_logits_expect_the_middle_distance() -> None:
    sides = expected_sides(torch.zeros(1, 64, 2, 3))
    torch.testing.assert_close(sides, torch.full((1, 4, 2, 3), 7.5))


def test_the_expectation_of_a_known_distribution() -> None:
    box = torch.zeros(1, 64, 1, 1)
    box[0, [16 + 3, 16 + 4]] = torch.tensor([[[2.0]], [[1.0]]])  # the second side, top
    sides = expected_sides(box).flatten()
    torch.testing.assert_close(sides[1].item(), 6.0579186, atol=1e-6, rtol=0)
    torch.testing.assert_close(sides[[0, 2, 3]], torch.full((3,), 7.5))


def test_anchor_points_are_cell_centres_row_by_row_finest_first() -> None:
    point_xy, stride = anchor_points(make_logits())
    assert point_xy.shape == (2, 24 + 6 + 6)
    assert point_xy[:, 0].tolist() == [0.5, 0.5]
    assert point_xy[:, 1].tolist() == [1.5, 0.5]
    assert point_xy[:, 6].tolist() == [0.5, 1.5]
    assert stride.unique_consecutive().tolist() == [8, 16, 32]


def test_a_box_reaches_as_far_from_its_anchor_as_its_sides_say() -> None:
    logits = make_logits()
    for side, distance in enumerate((1, 2, 3, 4)):
        logits[1].box[0, 16 * side + distance, 1, 2] = 1000.0
    predictions = decode(logits)
    anchor = 24 + 1 * 3 + 2  # second row, third column of P4: centre (40, 24)
    expected = torch.tensor([40 - 16.0, 24 - 32.0, 40 + 48.0, 24 + 64.0])
    torch.testing.assert_close(predictions[0, :4, anchor], expected)
    torch.testing.assert_close(predictions[0, 4:, anchor], torch.tensor([0.5, 0.5]))


@pytest.mark.parametrize(
    ("num_classes", "level", "expected"),
    [(80, "p3", -11.536642), (80, "p4", -10.150348), (80, "p5", -8.764053), (1, "p3", -7.154615)],
)
def test_a_fresh_head_expects_few_objects(num_classes: int, level: str, expected: float) -> None:
    head = Head((64, 96, 128), num_classes, class_width=80, box_groups=4)
    bias = head.score[level].out.bias
    assert math.isclose(bias[0].item(), expected, abs_tol=1e-5)
    assert (head.box[level].out.bias == 1).all()


@pytest.mark.parametrize(("groups", "expected"), [(4, 16), (1, 64)])
def test_box_groups_narrow_the_box_branch(groups: int, expected: int) -> None:
    head = Head((64, 96, 128), 3, class_width=80, box_groups=groups)
    assert head.box["p3"].second.conv.weight.shape == (64, expected, 3, 3)
    assert head.box["p3"].out.weight.shape == (64, expected, 1, 1)
