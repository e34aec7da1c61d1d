# SPDX-License-Identifier: Apache-2.0
"""Folding normalisations and merging branches changes the form, not the result."""

import pytest
import torch

from model.network import Detector
from model.reparam import ConvUnit, RepConv, fuse
from model.scales import SCALES, ScaleName
from tests.model.builders import make_detector


def randomise(module: torch.nn.Module) -> torch.nn.Module:
    torch.manual_seed(1)
    for part in module.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(part.weight, 0.5, 1.5)
            torch.nn.init.uniform_(part.bias, -0.5, 0.5)
            part.running_mean.uniform_(-0.5, 0.5)
            part.running_var.uniform_(0.5, 1.5)
    return module.eval()


@pytest.mark.parametrize("kind", ["unit", "two branches"])
def test_a_fused_convolution_gives_the_same(kind: str) -> None:
    inner = ConvUnit(4, 6, 3, stride=2) if kind == "unit" else RepConv(4, 6)
    parent = randomise(torch.nn.Sequential(inner)).double()
    x = torch.randn(2, 4, 9, 7, dtype=torch.float64)
    with torch.inference_mode():
        torch.testing.assert_close(fuse(parent)(x), parent(x))


def test_a_fused_convolution_has_one_kernel_and_one_bias() -> None:
    fused = fuse(torch.nn.Sequential(RepConv(4, 6)))
    assert set(fused.state_dict()) == {"0.conv.weight", "0.conv.bias"}


@pytest.mark.parametrize("scale", SCALES)
def test_fusing_moves_a_box_by_less_than_a_thousandth_of_a_pixel(scale: ScaleName) -> None:
    torch.manual_seed(0)
    detector = randomise(Detector(SCALES[scale], 80))
    images = torch.rand(1, 3, 160, 160)
    with torch.inference_mode():
        before, after = detector(images), fuse(detector)(images)
    assert (before[:, :4] - after[:, :4]).abs().max() < 1.2e-4
    assert (before[:, 4:] - after[:, 4:]).abs().max() < 1e-9, "of scores about 1e-4"


def test_fusing_keeps_scores_of_any_height() -> None:
    detector = randomise(make_detector())
    images = torch.rand(1, 3, 96, 64)
    with torch.inference_mode():
        before, after = detector(images)[:, 4:], fuse(detector)(images)[:, 4:]
    assert before.max() - before.min() > 0.5
    assert (before - after).abs().max() < 1e-4


def test_the_detector_that_was_fused_still_trains() -> None:
    detector = Detector(SCALES["T"], 2).train()
    names = set(detector.state_dict())
    fused = fuse(detector)
    assert detector.training
    assert not fused.training
    assert set(detector.state_dict()) == names
    assert all(parameter.requires_grad for parameter in detector.parameters())
    detector(torch.rand(2, 3, 64, 64)).sum().backward()


def test_fusing_twice_is_fusing_once() -> None:
    once = fuse(make_detector())
    twice = fuse(once)
    for name, tensor in once.state_dict().items():
        assert torch.equal(tensor, twice.state_dict()[name])


def test_normalisation_is_the_published_one() -> None:
    norm = ConvUnit(3, 4, 3).norm
    assert isinstance(norm, torch.nn.BatchNorm2d)
    assert (norm.eps, norm.momentum) == (1e-3, 0.03)
