# SPDX-License-Identifier: Apache-2.0
"""Complete IoU: values of the published training, symmetry, broadcasting, gradients."""

import pytest
import torch

from training.overlap import complete_iou


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        pytest.param((10, 10, 50, 40), (12, 8, 48, 44), 0.7620953, id="moved"),
        pytest.param((10, 10, 50, 40), (10, 10, 50, 40), 1.0, id="the same"),
        pytest.param((0, 0, 10, 10), (20, 20, 30, 30), -0.4444444, id="apart"),
        pytest.param((10, 10, 50, 40), (10, 10, 10, 10), -0.3400623, id="empty"),
    ],
)
def test_values_are_those_of_the_published_training(
    first: tuple[int, ...], second: tuple[int, ...], expected: float
) -> None:
    one, other = torch.tensor(first).float(), torch.tensor(second).float()
    assert complete_iou(one, other).item() == pytest.approx(expected, abs=1e-6)
    assert complete_iou(other, one).item() == pytest.approx(expected, abs=1e-6)


def test_shapes_are_broadcast() -> None:
    low = torch.rand(2, 7, 2)
    boxes = torch.cat((low, low + torch.rand(2, 7, 2)), dim=2)
    pairs = complete_iou(boxes[0, :, None], boxes[1])
    assert pairs.shape == (7, 7)
    assert torch.allclose(pairs.diagonal(), complete_iou(boxes[0], boxes[1]))


def test_gradients_move_a_box_towards_the_other_one() -> None:
    """Also where they share nothing, which is what the distance of the centres is for."""
    wanted = torch.tensor([20.0, 20.0, 30.0, 30.0])
    box = torch.tensor([0.0, 0.0, 10.0, 10.0], requires_grad=True)
    complete_iou(box, wanted).backward()
    assert (box.grad[:2] + box.grad[2:] > 0).all()
    apart = complete_iou(box, wanted)
    assert complete_iou(box + 0.1 * box.grad.sign(), wanted) > apart


def test_gradients_take_the_weight_of_the_shape_as_a_constant() -> None:
    """Around a box of another shape: equal to finite differences with that weight held."""
    wanted = torch.tensor([0.0, 0.0, 40.0, 10.0], dtype=torch.float64)
    box = torch.tensor([10.0, -5.0, 30.0, 20.0], dtype=torch.float64, requires_grad=True)
    complete_iou(box, wanted).backward()

    iou, distance, shape = _parts(box.detach(), wanted)
    weight = shape / (shape - iou + 1)
    step = 1e-6 * torch.eye(4, dtype=torch.float64)
    for side, change in enumerate(step):
        values = []
        for moved in (box.detach() + change, box.detach() - change):
            iou, distance, shape = _parts(moved, wanted)
            values.append(iou - distance - weight * shape)
        slope = (values[0] - values[1]) / 2e-6
        assert box.grad[side].item() == pytest.approx(slope.item(), abs=1e-6)


def _parts(box: torch.Tensor, other: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """IoU, relative distance of the centres, and difference in shape, as a paper writes them."""
    sides = [b[2:] - b[:2] for b in (box, other)]
    shared = (torch.minimum(box[2:], other[2:]) - torch.maximum(box[:2], other[:2])).clamp(min=0)
    iou = shared.prod() / (sides[0].prod() + sides[1].prod() - shared.prod())
    around = torch.maximum(box[2:], other[2:]) - torch.minimum(box[:2], other[:2])
    centres = [(b[2:] + b[:2]) / 2 for b in (box, other)]
    distance = (centres[0] - centres[1]).square().sum() / around.square().sum()
    angles = [torch.atan(side[0] / side[1]) for side in sides]
    return iou, distance, 4 / torch.pi**2 * (angles[0] - angles[1]).square()
