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

# size, class width, sum of boxes, sum of scores, box of the first anchor, its first three
# scores, box of the last anchor; boxes as centre, width and height
GOLDEN = [
    pytest.param("T", 128, 50418.70948140, 5036.14986297,
                 (3.8397084, 3.954633, 120.0461333, 119.906333),
                 (.50941837, .48623253, .47482561),
                 (47.417867, 80.358902, 478.739945, 479.802878), id="T-128"),
    pytest.param("T", 80, 50418.70948140, 5036.10932943,
                 (3.8397084, 3.954633, 120.0461333, 119.906333),
                 (.50611613, .48877785, .4733373),
                 (47.417867, 80.358902, 478.739945, 479.802878), id="T-80"),
    pytest.param("S", 128, 50418.57335874, 5036.14991074,
                 (3.845143, 3.9463276, 120.1144448, 119.8060572),
                 (.50942247, .48622776, .47483099),
                 (47.3888731, 80.3490534, 478.7108057, 479.8279251), id="S"),
    pytest.param("M", 240, 50385.46805026, 5041.82334137,
                 (4.1060318, 4.2649834, 119.2692238, 120.6066395),
                 (.5045095, .52554299, .520736),
                 (48.9429808, 80.6153327, 480.7326508, 480.3134158), id="M"),
    pytest.param("C", 256, 50406.66422317, 5044.50756290,
                 (3.781266, 4.195815, 119.2464273, 120.7078586),
                 (.49157752, .51428397, .52064309),
                 (47.9500296, 80.6243575, 480.0908499, 479.5648214), id="C"),
    pytest.param("E", 256, 50416.89915062, 5038.26012305,
                 (4.1095154, 4.147886, 119.8615847, 120.3788035),
                 (.47548454, .47932396, .50094225),
                 (49.1020722, 78.9011681, 478.5696853, 481.5687668), id="E"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("scale", "class_width", "box_sum", "score_sum", "first_box", "first_scores", "last_box"),
    GOLDEN,
)
def test_golden_outputs(
    scale: ScaleName,
    class_width: int,
    box_sum: float,
    score_sum: float,
    first_box: tuple[float, ...],
    first_scores: tuple[float, ...],
    last_box: tuple[float, ...],
) -> None:
    detector = golden_detector(scale, class_width)
    with torch.inference_mode():
        predictions = detector(golden_image())[0]
    low, high = predictions[:2], predictions[2:4]
    cxcywh = torch.cat(((low + high) / 2, high - low))
    assert predictions.shape == (84, 126)
    assert cxcywh.sum().item() == pytest.approx(box_sum, abs=6e-9, rel=0)
    assert predictions[4:].sum().item() == pytest.approx(score_sum, abs=6e-9, rel=0)
    assert cxcywh[:, 0].tolist() == pytest.approx(first_box, abs=6e-8, rel=0)
    assert predictions[4:7, 0].tolist() == pytest.approx(first_scores, abs=6e-9, rel=0)
    assert cxcywh[:, -1].tolist() == pytest.approx(last_box, abs=6e-7, rel=0)


def golden_detector(scale: ScaleName, class_width: int) -> Detector:
    detector = Detector(SCALES[scale], 80, class_width=class_width).double().eval()
    names = official_names(detector)
    published = sorted([*names.values(), bins_name(SCALES[scale])])
    order = {name: place for place, name in enumerate(published)}
    for ours, tensor in detector.state_dict().items():
        tensor.copy_(golden_values(names[ours], order[names[ours]], tensor.shape))
    return detector


def golden_values(name: str, place: int, shape: torch.Size) -> torch.Tensor:
    index = torch.arange(shape.numel(), dtype=torch.float64)
    if name.endswith("num_batches_tracked"):
        values = torch.zeros_like(index)
    elif len(shape) == 4:
        values = (2 / shape[1:].numel()) ** 0.5 * torch.sin(1.3 * index + 0.5 * place)
    elif name.endswith("running_var"):
        values = 1 + 0.5 * torch.sin(3 * index + place) ** 2
    elif name.endswith("running_mean"):
        values = 0.1 * torch.sin(2 * index + place)
    elif name.endswith("bn.weight"):
        values = 1 + 0.1 * torch.sin(index + place)
    else:
        values = 0.1 * torch.cos(index + place)
    return values.reshape(shape)


def golden_image() -> torch.Tensor:
    channel = torch.arange(1, 4, dtype=torch.float64)[:, None, None]
    y = torch.arange(96, dtype=torch.float64)[:, None]
    x = torch.arange(64, dtype=torch.float64)
    return (0.5 + 0.5 * torch.sin(0.01 * channel * (y + 2 * x)))[None]


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
