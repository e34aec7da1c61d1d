# SPDX-License-Identifier: Apache-2.0
"""Every size costs what was published, tensor by tensor and multiplication by multiplication."""

import pytest
import torch

from model.figures import FIGURES
from model.head import BINS
from model.importing import official_names
from model.network import Detector
from model.reparam import fuse
from model.scales import SCALES, ScaleName
from tests.model.costs import gflops, num_parameters

# parameters unfused and fused, with the 16 fixed distances that the published network stores;
# tensors likewise; GFLOPs likewise, with the convolution that weighs those distances
PUBLISHED = {
    "T": (2_036_560, 2_001_840, 1339, 371, 7.795, 7.713),
    "S": (7_226_208, 7_105_888, 1339, 371, 26.709, 26.379),
    "M": (20_124_000, 19_978_672, 907, 279, 76.800, 76.310),
    "C": (25_498_752, 25_288_768, 937, 289, 102.819, 102.137),
    "E": (58_114_432, 57_345_920, 1811, 523, 191.148, 188.946),
}
DISTANCE_GFLOPS = 2 * BINS * 4 * 8400 / 1e9


def make(scale: ScaleName, *, box_groups: int = 4, class_width: int | None = None) -> Detector:
    with torch.device("meta"):
        return Detector(SCALES[scale], 80, box_groups=box_groups, class_width=class_width).eval()


@pytest.mark.parametrize("scale", SCALES)
def test_the_costs_are_the_published_ones(scale: ScaleName) -> None:
    forms = (unfused := make(scale), fuse(unfused))
    counts = tuple(num_parameters(form) + BINS for form in forms)
    tensors = tuple(len(form.state_dict()) + 1 for form in forms)
    costs = tuple(round(gflops(form) + DISTANCE_GFLOPS, 3) for form in forms)
    assert counts + tensors + costs == PUBLISHED[scale]


@pytest.mark.parametrize("scale", SCALES)
def test_a_dense_box_branch_costs_92160_more(scale: ScaleName) -> None:
    assert num_parameters(make(scale, box_groups=1)) - num_parameters(make(scale)) == 92_160


def test_t_as_committed_has_a_wider_class_branch() -> None:
    wide = make("T", class_width=128)
    assert num_parameters(wide) + BINS == 2_442_640
    assert num_parameters(fuse(wide)) + BINS == 2_407_632


@pytest.mark.parametrize("scale", SCALES)
def test_each_tensor_has_its_own_published_name(scale: ScaleName) -> None:
    for detector in (make(scale), fuse(make(scale))):
        names = official_names(detector)
        assert len(set(names.values())) == len(names) == len(detector.state_dict())
        assert all(name.startswith("model.") for name in names.values())


@pytest.mark.parametrize("scale", SCALES)
def test_the_table_of_figures_is_counted_on_the_network(scale: ScaleName) -> None:
    unfused = make(scale)
    for form, cost in ((unfused, FIGURES[scale].unfused), (fuse(unfused), FIGURES[scale].fused)):
        assert cost.parameters == num_parameters(form)
        assert cost.gflops == pytest.approx(gflops(form), abs=5e-4)
