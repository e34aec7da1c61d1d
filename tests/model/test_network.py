# SPDX-License-Identifier: Apache-2.0
"""The whole detector: shapes, and values that need no checkpoint.

The golden values come from the published network given weights by a formula of each tensor's
name and position, in float64.
"""

from dataclasses import replace
from typing import Literal

import pytest
import torch

from model.importing import bins_name, official_names
from model.network import Detector, LinkedBackbone
from model.scales import SCALES, ScaleName
from tests.model.golden import Golden, assert_golden, golden_values

GOLDEN = (
    Golden(scale="T", class_width=128, box_sum=50418.70948140, score_sum=5036.14986297,
           first_box=(3.8397084, 3.954633, 120.0461333, 119.906333),
           first_scores=(.50941837, .48623253, .47482561),
           last_box=(47.417867, 80.358902, 478.739945, 479.802878)),
    Golden(scale="T", class_width=80, box_sum=50418.70948140, score_sum=5036.10932943,
           first_box=(3.8397084, 3.954633, 120.0461333, 119.906333),
           first_scores=(.50611613, .48877785, .4733373),
           last_box=(47.417867, 80.358902, 478.739945, 479.802878)),
    Golden(scale="S", class_width=128, box_sum=50418.57335874, score_sum=5036.14991074,
           first_box=(3.845143, 3.9463276, 120.1144448, 119.8060572),
           first_scores=(.50942247, .48622776, .47483099),
           last_box=(47.3888731, 80.3490534, 478.7108057, 479.8279251)),
    Golden(scale="M", class_width=240, box_sum=50385.46805026, score_sum=5041.82334137,
           first_box=(4.1060318, 4.2649834, 119.2692238, 120.6066395),
           first_scores=(.5045095, .52554299, .520736),
           last_box=(48.9429808, 80.6153327, 480.7326508, 480.3134158)),
    Golden(scale="C", class_width=256, box_sum=50406.66422317, score_sum=5044.50756290,
           first_box=(3.781266, 4.195815, 119.2464273, 120.7078586),
           first_scores=(.49157752, .51428397, .52064309),
           last_box=(47.9500296, 80.6243575, 480.0908499, 479.5648214)),
    Golden(scale="E", class_width=256, box_sum=50416.89915062, score_sum=5038.26012305,
           first_box=(4.1095154, 4.147886, 119.8615847, 120.3788035),
           first_scores=(.47548454, .47932396, .50094225),
           last_box=(49.1020722, 78.9011681, 478.5696853, 481.5687668)),
)  # fmt: skip


@pytest.mark.parametrize(
    "golden", GOLDEN, ids=lambda golden: f"{golden.scale}-{golden.class_width}"
)
def test_golden_outputs(golden: Golden) -> None:
    detector = golden_detector(golden.scale, golden.class_width)
    assert_golden(detector, golden, last_box_abs=6e-7)


def golden_detector(scale: ScaleName, class_width: int) -> Detector:
    detector = Detector(SCALES[scale], 80, class_width=class_width).double().eval()
    names = official_names(detector)
    published = sorted([*names.values(), bins_name(SCALES[scale])])
    order = {name: place for place, name in enumerate(published)}
    for ours, tensor in detector.state_dict().items():
        tensor.copy_(golden_values(names[ours], order[names[ours]], tensor.shape))
    return detector


@pytest.mark.parametrize("num_classes", [1, 7])
def test_predictions_have_a_row_for_each_side_and_class(num_classes: int) -> None:
    detector = Detector(SCALES["T"], num_classes).eval()
    with torch.inference_mode():
        predictions = detector(torch.zeros(2, 3, 64, 96))
    assert predictions.shape == (2, 4 + num_classes, 8 * 12 + 4 * 6 + 2 * 3)


def test_the_pyramid_gives_backbone_and_neck_at_three_strides() -> None:
    detector = Detector(SCALES["T"], 2).eval()
    with torch.inference_mode():
        backbone, neck = detector.pyramid(torch.zeros(1, 3, 64, 96))
    assert [level.shape[-2:] for level in backbone] == [(8, 12), (4, 6), (2, 3)]
    assert [level.shape[1] for level in backbone] == [64, 96, 128]
    assert [level.shape for level in neck] == [level.shape for level in backbone]


def test_the_pyramid_of_linked_backbones_shows_the_first_and_the_neck_reads_the_second() -> None:
    detector = Detector(replace(SCALES["T"], passes=2), 2).eval()
    images = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        stages = detector.backbone(images)
        shown, read = detector.pyramid(images)
        expected = detector.neck(detector.linked[0](images, stages)[2:])
    assert all(map(torch.equal, shown, stages[2:]))
    assert all(map(torch.equal, read, expected))


def test_a_backbone_linked_to_the_coarsest_stages_is_joined_there_alone() -> None:
    linked = LinkedBackbone(SCALES["T"], (64, 96, 128)).eval()
    images = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        alone = linked.backbone(images)
        joined = linked(images, alone[2:])
    same = [torch.equal(*maps) for maps in zip(alone, joined, strict=True)]
    assert same == [True, True, False, False, False]


@pytest.mark.parametrize("passes", [1, 2])
def test_logits_reach_every_parameter(passes: Literal[1, 2]) -> None:
    detector = Detector(replace(SCALES["T"], passes=passes), 2).train()
    logits = detector.logits(torch.rand(2, 3, 64, 64))
    sum(level.box.sum() + level.score.sum() for level in logits).backward()
    assert all(parameter.grad is not None for parameter in detector.parameters())
