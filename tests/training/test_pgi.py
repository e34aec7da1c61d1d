# SPDX-License-Identifier: Apache-2.0
"""A detector beside its auxiliary branch: guided by it, and otherwise as if it were alone."""

import copy

import pytest
import torch

from model.network import Detector
from model.scales import SCALES, ScaleName
from tests.training.builders import make_guided, summed
from training.auxiliary import FORMS, FormName
from training.pgi import GuidedDetector, GuidedLogits


@pytest.mark.parametrize("form", FORMS)
def test_gradients_reach_every_parameter_of_both_parts(form: FormName) -> None:
    guided = make_guided(form=form)
    summed(guided(torch.rand(2, 3, 64, 64))).backward()
    without = [
        name
        for name, parameter in guided.named_parameters()
        if parameter.grad is None or not parameter.grad.any()
    ]
    assert without == []


def test_the_branch_adds_its_gradients_to_those_of_the_detector() -> None:
    """Nothing is detached between the two."""
    guided = make_guided()
    alone = copy.deepcopy(guided.detector)
    images = torch.rand(2, 3, 64, 64)
    summed(guided(images)).backward()
    summed(GuidedLogits(alone.logits(images), ())).backward()
    with_branch = guided.detector.backbone.stem_p1.conv.weight.grad
    without = alone.backbone.stem_p1.conv.weight.grad
    assert not torch.allclose(with_branch, without)
    head = guided.detector.head.box["p3"].out.weight.grad
    assert torch.equal(head, alone.head.box["p3"].out.weight.grad)


@pytest.mark.parametrize("training", [True, False], ids=["training", "eval"])
def test_the_detector_says_the_same_with_and_without_a_branch(training: bool) -> None:
    guided = make_guided().train(training)
    alone = copy.deepcopy(guided.detector)
    images = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        main, expected = guided(images).main, alone.logits(images)
        assert all(torch.equal(a, b) for a, b in zip(sum(main, ()), sum(expected, ()), strict=True))
        assert torch.equal(guided.detector(images), alone(images))


def test_the_detector_has_no_tensor_of_the_branch() -> None:
    detector = Detector(SCALES["T"], 3)
    names = list(detector.state_dict())
    guided = GuidedDetector(detector, "fpn")
    assert guided.detector is detector
    assert list(detector.state_dict()) == names
    assert not any("auxiliary" in name for name in names)


@pytest.mark.parametrize(
    ("scale", "form", "box_width", "class_width"),
    [
        pytest.param("T", "fpn", 64, 80, id="T, as released"),
        pytest.param("S", "fpn", 64, 128, id="S"),
        pytest.param("M", "icn", 64, 240, id="M"),
        pytest.param("C", "icn", 128, 512, id="C: its first map is twice as wide as the main one"),
        pytest.param("E", "fpn", 64, 256, id="E"),
    ],
)
def test_an_auxiliary_head_is_as_wide_as_published(
    scale: ScaleName, form: FormName, box_width: int, class_width: int
) -> None:
    with torch.device("meta"):
        head = make_guided(scale, form, num_classes=80).auxiliary[0].head
    assert head.box["p3"].out.in_channels == box_width
    assert head.score["p3"].out.in_channels == class_width


@pytest.mark.parametrize("box_groups", [1, 4])
def test_an_auxiliary_head_has_the_box_groups_and_classes_of_the_main_one(box_groups: int) -> None:
    detector = Detector(SCALES["T"], 7, box_groups=box_groups, class_width=128)
    head = GuidedDetector(detector, "pfh").auxiliary[0].head
    assert head.box["p5"].second.conv.groups == head.box["p5"].out.groups == box_groups
    assert head.score["p5"].out.weight.shape == (7, 128, 1, 1)
