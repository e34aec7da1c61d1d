# SPDX-License-Identifier: Apache-2.0
"""Official names of the training form, proved by values that need no checkpoint.

The golden values come from the main head of the published training form, given weights by a
formula of each tensor's name and its position among all names, those of the auxiliary branch too.
"""

import pytest
import torch

from model.network import Detector
from model.scales import SCALES, ScaleName
from tests.model.golden import Golden, assert_golden, golden_values
from training.auxiliary import RELEASED
from training.official_names import bins_names, numbering_of, training_names
from training.pgi import GuidedDetector

GOLDEN = (
    Golden(scale="T", class_width=128, box_sum=50386.66805219, score_sum=5039.68418033,
           first_box=(4.3186767, 3.9420525, 120.3525771, 119.7849916),
           first_scores=(.52546919, .51799791, .5007751),
           last_box=(48.2066921, 80.2117236, 480.3910675, 480.5399257)),
    Golden(scale="S", class_width=128, box_sum=50386.28121329, score_sum=5039.68438878,
           first_box=(4.3307644, 3.9324966, 120.3646748, 119.7461951),
           first_scores=(.52546219, .51800724, .50076353),
           last_box=(48.1822733, 80.2316443, 480.4059796, 480.5389274)),
    Golden(scale="M", class_width=240, box_sum=50383.63823361, score_sum=5039.22150509,
           first_box=(4.3922515, 3.9393698, 119.61119, 120.3285297),
           first_scores=(.51780753, .52378542, .50171183),
           last_box=(48.8435272, 79.1152472, 481.0848069, 480.6522488)),
    Golden(scale="C", class_width=256, box_sum=50372.17118037, score_sum=5042.96666284,
           first_box=(3.7961924, 4.0526264, 119.7145072, 119.8858767),
           first_scores=(.49656293, .52001502, .52798268),
           last_box=(47.0532012, 81.1004462, 482.006845, 476.988535)),
    Golden(scale="E", class_width=256, box_sum=50368.93056791, score_sum=5042.25401424,
           first_box=(3.8950401, 4.1661419, 119.7096522, 119.9210693),
           first_scores=(.50313616, .52446591, .52658316),
           last_box=(47.5020696, 81.4562063, 481.8107615, 477.3343276)),
)  # fmt: skip


@pytest.mark.parametrize(
    "golden", GOLDEN, ids=lambda golden: f"{golden.scale}-{golden.class_width}"
)
def test_golden_outputs_of_the_main_head(golden: Golden) -> None:
    detector = golden_detector(golden.scale, golden.class_width)
    assert_golden(detector, golden, last_box_abs=6e-8)


def golden_detector(scale: ScaleName, class_width: int) -> Detector:
    """The detector of a training form; the branch beside it only lends its names."""
    with torch.device("meta"):
        guided = make_unfilled(scale, class_width)
    names = training_names(guided)
    numbering = numbering_of(guided.form, guided.detector.scale.passes)
    published = sorted([*names.values(), *bins_names(numbering)])
    order = {name: place for place, name in enumerate(published)}
    detector = guided.detector.to_empty(device="cpu").double().eval()
    for ours, tensor in detector.state_dict().items():
        name = names[f"detector.{ours}"]
        tensor.copy_(golden_values(name, order[name], tensor.shape))
    return detector


def make_unfilled(scale: ScaleName, class_width: int | None = None) -> GuidedDetector:
    return GuidedDetector(Detector(SCALES[scale], 80, class_width=class_width), RELEASED[scale])


def test_a_form_that_was_never_published_has_no_names() -> None:
    with torch.device("meta"):
        guided = GuidedDetector(Detector(SCALES["T"], 2), "pan")
    with pytest.raises(ValueError, match="no detector of one backbone was published"):
        training_names(guided)
