# SPDX-License-Identifier: Apache-2.0
"""Every size in training costs what was published, tensor by tensor."""

import pytest
import torch

from model.head import BINS
from model.network import Detector
from model.reparam import fuse
from model.scales import SCALES, ScaleName
from training.auxiliary import RELEASED
from training.official_names import training_names
from training.pgi import GuidedDetector

# parameters unfused and fused, with the 16 fixed distances that each published head stores;
# tensors likewise
PUBLISHED = [
    pytest.param("T", None, (2_905_520, 2_862_992, 1772, 500), id="T"),
    pytest.param("T", 128, (3_717_680, 3_674_576, 1772, 500), id="T as committed"),
    pytest.param("S", None, (9_804_512, 9_659_168, 1772, 500), id="S"),
    pytest.param("M", None, (32_878_432, 32_667_400, 1412, 444), id="M"),
    pytest.param("C", None, (51_182_080, 50_880_768, 1460, 460), id="C"),
    pytest.param("E", None, (69_529_664, 68_669_632, 2172, 636), id="E"),
]


def make(scale: ScaleName, class_width: int | None = None) -> GuidedDetector:
    with torch.device("meta"):
        detector = Detector(SCALES[scale], 80, class_width=class_width)
        return GuidedDetector(detector, RELEASED[scale]).eval()


@pytest.mark.parametrize(("scale", "class_width", "published"), PUBLISHED)
def test_parameters_in_training_are_the_published_ones(
    scale: ScaleName, class_width: int | None, published: tuple[int, ...]
) -> None:
    unfused = make(scale, class_width)
    fused = fuse(unfused)
    parameters = tuple(
        sum(parameter.numel() for parameter in form.parameters()) + 2 * BINS
        for form in (unfused, fused)
    )
    tensors = tuple(len(form.state_dict()) + 2 for form in (unfused, fused))
    assert parameters + tensors == published


@pytest.mark.parametrize("scale", SCALES)
def test_each_tensor_in_training_has_its_own_published_name(scale: ScaleName) -> None:
    guided = make(scale)
    for form in (guided, fuse(guided)):
        names = training_names(form)
        assert len(set(names.values())) == len(names) == len(form.state_dict())
        assert all(name.startswith("model.") for name in names.values())
